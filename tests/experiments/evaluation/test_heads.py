"""Tests of trained runs by other heads on their features."""

import errno
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from small_runs import SPEC, trained_once, write_classes

from metarun.algorithms.heads import learner as heads
from metarun.algorithms.heads.learner import HeadOnFeatures, OnStoredFeatures
from metarun.experiments.config.load import load
from metarun.experiments.config.variants import head_named, with_test
from metarun.experiments.errors import SpecError
from metarun.experiments.evaluation import measure, partial
from metarun.experiments.evaluation.measure import test_of as evaluation_of
from metarun.experiments.evaluation.partial import FeatureFile
from metarun.experiments.evaluation.restore import restored
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.trained import retest
from metarun.experiments.training.train import train

OWN = {
    "protonet": ("", "inductive", "way: 3, shot: 2, query: 3, "),
    "maml": (", inner_lr: 0.5, inner_steps: 2", "transductive", "way: 3, shot: 2, query: 3, "),
    "simpleshot": ("", "inductive", ""),
}
HEADS = ["linear", "cosine", "centroid", "ridge", "similarity"]
QUICK = [("protonet", "centroid"), ("protonet", "ridge")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    write_classes(folder / "images", {"train": 6, "val": 5, "test": 5}, ink=60, noise=120)

    def text_of(name):
        more, protocol, tasks = OWN[name]
        text = SPEC.format(name=name, more=more, path=folder / "images", protocol=protocol, query="")
        if name == "protonet":
            text = text.replace("validation: null", "validation: {every: 2, episodes: 2}")
        return text.replace("way: 3, shot: 2, meta_batch: 2", f"{tasks}meta_batch: 4")

    with trained_once(folder, text_of) as train:
        yield train


def model_of(directory, head):
    asked = retest(directory.path, "test", {"head": head})
    return restored(directory, asked.experiment, 0, "last")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        pytest.param(name, head, marks=() if (name, head) in QUICK else pytest.mark.slow)
        for name in OWN
        for head in HEADS
    ],
)
def test_a_head_on_the_features_of_a_run(trained, name, head):
    """Compare the row with a test on the images; reject the method's own answers."""
    if name == "simpleshot" and head == "centroid":
        return  # its own
    options = {"name": head, "features": "L2N"} if head == "centroid" else {"name": head}
    directory = trained(name)
    row, path, known = evaluate(directory.path, "test", {"head": options})
    assert not known and json.loads(row.head) == options
    assert f"-{head}-" in path.name and path.parent == directory.evaluations
    assert evaluate(directory.path, "test", {"head": options}).known
    evaluation = evaluation_of(model_of(directory, options))
    assert isinstance(evaluation.learner, HeadOnFeatures)
    direct = evaluation.measure("directly")  # without stored features
    ready = evaluation.ready(None)
    assert isinstance(ready.learner, OnStoredFeatures) == (name != "maml")
    np.testing.assert_allclose(row.mean, direct.values["accuracy"].mean(), atol=1e-6)
    np.testing.assert_allclose(row.negative_log_likelihood, direct.values["negative_log_likelihood"].mean(), rtol=1e-4)
    own = evaluation_of(restored(directory, retest(directory.path, "test", {}).experiment, 0, "last"))
    assert direct.episodes_digest == own.measure("own").episodes_digest
    assert (
        abs(own.ready(None).measure("own").values["negative_log_likelihood"].mean() - row.negative_log_likelihood)
        > 1e-4
    )


def test_the_time_of_a_test_is_that_of_stored_features(trained, monkeypatch):
    """Reject the share of a last batch that is short, which takes as long as the others; no time for the mean.

    MAML computes the features of each task, so it stores none. A clock of whole seconds ticks when it is read.
    """
    monkeypatch.setattr(heads, "PIXELS_AT_ONCE", 16 * 8 * 8)  # 30 test images and 36 training images
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    for name, head, batches in (
        ("protonet", {"name": "ridge"}, 2),
        ("protonet", {"name": "centroid", "features": "CL2N"}, 2 + 3),
        ("maml", {"name": "ridge"}, None),
    ):
        model = model_of(trained(name), head)
        seconds = evaluation_of(model).seconds_when_ready(model.source)
        assert (None if seconds is None else seconds[0]) == batches


@pytest.fixture
def several_batches(monkeypatch):
    """Let the features of all images take several batches; return the list of the sizes of those that are computed."""
    monkeypatch.setattr(heads, "PIXELS_AT_ONCE", 3 * 8 * 8)
    computed, features_of = [], heads.features_of

    def counted(*arguments):
        for features in features_of(*arguments):
            computed.append(features.shape[0])
            yield features

    monkeypatch.setattr(heads, "features_of", counted)
    return computed


@pytest.fixture
def feature_file(trained):
    """Return a trained model, its learner with a head, and a function that makes its file of features."""
    model = model_of(trained("protonet"), {"name": "ridge"})

    def file(path, spec=model.experiment, split="test", **changed):
        variables = changed.pop("variables", model.learner.variables)
        told = {"experiment": model.experiment, "content_digest": model.content_digest} | changed
        return FeatureFile(path, spec, SimpleNamespace(learner=SimpleNamespace(variables=variables), **told), split)

    return model, evaluation_of(model).learner, file


def test_features_are_kept_for_further_tests_of_the_same_weights(feature_file, several_batches, tmp_path):
    """Reject features of another program, of other shapes or precisions, and those of a damaged file."""
    model, learner, file = feature_file
    path = tmp_path / "features.npz"

    def found(changed=None, data=None):
        if changed is not None:
            checkpoint.save(path, [changed], {"digest": file(path).digest})
        if data is not None:
            path.write_bytes(data)
        kept = file(path)
        _, source = heads.stored(learner, model.source, "test", kept)
        kept.save()
        return source.features.numpy()

    right, whole = found(), path.read_bytes()
    assert sum(several_batches) == len(right) > several_batches[0]
    np.testing.assert_array_equal(found(), right)
    assert sum(several_batches) == len(right) + several_batches[0]  # the first batch alone
    later, earlier = right.copy(), right.copy()
    later[-1] += 1
    earlier[0] += 1
    np.testing.assert_array_equal(found(later), later)
    for wrong in (earlier, later[:-1], later[:, :-1], later.astype("float64")):
        np.testing.assert_array_equal(found(wrong), right)
    for data in (whole[: len(whole) // 2], b"", b"text"):
        np.testing.assert_array_equal(found(data=data), right)
    assert path.read_bytes() == whole  # replaced


def test_features_of_other_weights_or_images_are_not_taken(feature_file, several_batches, tmp_path):
    """Reject features that were kept for other weights, images, data, splits, conversions or code."""
    model, learner, file = feature_file
    path, (_, source) = tmp_path / "features.npz", heads.stored(learner, model.source, "test")
    kept, first = file(path), source.features[:1]
    kept.take(source.features)
    kept.save()
    count = source.features.shape[0]
    assert file(path).read(first, count) is not None
    experiment = model.experiment
    shot = experiment.test.model_copy(update={"shot": 1, "episode_seed": 7})
    again = experiment.model_copy(update={"test": shot})
    assert file(path, experiment=again).read(first, count) is not None
    inverted = experiment.test.model_copy(update={"dataset": experiment.dataset, "convert": "invert"})
    wider = experiment.network.model_copy(update={"hidden": (9,)})
    other = [tf.Variable(value + 1) if value.dtype.is_floating else value for value in model.learner.variables]
    for changed in (
        {"variables": other},
        {"split": "val"},
        {"content_digest": "other"},
        {"experiment": experiment.model_copy(update={"test": inverted})},
        {"spec": experiment.model_copy(update={"network": wider})},
    ):
        assert file(path, **changed).read(first, count) is None, changed


def copied(directory, folder):
    """Return a copy of a run that has kept no features."""
    copy = RunDirectory(shutil.copytree(directory.path, folder / "seed-0"))
    copy.features.unlink(missing_ok=True)
    return copy


def test_a_test_of_another_shape_starts_from_the_features_of_the_last(trained, several_batches, tmp_path):
    """Reject the digest of the changed spec: the shape of its validation tasks is that of its test."""
    directory = copied(trained("protonet"), tmp_path)
    first, *_ = evaluate(directory.path, "test", {"head": {"name": "ridge"}, "episode_seed": 1})
    computed = sum(several_batches)
    assert computed > several_batches[0]
    second, *_ = evaluate(directory.path, "test", {"head": {"name": "ridge"}, "shot": 1, "episode_seed": 2})
    assert sum(several_batches) == computed + several_batches[0]
    directory.features.unlink()
    third, *_ = evaluate(directory.path, "test", {"head": {"name": "ridge"}, "shot": 1, "episode_seed": 3})
    assert sum(several_batches) == 2 * computed + several_batches[0]
    assert len({first.mean, second.mean, third.mean}) > 1


@pytest.mark.parametrize("refused", ["to save", "to read", "too many"])
def test_features_that_cannot_be_kept_end_no_test(trained, monkeypatch, capsys, tmp_path, refused):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    directory = copied(trained("protonet"), tmp_path)
    if refused == "to read":
        directory.features.mkdir()
    elif refused == "to save":
        monkeypatch.setattr(checkpoint, "save", full)
    else:
        monkeypatch.setattr(partial, "MOST_BYTES", 100)
    row, *_ = evaluate(directory.path, "test", {"head": {"name": "similarity"}, "episode_seed": 5})
    assert row.episodes and directory.features.is_file() is False
    told = capsys.readouterr().err
    assert ("the features of the test are not kept" in told) == (refused != "too many")
    assert "No space left on device" in told or refused != "to save"


def test_a_head_without_an_inner_loop_reads_what_the_last_layer_reads(trained):
    """Compare with the products of the last layer; reject features of the adapted weights, and of the logits."""
    model = model_of(trained("maml"), {"name": "similarity"})
    learner = evaluation_of(model).learner
    batch = model.test_stream().sample(0, 2)
    _, queries = learner.embed(batch)
    parameters = learner.learner.network.parameters
    logits = tf.matmul(queries, parameters["head/kernel"]) + parameters["head/bias"]
    along = learner.learner.predict(batch).numpy()
    np.testing.assert_allclose(logits, along[0], atol=1e-5)
    assert np.abs(logits.numpy() - along[-1]).max() > 1e-3


def test_the_mean_of_the_training_images_is_computed_for_a_run_that_has_not_kept_it(trained):
    """Reject a mean of zeros, which is L2N, and that of the test images."""
    directory = trained("protonet")
    model = model_of(directory, {"name": "centroid", "features": "CL2N"})
    ready = evaluation_of(model).ready(model.source)
    places = tf.range(model.source.size("train"))
    features = model.learner.network(
        model.learner.network.parameters, model.source.labelled("train", places)[0][None], running=True
    )
    np.testing.assert_allclose(ready.learner.mean, features.numpy()[0].mean(axis=0), rtol=1e-5)
    row, *_ = evaluate(directory.path, "test", {"head": {"name": "centroid"}})
    without, *_ = evaluate(directory.path, "test", {"head": {"name": "centroid", "features": "L2N"}})
    assert abs(row.negative_log_likelihood - without.negative_log_likelihood) > 1e-4


@pytest.mark.parametrize(("before", "after"), [pytest.param("CL2N", "UN", marks=pytest.mark.slow), ("UN", "CL2N")])
def test_another_transform_is_a_test_of_the_same_training(trained, tmp_path, capsys, before, after):
    """Reject checkpoints of which a transform needs others, so that the training begins anew; a mean of zeros."""
    spec, directory = trained("simpleshot").path.parents[1] / "simpleshot.yaml", RunDirectory(tmp_path / "seed-0")
    for features in (before, after):
        directory.result.unlink(missing_ok=True)  # as if the test had been stopped
        train(Run(load(spec, [f"algorithm.head.features={features}"]).experiment, 0, directory))
    assert "ignored" not in capsys.readouterr().err
    row, *_ = evaluate(directory.path, "test", {})
    asked = {"head": {"name": "centroid", "features": after}}
    same, *_ = evaluate(trained("simpleshot").path, "test", asked if after == "UN" else {})
    assert row.negative_log_likelihood == pytest.approx(same.negative_log_likelihood, rel=1e-5)
    assert row.weights_digest == same.weights_digest


@pytest.mark.parametrize(
    ("name", "head", "told"),
    [
        ("maml", {"name": "centroid"}, "test.head.features: CL2N needs features of single images"),
        ("simpleshot", {"name": "centroid"}, "test.head: has no effect: it is the head of simpleshot"),
        ("protonet", {"name": "nearest"}, "test.head.name: unknown head 'nearest'"),
        ("protonet", {"name": "ridge", "scal": 2}, "test.head.scal: unknown key of the head; did you mean scale?"),
        (
            "protonet",
            {"name": "ridge", "penalty": -1.0},
            "test.head.penalty: expected a number greater than 0.0, got -1.0",
        ),
        ("protonet", {"scale": 2.0}, "test.head: has no name: expected `name:` with one of linear, cosine"),
    ],
)
def test_heads_that_cannot_be_put_on_a_run_are_refused(trained, name, head, told):
    with pytest.raises(SpecError, match=told.replace("?", r"\?")):
        retest(trained(name).path, "test", {"head": head})


def test_three_transforms_of_one_training(trained):
    """Check that rows of UN, L2N and CL2N of a run have names of their own, and differ."""
    directory = trained("simpleshot")
    rows = [
        evaluate(directory.path, "test", {"head": {"name": "centroid", "features": features}})
        for features in ("UN", "L2N")
    ]
    paths = {each.path for each in rows}
    assert len(paths) == 2 and len({each.row.negative_log_likelihood for each in rows}) == 2
    assert len({each.row.weights_digest for each in rows}) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{name: linear, epochs: 2, epochs: 3}", "--head {given}: epochs: is given twice"),
        ("!!int x", "--head {given}: cannot be read: 'x' is no int"),
        ("2020-13-45", "test.head.name: unknown head '2020-13-45'"),
        ("5", "test.head: "),
        ("[ridge]", "test.head: "),
        ("{ridge", "--head {given}:1: not YAML: "),
        ("*ridge", "--head {given}: YAML aliases (*name) are not understood here"),
        ("", "--head : is empty"),
    ],
)
def test_a_head_that_is_none_is_one_line(given, told):
    """Reject an internal error, and the last one of two values."""
    with pytest.raises(SpecError) as caught:
        with_test(load("quickstart/protonet").experiment, {"head": head_named(given)})
    (problem,) = caught.value.problems
    assert problem.startswith(told.replace("{given}", given))


def test_a_head_is_read_as_a_spec_is():
    """Reject the words and dates of YAML 1.1: 1e-2 is a number."""
    assert head_named("{name: linear, learning_rate: 1e-2}") == {"name": "linear", "learning_rate": 0.01}
    assert head_named("ridge") == {"name": "ridge"} and head_named("null") is None
    tested = with_test(load("quickstart/protonet").experiment, {"head": head_named("{name: ridge, scale: 1e1}")})
    assert tested.test.head.scale == 10.0
