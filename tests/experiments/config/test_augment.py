"""The section `augment`: what is refused, what it changes in the digest, and what is shown of it."""

import pytest
from specs import GOOD, mistakes

from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.config.reference import page

LINES = GOOD.count("\n")
UNTRAINED = "name: drawings\nalgorithm: {name: hausdorff}\ndataset: {name: glyphs}\naugment: {flip: true}\n"
TRIALS = """name: arms
algorithm: {name: rl2}
network: {name: gru}
dataset: {name: bandits}
train: {steps: 1, meta_batch: 128}
augment: {flip: true}
"""


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{}", "augment: is empty: expected one of crop_padding, resized_crop, "),
        ("{flip: false}", "augment: is empty: expected one of "),
        ("{crop_padding: 0}", "augment.crop_padding: expected a number at least 1, got 0"),
        ("{crop_padding: 28}", "augment.crop_padding: is 28: crops of images of 28 pixels would hold nothing but "),
        ("{flip: 1}", "augment.flip: expected true or false, got 1"),
        ("{brightness: 1.5}", "augment.brightness: expected a number at most 1"),
        ("{resized_crop: [0.5]}", "augment.resized_crop"),
        ("{resized_crop: [0, 1]}", "augment.resized_crop.0: expected a number greater than 0"),
        ("{resized_crop: [1, 0.5]}", "augment.resized_crop: is [1, 0.5]: the first number must not be the larger one"),
        ("{flip: true, crop_ratio: [0.5, 2]}", "augment.crop_ratio: has no effect without resized_crop"),
        ("{saturation: 0.4}", "augment.saturation: has no effect: the images of omniglot are grey"),
        ("{flop: true}", "augment.flop: unknown key; did you mean flip?"),
        ("true", "augment: expected a section with keys of its own"),
    ],
)
def test_each_mistake_is_one_line_with_its_place(write, section, said):
    (problem,) = mistakes(write(GOOD + f"augment: {section}\n"))
    assert problem.startswith(f"spec.yaml:{LINES + 1}: {said}")


def test_a_key_in_the_wrong_place_is_found(write):
    assert "did you mean augment.crop_padding?" in mistakes(write(GOOD + "crop_padding: 4\n"))[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (UNTRAINED, "augment: has no effect: hausdorff is not trained"),
        (TRIALS, "augment: has no effect: rl2 plays trials, which have no images"),
    ],
)
def test_what_has_no_training_images_has_none_to_change(write, text, said):
    (problem,) = mistakes(write(text))
    assert problem.endswith(said)
    load(write(text.replace("augment: {flip: true}\n", "")))


def test_numbers_have_no_images_to_change():
    assert any(
        "augment: has no effect: sinusoid" in each for each in mistakes("finn2017/sinusoid", "augment.flip=true")
    )


@pytest.mark.parametrize(("channels", "refused"), [(1, True), (3, False)])
def test_a_folder_says_whether_its_images_are_grey(write, tmp_path, channels, refused):
    folder = f"{{name: imagefolder, path: {tmp_path}, channels: {channels}}}"
    path = write(GOOD.replace("{name: omniglot}", folder) + "augment: {saturation: 0.4}\n")
    if refused:
        assert "the images of imagefolder are grey" in mistakes(path)[0]
    else:
        assert load(path).experiment.augment.saturation == 0.4


@pytest.mark.parametrize(
    ("dataset", "side"),
    [
        ("{name: glyphs}", 28),
        ("{name: miniimagenet}", 84),
        ("{name: cifar-fs}", 32),
        ("{name: imagefolder, path: images, image_size: 20}", 20),
    ],
)
def test_padding_is_less_than_the_side_of_the_images(write, dataset, side):
    """Reject crops of background alone, which keep the label of their image."""
    path = write(GOOD.replace("{name: omniglot}", dataset))
    assert load(path, [f"augment={{crop_padding: {side - 1}}}"]).experiment.augment.crop_padding == side - 1
    (told,) = mistakes(path, f"augment={{crop_padding: {side}}}")
    assert told.endswith(f"would hold nothing but background; at most {side - 1} here")


def test_the_digest_is_kept_without_it_and_has_each_value(write):
    path = write(GOOD)
    plain, empty = load(path).experiment, load(path, ["augment=null"]).experiment
    assert plain.digest == empty.digest and "augment" not in resolved_yaml(plain)
    changed = [load(path, [f"augment.{one}"]).experiment for one in ("flip=true", "rotation=10", "rotation=20")]
    both = load(path, ["augment={flip: true, rotation: 10}"]).experiment
    assert len({one.digest for one in (plain, *changed, both)}) == 5
    assert len({one.training_digest for one in (plain, *changed, both)}) == 5
    without = load(path, ["augment={flip: false, rotation: 10}"]).experiment
    assert without.digest == changed[1].digest, "false is the default"


def test_a_resolved_spec_has_it(write, tmp_path):
    told = load(write(GOOD + "augment: {resized_crop: [0.08, 1], flip: true}\n")).experiment
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(told))
    again = load(tmp_path / "resolved.yaml").experiment
    assert again == told and again.digest == told.digest and again.augment.resized_crop == (0.08, 1.0)


def test_a_child_changes_or_drops_it(write, tmp_path):
    write(GOOD + "augment: {flip: true}\n")
    child = tmp_path / "child.yaml"
    for text, wanted in (("{rotation: 15}", {"flip": True, "rotation": 15.0}), ("null", None)):
        child.write_text(f"extends: spec.yaml\nname: child\naugment: {text}\n")
        found = load(child).experiment.augment
        assert (found and found.model_dump(exclude_none=True)) == wanted


def test_its_page_shows_every_key_with_an_example():
    found = page("augment")
    assert "images of validation and test stay as they are" in found.text
    assert all(f"  {option.key}: " in found.snippet for option in found.options) and len(found.options) == 8
