"""Tests of an Omniglot run beyond its own splits: Lake's one-shot test, and tasks within one alphabet.

The images are noise with the form of the real ones.
"""

import csv
import math

import numpy as np
import pytest
from click.testing import CliRunner

from metarun.algorithms.heads.learner import features_of, mean_of
from metarun.cli.main import metarun as group
from metarun.datasets import lake_one_shot, omniglot
from metarun.datasets.images import cache
from metarun.experiments.config.load import load
from metarun.experiments.config.variants import with_test
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.evaluation.errors_by_group import errors_path, told
from metarun.experiments.evaluation.measure import test_of as evaluation_of
from metarun.experiments.evaluation.restore import restored
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.reports.compare import difference_of_tasks, with_episodes
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.stats import mean_and_ci95, wilson_ci95
from metarun.experiments.training.train import train

SPEC = """\
name: few
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: omniglot, split: background-evaluation, rotations: classes-train, ink: 0}
protocol: inductive
train: {way: 5, shot: 1, query: 2, steps: 2}
validation: null
test: {way: 5, shot: 1, query: 2, episodes: 4, checkpoint: last}
jit: off
"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Fill a cache with noise in place of Omniglot and of Lake's drawings."""
    generator = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, names, images, size in (
            ("omniglot", omniglot.characters()[0], 20, 28),
            (lake_one_shot.NAME, tuple(map(str, range(400))), 2, 105),
        ):
            pixels = 255 * generator.integers(0, 2, (images * len(names), size, size, 1), dtype=np.uint8)
            cache.store(name, cache.Prepared(pixels, np.full(len(names), images), names, {}))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, noise):
    folder = tmp_path_factory.mktemp("few")
    (folder / "few.yaml").write_text(SPEC)
    directory = RunDirectory(folder / "few" / "seed-0")
    train(Run(load(folder / "few.yaml").experiment, 0, directory))
    return directory


def test_lake_one_shot_has_a_row_and_the_errors_of_each_run_and_alphabet(run):
    """Reject an interval over trials in the row, and drawings that differ from the run's own inputs."""
    row, path, known = evaluate(run.path, "lake-one-shot", {})
    assert (row.split, row.way, row.shot, row.query, row.episodes) == ("lake-one-shot", 20, 1, 1, 20) and not known
    accuracies = [float(line["accuracy"]) for line in csv.DictReader(path.with_suffix(".csv").open())]
    assert (row.mean, row.ci95) == pytest.approx(mean_and_ci95(accuracies), abs=1e-6)
    lines = list(csv.DictReader(errors_path(path).open()))
    wrong = [int(line["wrong"]) for line in lines]
    np.testing.assert_allclose(wrong, 20 * (1 - np.array(accuracies)), atol=1e-5)
    assert [line["run"] for line in lines] == [str(number) for number in range(1, 21)]
    assert [line["alphabet"] for line in lines[::2]] == list(lake_one_shot.ALPHABETS)
    for number, line in enumerate(lines):
        pair = number // 2 * 2
        assert int(line["wrong_in_alphabet"]) == wrong[pair] + wrong[pair + 1] and line["trials_in_alphabet"] == "40"
    low, high = wilson_ci95(sum(wrong), 400)
    said = told(errors_path(path))
    assert f"{sum(wrong)} of 400 trials wrong: error {sum(wrong) / 4:.2f} %" in said
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in said and low < 1 - row.mean < high
    model = restored(run, with_test(load(run.spec).experiment, {"split": row.split}), 0, "last", row.split)
    batch = model.test_stream("lake-one-shot").source.sample("lake-one-shot", 0, 1, model.source.shape, 0)
    assert batch.support_x.shape == (1, 20, 28, 28, 1) and set(np.unique(batch.support_x)) == {0.0, 1.0}
    stored = cache.read(lake_one_shot.NAME).images
    np.testing.assert_array_equal(batch.query_x[0, 3, ..., 0], 1 - omniglot.shrink(stored[7, ..., 0] > 0) / 255)


def test_the_command_tells_errors_and_a_second_call_the_same(run):
    first, again = (CliRunner().invoke(group, ["evaluate", str(run.path), "--split", "lake-one-shot"]) for _ in "ab")
    assert first.exit_code == 0 and "omniglot (lake-one-shot)" in first.output and "of 400 trials wrong" in first.output
    assert "has this measurement already" in again.output and told(errors_path(row_of(run))) in again.output
    errors_path(row_of(run)).write_text("run,wrong\n1,x\n")
    spoilt = CliRunner().invoke(group, ["evaluate", str(run.path), "--split", "lake-one-shot"])
    assert isinstance(spoilt.exception, RunError) or "has no whole columns" in spoilt.output


def test_given_tasks_have_no_classes_outside(run):
    """Reject queries of another of the 20 runs, which share no task, as unknown classes; and a fit without tasks."""
    with pytest.raises(RunError, match="the tasks of lake-one-shot are given, and have no classes outside the task"):
        evaluate(run.path, "lake-one-shot", {}, "unknown")
    with pytest.raises(RunError, match="has no validation tasks"):
        evaluate(run.path, "lake-one-shot", {}, "calibrated")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, noise):
    """Train SimpleShot, whose learner has an output for each training class, and keeps the mean of their images."""
    folder = tmp_path_factory.mktemp("classifier")
    text = SPEC.replace("protonet", "simpleshot").replace(
        "{way: 5, shot: 1, query: 2, steps: 2}", "{meta_batch: 4, steps: 2}"
    )
    (folder / "few.yaml").write_text(
        text.replace("background-evaluation, rotations: classes-train", "background-small-1")
    )
    directory = RunDirectory(folder / "few" / "seed-0")
    train(Run(load(folder / "few.yaml").experiment, 0, directory))
    return directory


@pytest.mark.parametrize("split", ["within-alphabet", "lake-one-shot"])
def test_classifiers_have_further_tests(classifier, split):
    """Reject a learner that is built for the classes of the test, and a test that needs single images."""
    row, _, known = evaluate(classifier.path, split, {})
    assert row.split == split and not known and 0 < row.mean < 1
    model = restored(classifier, with_test(load(classifier.spec).experiment, {"split": split}), 0, "last", split)
    assert model.learner.outputs == 4 * 136 and np.abs(model.learner.mean).max() > 0


def test_a_head_on_a_further_test_takes_the_mean_of_the_training_images(run):
    """Compare with the mean over the training's own source; reject that of the test's images."""
    head = {"name": "centroid", "features": "CL2N"}
    row, _, _ = evaluate(run.path, "within-alphabet", {"head": head})
    asked = with_test(load(run.spec).experiment, {"split": "within-alphabet", "head": head})
    model = restored(run, asked, 0, "last", "within-alphabet")
    own = restored(run, load(run.spec).experiment, 0, "last")
    values = {}
    for split in ("train", "test"):
        evaluation = evaluation_of(model, "within-alphabet")
        mean_of(features_of(own.learner, own.source, split), evaluation.learner.mean)
        values[split] = evaluation.measure(split).values["negative_log_likelihood"].mean()
    assert row.negative_log_likelihood == pytest.approx(values["train"], rel=1e-5)
    assert row.negative_log_likelihood != pytest.approx(values["test"], rel=1e-5)


def row_of(run):
    (path,) = run.evaluations.glob("lake*seed0.json")
    return path


def test_within_alphabet_draws_test_classes_of_one_alphabet(run):
    row, path, _ = evaluate(run.path, "within-alphabet", {"way": 25, "query": 1})
    assert (row.split, row.way, row.episodes) == ("within-alphabet", 25, 4) and not errors_path(path).exists()
    model = restored(run, load(run.spec).experiment, 0, "last", "within-alphabet")
    classes = model.test_stream("within-alphabet").sample(0, 50).classes.numpy()
    names = model.source.pools["within-alphabet"].names
    own = restored(run, load(run.spec).experiment, 0, "last")
    assert names == own.source.pools["test"].names and classes.max() < 659  # no turned ones, as in the run's own test
    alphabets = [{omniglot.alphabet_of(names[number]) for number in task} for task in classes]
    assert {len(each) for each in alphabets} == {1} and len(set.union(*alphabets)) > 10


@pytest.mark.slow
def test_runs_are_compared_on_the_trials_whatever_they_were_trained_on(run, tmp_path):
    """Reject: other rotations and another split make other tasks. For tasks within an alphabet they do."""
    path = tmp_path / "other.yaml"
    path.write_text(SPEC.replace("classes-train, ink: 0", "none").replace("name: few", "name: other"))
    path.write_text(path.read_text().replace("background-evaluation", "background-small-2"))
    other = RunDirectory(tmp_path / "other" / "seed-0")
    train(Run(load(path).experiment, 0, other))
    pairs = {}
    for split in ("lake-one-shot", "within-alphabet"):
        rows = [evaluate(each.path, split, {}).path for each in (run, other)]
        pairs[split] = difference_of_tasks(*map(with_episodes, rows))
    assert pairs["lake-one-shot"] is None and "dataset.rotations" in pairs["within-alphabet"]


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (
            "quickstart/protonet",
            {"split": "lake-one-shot"},
            "--split lake-one-shot is a test of runs trained on omniglot, and this one is trained on glyphs",
        ),
        (
            "quickstart/protonet",
            {"split": "within-alphabet"},
            "--split within-alphabet is a test of runs trained on omniglot, and this one is trained on glyphs",
        ),
        ("omniglot/protonet", {"split": "evaluation"}, "--split evaluation is no split of omniglot"),
        (
            "snell2017/omniglot-1shot",
            {"split": "lake-one-shot"},
            "says nothing of this run: split vinyals-1200-423 trains on characters of this test: train with "
            "dataset.split background-evaluation",
        ),
        ("finn2017/omniglot-20way-1shot", {"split": "lake-one-shot"}, "split random-1100-100-423 trains on characters"),
        (
            "lake2015/maml",
            {"split": "lake-one-shot", "way": 5},
            "--way 5: lake-one-shot has 20",
        ),
        ("lake2015/protonet", {"split": "lake-one-shot", "episodes": 400}, "--episodes 400: lake-one-shot has 20"),
        (
            "lake2015/protonet",
            {"split": "lake-one-shot", "episode_seed": 1},
            "--episode-seed has no effect: nothing in",
        ),
    ],
)
def test_what_says_nothing_is_refused(spec, changes, message):
    with pytest.raises(SpecError) as caught:
        with_test(load(spec).experiment, changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("split", "reason"), [("within-alphabet", "has no test characters"), ("lake-one-shot", "trains on characters of")]
)
def test_a_split_without_test_characters_has_no_further_test(split, reason):
    overrides = ["dataset.split=without-latin", "validation=null", "test.dataset.name=emnist"]
    with pytest.raises(SpecError, match=f"says nothing of this run: split without-latin {reason}"):
        with_test(load("omniglot/protonet", overrides).experiment, {"split": split})


def test_a_last_layer_of_another_width_is_refused():
    overrides = ["dataset.split=background-evaluation", "dataset.rotations=none"]
    with pytest.raises(SpecError, match="test.way: is 20: the last layer of maml has train.way = 5 outputs"):
        with_test(load("comparison/omniglot-maml", overrides).experiment, {"split": "lake-one-shot"})
    changed = with_test(load("lake2015/maml").experiment, {"split": "lake-one-shot", "protocol": "transductive"})
    assert (changed.test.way, changed.test.episodes, changed.protocol) == (20, 20, "transductive")


@pytest.mark.parametrize(("count", "low", "high"), [(155, 0.341, 0.436), (0, 0.0, 0.0095), (400, 0.9905, 1.0)])
def test_wilsons_interval(count, low, high):
    """Reject the normal one, whose width is 0 where all answers are equal."""
    assert wilson_ci95(count, 400) == pytest.approx((low, high), abs=6e-4)
    share, (lowest, highest) = count / 400, wilson_ci95(count, 400)
    assert highest - lowest != pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 400), abs=1e-5)
