"""Tests of a run that judge its scores and probabilities: `evaluate --unknown` and `--calibrated`."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from small_runs import trained_once, write_classes

from metarun.algorithms.learner import Support, classify_with_scores
from metarun.cli.main import metarun
from metarun.datasets import sizes
from metarun.datasets.errors import DataError
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.judges import stored
from metarun.experiments.evaluation.restore import refuse_missing, restored
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.export.export import export
from metarun.experiments.export.request import request
from metarun.experiments.prediction.classifier import Classifier
from metarun.experiments.prediction.files import find_support, read_support
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.prediction.request import trained_classifier
from metarun.experiments.reports.compare import difference_of_tasks, with_episodes
from metarun.experiments.reports.table import lines_of, read_results, render
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.trained import refuse_no_classifier, retest
from metarun.experiments.training.train import train

SPEC = """
name: {name}
algorithm: {{name: {name}{more}}}
network: {{name: mlp, hidden: [8]}}
dataset: {{name: imagefolder, path: {path}, image_size: 8, channels: 1}}
protocol: inductive
train: {{way: 2, shot: 2, query: 3, meta_batch: 2, steps: 2}}
validation: {{shot: 1, episodes: 20, every: 1}}
test: {{way: 2, shot: 2, query: 3, episodes: 12, checkpoint: last}}
jit: off
"""
MORE = {"protonet": "", "matchingnet": ", temperature: 0.2", "maml": ", inner_lr: 0.1, inner_steps: 2"}
LEARNERS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "protonet")) for name in MORE]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that trains a run of a learner, once in this file, on images that are hard to tell apart."""
    folder = tmp_path_factory.mktemp("runs")
    write_classes(folder / "images", {"train": 4, "val": 3, "test": 5}, ink=60, noise=190)
    with trained_once(folder, lambda name: SPEC.format(name=name, more=MORE[name], path=folder / "images")) as trained:
        yield trained


def columns(path):
    """Return the columns of a CSV as arrays."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: np.array([float(line[name]) for line in lines]) for name in lines[0]}


@pytest.mark.parametrize("name", LEARNERS)
def test_unknown_classes_are_told_by_scores_of_the_task_alone(runs, name):
    """Reject a support set with the classes outside, and the largest probability as a score."""
    directory = runs(name)
    row, path, known = evaluate(directory.path, "test", {}, "unknown")
    assert (row.metric, row.judged, row.way, row.query, known) == ("auroc_unknown", "unknown", 2, 3, False)
    assert path.name.endswith("-unknown.json") and row.expected_calibration_error is None and row.diverged == 0
    found = columns(path.with_suffix(".csv"))["auroc_unknown"]
    assert row.mean == pytest.approx(found.mean()) and row.ci95 > 0
    experiment = load(directory.spec).experiment
    model = restored(directory, experiment, 0, "last")
    batch = model.source.sample("test", 0, 12, Shape(4, 2, 3), experiment.test.episode_seed)
    support = Support(batch.support_x[:, :4], tf.constant([[0, 0, 1, 1]] * 12), 2, batch.drawn, True)
    logits, scores = classify_with_scores(model.learner, model.learner.fit(support), batch.query_x, 2)

    def areas(scores):
        pairs = [np.split(each, 2) for each in scores.numpy()]
        return [np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside]) for inside, outside in pairs]

    np.testing.assert_allclose(found, areas(scores), rtol=0, atol=1e-8)
    assert np.abs(found - areas(tf.reduce_max(tf.nn.softmax(logits), axis=-1))).max() > 0.05
    assert evaluate(directory.path, "test", {}, "unknown").known


def test_an_area_is_no_accuracy(runs):
    """Reject a mean over accuracies and areas, a duplicate that is dropped, and a comparison of the two."""
    directory = runs("protonet")
    judged = {each: evaluate(directory.path, "test", {}, each) for each in ("unknown", "calibrated")}
    lines = lines_of(read_results(directory.path.parent))
    assert sorted(lines["judged"].fillna("")) == ["", "calibrated", "unknown"]
    assert sorted(lines["metric"]) == ["accuracy", "accuracy", "auroc_unknown"]
    shown = render(lines, "text")
    assert "auroc_unknown" in shown and "imagefolder (calibrated)" in shown and "ece before" in shown
    assert f"{judged['unknown'].row.mean:.3f}" in shown
    one, other = with_episodes(directory.path), with_episodes(judged["unknown"].path)
    assert difference_of_tasks(one, other) == "one is measured by accuracy, the other by auroc_unknown"
    assert difference_of_tasks(one, with_episodes(judged["calibrated"].path)) is None


@pytest.mark.parametrize("name", LEARNERS)
def test_a_calibrated_test_changes_no_answer(runs, name):
    """Reject other accuracies, a temperature that is fitted on test tasks, and its inverse."""
    directory = runs(name)
    own = json.loads(directory.result.read_text())
    row, path, _ = evaluate(directory.path, "test", {}, "calibrated")
    before, after = columns(directory.episodes), columns(path.with_suffix(".csv"))
    for each in (each for each in before if each.startswith("accuracy")):
        np.testing.assert_array_equal(before[each], after[each])
    assert row.mean == own["mean"] and row.episodes_digest == own["episodes_digest"]
    assert row.expected_calibration_error_uncalibrated == own["expected_calibration_error"]
    [known] = stored(directory)
    assert row.temperature == known.temperature != 1
    assert (known.weights_digest, known.shot, known.episodes) == (own["weights_digest"], 1, 20)
    experiment = load(directory.spec).experiment
    model = restored(directory, experiment, 0, "last")
    tasks = model.validation_stream().sample(0, 20)
    logits = model.learner.predict(tasks)[-1]

    def likelihood(temperature):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tasks.query_y, tf.cast(logits, tf.float64) / temperature
        )
        return float(tf.reduce_mean(losses))

    least = likelihood(known.temperature)
    assert all(likelihood(each) > least for each in (1.05 * known.temperature, known.temperature / 1.05, 1.0))


def test_predict_divides_by_the_stored_temperature_of_these_weights(runs):
    """Reject a temperature of other weights, another protocol, or one that is fitted again without need."""
    directory = runs("protonet")
    evaluate(directory.path, "test", {}, "calibrated")
    [known] = stored(directory)
    told = [known.model_copy(update=changes).model_dump(mode="json") for changes in (
        {"temperature": 5.0, "weights_digest": "another"}, {"temperature": 6.0, "protocol": "transductive"},
        {"temperature": 7.0},
    )]  # fmt: skip
    text, asked = directory.temperature.read_text(), trained_classifier(directory.path)
    try:
        directory.temperature.write_text(json.dumps(told))
        assert trained_learner(asked, calibrated=True).temperature == 7.0
        assert trained_learner(asked).temperature == 1.0
        directory.temperature.write_text(json.dumps(told[:2]))
        assert trained_learner(asked, calibrated=True).temperature == known.temperature
        assert len(stored(directory)) == 3
    finally:
        directory.temperature.write_text(text)


@pytest.mark.slow
def test_an_export_divides_as_predict_does(runs, tmp_path):
    """Reject probabilities that are not divided, logits that are, and a support set that decides about it."""
    directory = runs("protonet")
    support = load(directory.spec).experiment.dataset.path / "test"
    asked = trained_classifier(directory.path)
    plain, calibrated = (trained_learner(asked, each) for each in (False, True))
    known = read_support(find_support(support), plain.inputs.preprocessing, invert=False)
    wrong, right = (Classifier(each, known).classify(known.images) for each in (plain, calibrated))
    assert np.abs(right.probabilities - wrong.probabilities).max() > 0.01
    images = tf.constant(known.images)
    task = {"support_images": images, "support_labels": tf.constant(known.labels), "query_images": images}
    for name, given, inputs in (("fitted", support, {"images": images}), ("learner", None, task)):
        made = export(request(directory.path, tmp_path / name, given, calibrated=True))
        assert made.temperature == calibrated.temperature
        answers = tf.saved_model.load(tmp_path / name / "saved_model").signatures["serving_default"](**inputs)
        np.testing.assert_allclose(answers["probabilities"], right.probabilities, rtol=0, atol=1e-6)
        np.testing.assert_allclose(answers["logits"], wrong.logits, rtol=1e-5)
        assert f"`logits` / {made.temperature:.4g}" in (tmp_path / name / "README.md").read_text()


def test_what_cannot_be_judged_is_refused(runs, tmp_path, monkeypatch):
    """Reject a traceback, a task with fewer classes outside, and a temperature that is fitted on test tasks."""
    directory = runs("protonet")
    few = r"--unknown draws 3 classes inside and 3 outside the task: imagefolder has 5, the classes of test, fewer than"
    with pytest.raises(DataError, match=few):
        retest(directory.path, "test", {"way": 3}, "unknown")  # before TensorFlow is imported
    assert retest(directory.path, "test", {}, "unknown").experiment.test.way == 2
    monkeypatch.setattr(sizes, "sizes_of", lambda _: {})  # of a dataset that is counted when it is built
    with pytest.raises(DataError, match="--unknown draws 3 classes inside and 3 outside the task: .* fewer than way 6"):
        evaluate(directory.path, "test", {"way": 3}, "unknown")
    for spec, reason in (
        ("finn2017/sinusoid", "is a regression"),
        ("duan2016/bandits-rl2", "plays trials"),
        ("lake2015/hausdorff", "is not trained"),
    ):
        with pytest.raises(RunError, match=reason):
            refuse_no_classifier(tmp_path, load(spec).experiment)
    with pytest.raises(RunError, match="the learner of protonet has no fit and no classify, see docs/extending.md"):
        refuse_missing(object(), ("fit", "classify"), load(directory.spec).experiment, tmp_path)
    text = directory.spec.read_text()
    done = CliRunner().invoke(metarun, ["evaluate", str(directory.path), "--unknown", "--calibrated"])
    assert done.exit_code == 2 and "give one of them" in done.output
    assert directory.spec.read_text() == text


def test_a_run_without_validation_has_no_temperature(runs, tmp_path):
    """Reject a temperature of 1 that nobody fitted."""
    own = runs("protonet")
    text = own.spec.read_text()
    path = tmp_path / "none.yaml"
    path.write_text(SPEC.format(name="protonet", more="", path=load(own.spec).experiment.dataset.path))
    path.write_text(path.read_text().replace("{shot: 1, episodes: 20, every: 1}", "null"))
    directory = RunDirectory(tmp_path / "protonet" / "seed-0")
    train(Run(load(path).experiment, 0, directory))
    for command in (
        ["evaluate", "--calibrated"],
        ["predict", "--calibrated", "--support", str(tmp_path), str(path)],
        ["export", "--calibrated", str(tmp_path / "out")],
    ):
        done = CliRunner().invoke(metarun, [command[0], str(directory.path), *command[1:]])
        assert isinstance(done.exception, RunError) and "has no validation tasks" in str(done.exception)
    assert own.spec.read_text() == text
