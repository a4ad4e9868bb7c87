"""Epochs in place of steps, where a training has epochs."""

import pytest
import yaml
from pictures import png
from specs import mistakes

from metarun import datasets
from metarun.datasets.options import GlyphsOptions
from metarun.datasets.sizes import sizes_in
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.config.variants import within_budget

SPEC = """
name: classifier
algorithm: {name: baseline}
network: {name: mlp, hidden: [8]}
dataset: {name: omniglot, split: vinyals, rotations: classes}
protocol: inductive
train: {meta_batch: 100, epochs: 3}
validation: null
test: {way: 5, shot: 1, query: 5}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "classifier.yaml"
    path.write_text(SPEC)
    return path


def test_steps_are_counted_from_the_images_with_their_turns(spec, tmp_path):
    """Reject classes of unturned images, and a last epoch that is cut off."""
    loaded = load(spec)
    images = 4 * 1028 * 20
    assert loaded.experiment.train.steps == -(-3 * images // 100) == 2468
    assert loaded.origins["train.steps"] == "classifier.yaml:7"
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(resolved_yaml(loaded.experiment))
    assert "epochs" not in yaml.safe_load(resolved.read_text())["train"]
    assert load(resolved).experiment.digest == loaded.experiment.digest
    assert load(spec, ["dataset.rotations=none"]).experiment.train.steps == -(-3 * images // 400)


def test_steps_replace_epochs_and_epochs_steps(spec, tmp_path):
    assert load(spec, ["train.steps=7"]).experiment.train.steps == 7
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: {spec.name}\nname: child\ntrain: {{steps: 5}}\n")
    assert load(child).experiment.train.steps == 5
    assert load(child, ["train.epochs=1"]).experiment.train.steps == 823
    assert mistakes(spec, "train.steps=7", "train.epochs=1") == [
        "command line: train.epochs: train.steps is given too: keep one of them"
    ]


def test_of_two_overrides_of_a_table_the_later_one_counts(spec):
    """Reject: both have one place, and were taken for a mistake. The place of the steps is that of what gave them."""
    loaded = load(spec, ["train.epochs=2", "train.steps=100"], "overrides")
    assert loaded.experiment.train.steps == 100 and loaded.origins["train.steps"] == "overrides"
    assert load(spec, ["train.steps=100", "train.epochs=1"], "overrides").experiment.train.steps == 823
    shorter, full = within_budget(str(spec), 0.1, ["train.epochs=2"], ["train.steps=50"])
    assert (shorter.train.steps, full.train.steps) == (164, 50)
    assert load(spec, ["train.steps=7"]).origins["train.steps"] == "command line"


def test_null_replaces_nothing(spec, tmp_path):
    """Reject steps that null epochs remove, on the command line and in a child."""
    steps = tmp_path / "steps.yaml"
    steps.write_text(SPEC.replace("epochs: 3", "steps: 9"))
    loaded = load(steps, ["train.epochs=null"])
    assert loaded.experiment.train.steps == 9 and loaded.origins["train.steps"] == "steps.yaml:7"
    assert load(spec, ["train.steps=null"]).experiment.train.steps == 2468
    child = tmp_path / "child.yaml"
    for parent, own, expected in ((steps, "epochs", 9), (spec, "steps", 2468)):
        child.write_text(f"extends: {parent.name}\nname: child\ntrain: {{{own}: null}}\n")
        assert load(child).experiment.train.steps == expected


def test_epochs_are_refused_where_there_are_none(spec):
    told = mistakes(spec, "algorithm={name: protonet}", "train.way=5")
    assert told == [
        "command line, classifier.yaml:7: train.epochs: has no effect: protonet is trained on tasks, which do not end: "
        "give train.steps"
    ]


def test_settings_of_training_tasks_are_refused(spec):
    changes = ("train.shot=5", "protocol=transductive", "algorithm.norm_groups=3", "network.batch_norm=true")
    told = mistakes(spec, *changes)
    assert told == [
        "command line: protocol: baseline makes features by batch norm's running averages: write inductive",
        "command line: algorithm.norm_groups: is 3, which does not divide train.meta_batch, 100 images",
        "command line: train.shot: has no effect: baseline is trained on mini-batches of train.meta_batch images, not "
        "on episodes",
    ]


def test_turns_that_are_drawn_for_tasks_are_refused(spec):
    """Reject a training on unturned images that is told to turn them; accept such turns of the test alone."""
    assert mistakes(spec, "dataset.rotations=per-task") == [
        "command line: dataset.rotations: is per-task: turns are drawn for the classes of a task, and baseline is "
        "trained on single images: write classes, which makes each turn a class, or none"
    ]
    elsewhere = "test.dataset={name: omniglot, rotations: per-task}"
    assert load(spec, [elsewhere]).experiment.test.dataset.rotations == "per-task"


@pytest.mark.slow
def test_the_letters_are_drawn_to_count_them(spec, own_cache):
    """Reject a spec that is valid only where the cache has the letters."""
    steps = load(spec, ["dataset={name: glyphs}"]).experiment.train.steps
    counts = sizes_in(datasets.build(GlyphsOptions()))
    assert steps == -(-3 * counts["train"].total // 100)


def test_published_totals_count_images_that_are_not_imported(spec, own_cache):
    assert load(spec, ["dataset={name: tieredimagenet}"]).experiment.train.steps == -(-3 * 448_695 // 100)
    (told,) = mistakes(spec, "dataset={name: cub}")
    assert "train.epochs: the training images of cub are counted when they are prepared: give train.steps" in told


def test_images_that_cannot_be_counted_are_told_with_the_reason(spec, tmp_path, monkeypatch):
    """Reject a path that begins at the current folder, and an advice that does not help."""
    dataset = "dataset={name: imagefolder, path: images, image_size: 8, split: [%s]}"
    (told,) = mistakes(spec, dataset % "0.5, 0, 0.5")
    assert "train.epochs: the training images of imagefolder cannot be counted: " in told and "is not a folder" in told
    for number in range(4):
        (tmp_path / f"images/c{number}").mkdir(parents=True)
        (tmp_path / f"images/c{number}/0.png").write_bytes(png(20 * number, (8, 8)))
    monkeypatch.chdir("/")
    steps = load(spec, [dataset % "0.5, 0, 0.5", "train.meta_batch=2"]).experiment.train.steps
    assert steps == 3  # 2 images
    (told,) = mistakes(spec, dataset % "0, 0.5, 0.5")
    assert told.endswith("train.epochs: imagefolder has no train classes here: add classes")
