"""A model card says what the images are, how good the model was, and has an example for each kind of model."""

import pytest
from rows import ROW

from metarun.datasets.images.preprocessing import Preprocessing
from metarun.experiments.export.card import images_in_words, probabilities_in_words, result_in_words
from metarun.experiments.export.examples import example
from metarun.experiments.runs.rows import Row

INK = Preprocessing(height=28, width=20, channels=1, ink="dark", binary=True)
PHOTO = Preprocessing(height=84, width=84, channels=3, mean=(0.5, 0.25, 0.125), std=(0.5, 0.5, 0.2))


def test_images_in_words():
    """Reject width before height, a polarity that is exchanged, and one that is told of photographs."""
    ink, photo = images_in_words(INK), images_in_words(PHOTO)
    assert ink.startswith("28 x 20 pixels, grey, uint8 from 0 to 255; dark ink on a light ground; black and white only")
    assert "exchanged" in ink and "nearest neighbour" in ink and "mean 0 and std 1." in ink
    assert photo.startswith("84 x 84 pixels, RGB, uint8 from 0 to 255. The example resizes")
    assert "ink" not in photo and "exchanged" not in photo and "mean 0.5, 0.25, 0.125 and std 0.5, 0.5, 0.2." in photo


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "accuracy 90.00 % ± 1.00 % (95 % interval over 100 test tasks), 5-way 1-shot, inductive"),
        ({"ci95": None}, "accuracy 90.00 % (100 test tasks), 5-way 1-shot, inductive"),
        ({"mean": None}, "accuracy not finite (100 test tasks), 5-way 1-shot, inductive"),
        (
            {"metric": "total_reward", "mean": 3.5, "ci95": 0.25, "trial": "2 arms, 5 pulls", "protocol": None},
            "total reward 3.5 ± 0.25 (95 % interval over 100 test trials), 2 arms, 5 pulls",
        ),
    ],
)
def test_result_in_words(changes, words):
    """Reject a fraction told as percent, and an interval that is not known."""
    base = {"mean": 0.9, "ci95": 0.01, "episodes": 100, "way": 5, "shot": 1, "split": "test", "protocol": "inductive"}
    assert result_in_words(Row.model_validate(ROW | base | {"metric": "accuracy"} | changes)) == words


def test_probabilities_in_words():
    """Reject a temperature of 1 that nobody asked for, and one that multiplies."""
    assert probabilities_in_words(None) == "`probabilities` is the softmax of `logits`."
    assert probabilities_in_words(1.8251).startswith("`probabilities` is the softmax of `logits` / 1.825: ")


@pytest.mark.parametrize("kind", ["classifier", "regression", "policy"])
@pytest.mark.parametrize("flag", [False, True])
def test_examples_are_python(kind, flag):
    for images in (INK, PHOTO):
        code = example(kind, images if kind == "classifier" else None, flag, flag)
        compile(code, "example", "exec")
        assert "metarun" not in code and all(len(line) <= 120 for line in code.splitlines())


def test_the_example_reads_images_as_the_network_does():
    """Reject width and height exchanged, and grey levels where the network has black and white."""
    ink, photo = example("classifier", INK, True), example("classifier", PHOTO, False)
    assert 'convert("L")' in ink and "resize((20, 28), way)" in ink and "reshape(28, 20, 1) // 128 * 255" in ink
    assert 'convert("RGB")' in photo and "resize((84, 84), Image.Resampling.LANCZOS)" in photo and "//" not in photo
