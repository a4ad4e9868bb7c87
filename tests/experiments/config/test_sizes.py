"""Splits that are too small for a spec: told before anything is read, all at once, with the key that decides."""

import pytest
from click.testing import CliRunner
from pictures import png

from metarun import datasets
from metarun.cli.main import metarun as group
from metarun.datasets.errors import DataError
from metarun.datasets.sizes import sizes_in, sizes_of
from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError
from metarun.experiments.model import build

SPEC = """\
name: small
algorithm: {name: protonet}
network: {name: mlp, hidden: [4]}
dataset: {name: imagefolder, path: imgs, image_size: 8, split: [0.5, 0.25, 0.25]}
protocol: inductive
train: {way: 3, steps: 2}
validation: {episodes: 2}
test: {way: 3, episodes: 2}
"""


@pytest.fixture
def spec(tmp_path, own_cache):
    """Write a spec on a folder of 12 classes of 4 images; return its path."""
    for number in range(12):
        (tmp_path / f"imgs/c{number:02}").mkdir(parents=True)
        for image in range(4):
            (tmp_path / f"imgs/c{number:02}/{image}.png").write_bytes(png(20 * number + image, (8, 8)))
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path / "small.yaml"


def problems(spec, *overrides):
    with pytest.raises(SpecError) as told:
        load(spec, overrides, with_data=True)
    return told.value.problems


def test_fault_31_splits_that_are_too_small_are_told_at_once_with_their_keys(spec):
    """Tell all splits, in the same words by validate and train. Rejected: one split at a time, without the key."""
    told = [
        f"{section}.query: is 15 ({query}): at most 3 here; the classes of {split} have 4 images, and "
        f"{section}.shot is 1 ({shot})"
        for section, split, query, shot in (
            ("train", "train", "default", "default"),
            ("validation", "val", "as test.query", "as test.shot"),
            ("test", "test", "as train.query", "as train.shot"),
        )
    ]
    assert problems(spec) == [f"small.yaml:{line}: {each}" for line, each in zip((6, 7, 8), told, strict=True)]
    with pytest.raises(DataError) as failed:
        build(load(spec).experiment, 0)
    assert str(failed.value).endswith("; ".join(each.replace(": is", " is", 1) for each in told))
    done = CliRunner().invoke(group, ["validate", str(spec)])
    assert str(done.exception).splitlines() == problems(spec)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.query=2"], []),
        (["train.query=3"], []),  # 1 + 3 of 4 images
        (["train.query=2", "train.shot=4"], ["train.shot: is 4: at most 3 here; the classes of train have 4 images"]),
        (["train.query=2", "train.way=7"], ["train.way: is 7: at most 6 here, the classes of train"]),
        (["train.query=2", "validation.way=4"], ["validation.way: is 4: at most 3 here, the classes of val"]),
        (["train.query=2", "test.way=4"], ["test.way: is 4: at most 3 here", "validation.way: is 4 (as test.way)"]),
        (["train.query=2", "dataset.split=[0.75, 0, 0.25]"], ["validation: the dataset has no val classes: write"]),
        (["train.query=2", "dataset.path=nothing"], ["dataset.path: ", "nothing is not a folder"]),
        (
            ["train.query=x", "test.way=null", "test.episodes=x"],
            ["train.query: expected a whole", "test.episodes: expe"],
        ),
        (["train.query=x", "train.way=7"], ["train.query: expected a whole number", "train.way: is 7: at most 6"]),
    ],
)
def test_each_setting_that_asks_for_too_much(spec, overrides, words):
    if not words:
        assert load(spec, overrides, with_data=True)
        assert build(load(spec, overrides).experiment, 0)
        return
    told = problems(spec, *overrides)
    assert all(any(each in line for line in told) for each in words)


def test_the_smallest_class_is_named(spec):
    (spec.parent / "imgs/c03/0.png").unlink()
    told = problems(spec, "train.query=3")
    assert len(told) == 1 and "class c03 of " in told[0] and "has 3 images" in told[0]


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        (
            "quickstart/protonet",
            ["train.query=20"],
            "train.query: is 20: at most 19 here; the classes of train have 20",
        ),
        ("quickstart/protonet", ["test.way=999"], "test.way: is 999: at most 115 here, the classes of test"),
        (
            "omniglot/protonet",
            ["test.shot=16"],
            "test.query: is 15: at most 4 here; the classes of test have 20 images",
        ),
        ("snell2017/miniimagenet-1shot", ["test.way=21"], "test.way: is 21: at most 20 here, the classes of test"),
        (
            "nichol2018/omniglot-5way-1shot",
            ["train.shot=21"],
            "train.shot: is 21: at most 20 here; the classes of train",
        ),
        (
            "comparison/omniglot-protonet",
            ["dataset.split=background-evaluation", "dataset.episodes=within-alphabet"],
            "train.way: is 60: at most 52 here, the classes of Japanese_(hiragana), the largest alphabet of train",
        ),
    ],
)
def test_what_ships_is_counted_without_its_data(name, overrides, words, cache_folder):
    """Count letters once they are drawn. Rejected: a count of queries that a learner does not train on."""
    datasets.build(datasets.DATASETS["glyphs"]())
    assert any(words in each for each in problems(name, *overrides))
    assert load(name, with_data=True)


def test_counts_are_those_of_the_sources(spec, cache_folder):
    """Reject counts that are written down beside the data and differ from them."""
    for options in (load(spec).experiment.dataset, datasets.DATASETS["glyphs"]()):
        assert sizes_in(datasets.build(options)) == sizes_of(options)


CLASSIFIER = """\
name: small
algorithm: {name: baseline}
network: {name: mlp, hidden: [4]}
dataset: {name: imagefolder, path: imgs, image_size: 8, split: [0.5, 0.0, 0.5]}
protocol: inductive
train: {meta_batch: 4, steps: 2}
validation: null
test: {way: 3, query: 2, episodes: 2}
"""


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], ""),
        (["algorithm.outputs=6"], ""),
        (["algorithm.outputs=5"], "algorithm.outputs{}is 5: at least 6 here, the classes of train; or leave it out"),
        (["dataset.split=[0.0, 0.5, 0.5]"], "train{}the dataset has no train classes: add classes"),
        (
            ["dataset.split=[0.1, 0.0, 0.9]"],
            "train{}the dataset has 1 train class, and baseline needs at least 2: add classes",
        ),
    ],
)
def test_the_training_classes_of_a_classifier_are_checked(spec, overrides, told):
    """Tell it in validate and in train. Rejected: one class, whose loss is 0, trained without a word."""
    spec.write_text(CLASSIFIER)
    if not told:
        load(spec, overrides, with_data=True)
        assert build(load(spec, overrides).experiment, 0).learner.outputs == 6
        return
    (problem,) = problems(spec, *overrides)
    assert problem.endswith(told.format(": "))
    with pytest.raises(DataError) as failed:
        build(load(spec, overrides).experiment, 0)
    assert str(failed.value).endswith(told.format(" "))


def test_a_classifier_has_outputs_for_all_groups_of_classes(spec):
    """Reject the largest alphabet in place of all training characters."""
    spec.write_text(CLASSIFIER)
    dataset = "dataset={name: omniglot, episodes: within-alphabet, rotations: none}"
    (told,) = problems(spec, dataset, "algorithm.outputs=1027")
    assert "algorithm.outputs: is 1027: at least 1028 here" in told
    load(spec, [dataset, "algorithm.outputs=1028"], with_data=True)
