"""Requests that cannot be met are refused in one line, before TensorFlow is imported and before an image is read."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from pictures import png

from metarun.datasets.errors import DataError
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.prediction import request
from metarun.experiments.prediction.files import find_images, find_support
from metarun.experiments.prediction.request import Request
from metarun.experiments.runs.directory import RunDirectory

SPEC = """
name: asked
algorithm: {{name: {algorithm}}}
network: {{name: mlp}}
dataset: {{name: {dataset}}}
protocol: inductive
train: {{way: {way}, shot: 1, steps: 2}}
"""
GIVEN = {"algorithm": "maml, inner_lr: 0.1", "dataset": "glyphs", "way": 3}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Return a function that asks for three classes and two images, of a run that is said to be trained."""
    for name in ("support/b", "support/a", "support/c/deep", "new/more"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("support/b/1", "support/b/0", "support/a/0", "support/c/0", "new/0", "new/more/1"):
        (tmp_path / f"{name}.png").write_bytes(png())
    (tmp_path / "new" / "notes.txt").write_text("")
    (tmp_path / "run").mkdir()

    def ask(images=("new",), spec=GIVEN, **options):
        if isinstance(spec, dict):
            (tmp_path / "asked.yaml").write_text(SPEC.format(**GIVEN | spec))
            spec = tmp_path / "asked.yaml"
        experiment = load(spec).experiment
        found = SimpleNamespace(spec=experiment, experiment=experiment, directory=RunDirectory(tmp_path / "run"))
        monkeypatch.setattr(request, "retest", lambda *_: found)
        return Request.of(tmp_path / "run", tmp_path / "support", [tmp_path / each for each in images], **options)

    return ask


def test_classes_and_images_are_sorted_by_name(asked, tmp_path):
    """Reject the order of the file system (frontier: U12)."""
    found = asked()
    assert found.support.classes == ("a", "b", "c") and found.support.counts == (1, 2, 1)
    assert [path.name for path in found.support.paths] == ["0.png", "0.png", "1.png", "0.png"]
    assert found.images.paths == (tmp_path / "new/0.png", tmp_path / "new/more/1.png")
    assert "1 folder deeper than <class>/<image>" in found.support.left_out[0]
    assert found.images.left_out[0].endswith(
        "new: left out: 1 file of kinds that are not read: 1 .txt (such as notes.txt)"
    )


def test_images_are_taken_once_in_the_order_given(asked, tmp_path):
    found = asked(("new/more/1.png", "new", "new/notes.txt"))
    assert [path.name for path in found.images.paths] == ["1.png", "0.png", "notes.txt"]


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({"way": 5}, {}, "has 3 classes, and maml was trained for exactly 5: its last layer has 5 outputs"),
        ({}, {"protocol": "transductive"}, "2 images are too many for --protocol transductive"),
    ],
)
def test_what_a_learner_cannot_do(asked, monkeypatch, spec, options, words):
    monkeypatch.setattr(request, "MOST_TOGETHER", 1)
    with pytest.raises(RunError, match=words):
        asked(spec=spec, **options)
    assert asked(spec={"algorithm": "protonet", "way": 5}).support.classes == ("a", "b", "c")


def test_a_comparison_of_pixels_has_no_weights(asked):
    with pytest.raises(RunError, match="hausdorff is not trained, so it has no weights to classify with"):
        asked(spec="lake2015/hausdorff")


def test_a_player_of_trials_sees_no_images(asked):
    with pytest.raises(RunError, match="rl2 plays trials, and only images can be classified"):
        asked(spec="duan2016/bandits-rl2")


def test_a_learner_of_numbers_classifies_nothing(asked):
    with pytest.raises(RunError, match="is a regression on sinusoid, and only images can be classified"):
        asked(spec={"dataset": "sinusoid", "way": 1})


def test_one_class_is_no_question(asked, tmp_path):
    for name in ("b/0", "b/1", "c/0"):
        (tmp_path / "support" / f"{name}.png").unlink()
    with pytest.raises(RunError, match="support has 1 class: at least 2 are needed"):
        asked(spec={"algorithm": "protonet"})


def test_nothing_that_is_read_is_written_over(asked, tmp_path):
    """Reject links to an image, and files of the run."""
    (tmp_path / "run" / "result.json").write_text("")
    (tmp_path / "link.png").symlink_to(tmp_path / "support" / "a" / "0.png")
    for option, path in (
        ("out", "new/0.png"),
        ("preview", "link.png"),
        ("preview", "new/../new/more/1.png"),
        ("out", "run/result.json"),
    ):
        with pytest.raises(RunError, match=rf"--{option} .* choose another file"):
            asked(**{option: tmp_path / path})
    with pytest.raises(RunError, match="--out and --preview are the same file"):
        asked(out=tmp_path / "x", preview=tmp_path / "x")
    assert asked(out=tmp_path / "x.csv", preview=tmp_path / "x.png").out


def test_missing_files_are_told_at_once(asked, tmp_path):
    with pytest.raises(DataError, match=r"2 of 3 names are missing:\n.*one.png is neither .*\n.*two.png is neither"):
        asked(("one.png", "new", "two.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image to classify"):
        asked(("empty",))


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(png())
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert find_images([tmp_path]).paths == (tmp_path / "a/0.png",)


def test_a_support_folder_without_classes_says_what_is_expected(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    with pytest.raises(DataError, match=r"expected .*/<class>/<image>; left out: 1 image beside the class folders"):
        find_support(tmp_path)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find_support(tmp_path / "nowhere")


def test_train_and_test_are_class_names_like_others(tmp_path):
    for name in ("train", "test", "x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(png())
    assert find_support(tmp_path).classes == ("test", "train", "x")


def test_tensorflow_is_not_imported_to_refuse(tmp_path):
    (tmp_path / "new.png").write_bytes(png())
    (tmp_path / "support" / "a").mkdir(parents=True)
    program = (
        "import sys\nfrom metarun.cli.main import metarun\n"
        "try:\n    metarun.main(sys.argv[1:], standalone_mode=False)\n"
        "except Exception as error:\n    print(error, 'tensorflow' in sys.modules)"
    )
    words = ["predict", str(tmp_path), "new.png", "--support", "support"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert (
        done.stdout
        == f"{tmp_path} has no result.json: give the folder of a trained run, such as runs/NAME/seed-0 False\n"
    )
