"""The head of a test is that of all that is said of it: temperature, scores, predictions, and the row."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from small_runs import trained_once, write_classes

from metarun.algorithms.heads.learner import HeadOnFeatures
from metarun.algorithms.heads.options import RidgeHeadOptions
from metarun.algorithms.learner import Support, classify_with_scores
from metarun.cli.main import metarun
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError
from metarun.experiments.evaluation.judges import stored
from metarun.experiments.evaluation.restore import restored
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.export.export import export
from metarun.experiments.export.request import request
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.prediction.request import refuse_other_way, trained_classifier
from metarun.experiments.runs.trained import retest

SPEC = """
name: {name}
algorithm: {algorithm}
network: {{name: mlp, hidden: [8], batch_norm: true}}
dataset: {{name: imagefolder, path: {path}, image_size: 8, channels: 1}}
protocol: inductive
train: {{way: 2, shot: 2, query: 3, meta_batch: 2, steps: 2}}
validation: {{shot: 1, episodes: 20, every: 1}}
test: {{way: 2, shot: 2, query: 3, episodes: 12, checkpoint: last{head}}}
jit: off
"""
ALGORITHMS = {"protonet": "{name: protonet}", "maml": "{name: maml, inner_lr: 0.1, inner_steps: 2}"}
RIDGE = {"name": "ridge", "penalty": 0.5}
SLOW_MAML = pytest.param("headed-maml", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that trains a run, once in this file; the spec of `headed-...` has a head of the test."""
    folder = tmp_path_factory.mktemp("runs")
    write_classes(folder / "images", {"train": 4, "val": 3, "test": 5}, ink=60, noise=190)

    def text_of(name):
        head = ", head: {name: ridge, penalty: 0.5}" if name.startswith("headed-") else ""
        algorithm = ALGORITHMS[name.removeprefix("headed-")]
        return SPEC.format(name=name, algorithm=algorithm, path=folder / "images", head=head)

    with trained_once(folder, text_of) as trained:
        yield trained


def model_of(directory):
    return restored(directory, load(directory.spec).experiment, 0, "last")


def likelihood(learner, tasks, temperature):
    """Return the mean negative log-likelihood of logits that are divided by a temperature, in float64."""
    logits = np.asarray(learner.predict(tasks)[-1], np.float64) / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, np.asarray(tasks.query_y)[..., None], axis=-1)[..., 0]
    return (np.log(np.exp(logits).sum(axis=-1)) - chosen).mean()


@pytest.mark.parametrize("name", ["protonet", pytest.param("headed-maml", marks=pytest.mark.slow)])
def test_a_temperature_is_of_the_head_that_it_divides(runs, name):
    """Reject that of the method's own logits, and one that is kept for every head."""
    directory = runs(name)
    own = evaluate(directory.path, "test", {"head": None}, "calibrated").row
    row = evaluate(directory.path, "test", {"head": RIDGE}, "calibrated").row
    assert [each.head for each in stored(directory)] == ["", json.dumps(RIDGE)]
    assert own.head == "" and json.loads(row.head) == RIDGE and row.temperature != own.temperature
    model = model_of(directory)
    tasks = model.validation_stream().sample(0, 20)
    learner = HeadOnFeatures(model.learner, retest(directory.path, "test", {"head": RIDGE}).experiment.test.head)
    least = likelihood(learner, tasks, row.temperature)
    assert all(likelihood(learner, tasks, factor * row.temperature) > least for factor in (0.95, 1.05))
    assert likelihood(learner, tasks, own.temperature) > least
    known = stored(directory)
    asked = trained_classifier(directory.path)
    of_the_test = row.temperature if name == "headed-maml" else own.temperature
    assert trained_learner(asked, calibrated=True).temperature == of_the_test and stored(directory) == known


def test_a_temperature_of_an_older_version_is_of_the_method(runs):
    """Reject a file without heads as damaged, and its temperature for another head."""
    directory = runs("protonet")
    evaluate(directory.path, "test", {}, "calibrated")
    text = directory.temperature.read_text()
    older = next(each for each in json.loads(text) if each["head"] == "")
    del older["head"]
    try:
        directory.temperature.write_text(json.dumps([older | {"temperature": 7.0}]))
        assert trained_learner(trained_classifier(directory.path), calibrated=True).temperature == 7.0
        row = evaluate(directory.path, "test", {"head": RIDGE, "episodes": 11}, "calibrated").row
        assert row.temperature != 7.0
    finally:
        directory.temperature.write_text(text)


@pytest.mark.parametrize("name", ["protonet", "headed-protonet", SLOW_MAML])
def test_unknown_classes_are_told_by_the_head_of_the_row(runs, name):
    """Reject the scores of the method's own head under the name of another."""
    directory = runs(name)
    row, path, _ = evaluate(directory.path, "test", {} if name != "protonet" else {"head": RIDGE}, "unknown")
    assert json.loads(row.head) == RIDGE and row.metric == "auroc_unknown"
    model, head = model_of(directory), retest(directory.path, "test", {"head": RIDGE}).experiment.test.head
    batch = model.source.sample("test", 0, 12, Shape(4, 2, 3), model.experiment.test.episode_seed)
    support = Support(batch.support_x[:, :4], tf.constant([[0, 0, 1, 1]] * 12), 2, batch.drawn, True)

    def areas(learner):
        _, scores = classify_with_scores(learner, learner.fit(support), batch.query_x, 2)
        pairs = [np.split(each, 2) for each in scores.numpy()]
        return [np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside]) for inside, outside in pairs]

    with path.with_suffix(".csv").open(newline="") as file:
        found = [float(line["auroc_unknown"]) for line in csv.DictReader(file)]
    np.testing.assert_allclose(found, areas(HeadOnFeatures(model.learner, head)), atol=1e-6)
    assert np.abs(np.subtract(found, areas(model.learner))).max() > 0.01


def test_unknown_classes_and_probabilities_of_a_head_are_options_that_combine(runs):
    """Reject a refusal of what the documents say."""
    for option in ("--unknown", "--calibrated"):
        command = ["evaluate", str(runs("protonet").path), "--head", json.dumps(RIDGE), option]
        done = CliRunner().invoke(metarun, command, catch_exceptions=False)
        assert done.exit_code == 0 and "ridge" in done.stdout


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_head_answers_single_support_sets_as_it_answers_tasks(runs, name, protocol):
    """Reject features under the other protocol."""
    changes = {"head": RIDGE, "protocol": protocol}
    answers = {}
    for each in ("inductive", "transductive"):
        asked = retest(runs(name).path, "test", changes | {"protocol": each})
        model = restored(asked.directory, asked.experiment, 0, "last")
        learner, batch = HeadOnFeatures(model.learner, asked.experiment.test.head), model.test_stream().sample(0, 3)
        answers[each] = learner.predict(batch)[-1].numpy()
        if each == protocol:
            fitted = learner.fit(Support.of_task(batch))
            found = learner.classify(fitted, batch.query_x, 2).numpy()
    np.testing.assert_allclose(found, answers[protocol], atol=1e-4)
    others = [each for each in answers if each != protocol]
    assert all(np.abs(found - answers[each]).max() > 1e-2 for each in others)


@pytest.mark.parametrize("name", ["headed-protonet", SLOW_MAML])
def test_predictions_and_exports_are_by_the_head_of_the_test(runs, name, tmp_path):
    """Reject the method's own answers, its one number of classes, and a card without the head."""
    directory = runs(name)
    folder = load(directory.spec).experiment.dataset.path / "test"
    asked = trained_classifier(directory.path)
    model = trained_learner(asked)
    assert isinstance(model.learner, HeadOnFeatures) and model.way is None
    refuse_other_way(asked.experiment, ["a", "b", "c", "d", "e"], "here")
    out = tmp_path / "labels.csv"
    command = ["predict", str(directory.path), "--support", str(folder), str(folder), "--out", str(out)]
    done = CliRunner().invoke(metarun, command, catch_exceptions=False)
    assert done.exit_code == 0 and f"classified by the head of the run's test: {json.dumps(RIDGE)}" in done.output
    export(request(directory.path, tmp_path / "model"))
    assert f"with another head on its features (`{json.dumps(RIDGE)}`)" in (tmp_path / "model/README.md").read_text()
    serve = tf.saved_model.load(tmp_path / "model" / "saved_model").signatures["serving_default"]
    source = model_of(directory).source
    batch = source.sample("test", 0, 1, Shape(3, 2, 1), 0)
    images = {name: source.pixels(each[0]) for name, each in (("s", batch.support_x), ("q", batch.query_x))}
    images = {
        key: tf.constant(np.rint(255 * value).reshape(-1, 8, 8, 1).astype(np.uint8)) for key, value in images.items()
    }
    given = {"support_images": images["s"], "support_labels": batch.support_y[0], "query_images": images["q"]}
    found = serve(**given)["logits"].numpy()
    np.testing.assert_allclose(found, model.learner.predict(batch)[-1, 0], atol=1e-3)


def test_the_mean_of_the_training_images_centres_predictions(runs):
    """Reject a mean of zeros."""
    directory = runs("protonet")
    asked = retest(directory.path, "test", {"head": {"name": "centroid"}})
    model = model_of(directory)
    places = tf.range(model.source.size("train"))
    features = HeadOnFeatures(model.learner, RidgeHeadOptions()).features(
        model.source.labelled("train", places)[0][None]
    )
    found = trained_learner(asked).learner.mean.numpy()
    np.testing.assert_allclose(found, features.numpy()[0].mean(axis=0), rtol=1e-4, atol=1e-6)
    assert np.abs(found).max() > 0.01


def test_a_head_has_no_inner_steps(runs):
    """Reject a number of steps that were not made, and two names of one measurement."""
    row, path, _ = evaluate(runs("maml").path, "test", {"head": RIDGE})
    assert evaluate(runs("headed-maml").path, "test", {}, "unknown").row.inner_steps == 0
    assert row.inner_steps == 0 and "steps-" not in path.name
    assert evaluate(runs("maml").path, "test", {}).row.inner_steps == 2
    for name, changes in (("maml", {"head": RIDGE}), ("headed-maml", {})):
        with pytest.raises(SpecError, match="--inner-steps has no effect beside a head"):
            retest(runs(name).path, "test", {**changes, "inner_steps": 3})
    assert retest(runs("headed-maml").path, "test", {"head": None, "inner_steps": 3}).experiment.tested_steps == 3
