"""Baseline, Baseline++ and SimpleShot: training steps against plain numpy, and what their tests are made of."""

import few_shot
import keras
import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.baseline import Baseline, BaselinePlusPlus
from metarun.algorithms.heads.learner import features_of, mean_of, stored
from metarun.algorithms.learner import Problem
from metarun.algorithms.networks.feedforward import build
from metarun.algorithms.networks.options import MLPOptions
from metarun.algorithms.options import BaselineOptions, BaselinePlusPlusOptions, SimpleShotOptions
from metarun.algorithms.workers import Share
from metarun.datasets.images.features import FeatureSource
from metarun.datasets.images.source import ImageSource
from metarun.datasets.tasks import ImageStream, LabelledImages, Shape

INDUCTIVE = Problem(regression=False, protocol="inductive")
GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(8, 7)), np.array([0, 3, 1, 2, 2, 0, 3, 1], np.int32)


def batch_of(rows=slice(None)):
    return LabelledImages(tf.constant(X[rows]), tf.constant(Y[rows]), tf.constant(Y[rows])[:, None])


def learner(kind, options, batch_norm=False, classes=4):
    network = build(MLPOptions(hidden=(5,), batch_norm=batch_norm), (7,), None, "float64", seed=0)
    return kind(network, keras.optimizers.SGD(1.0), options, INDUCTIVE, classes=classes)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def features(model):
    values = {name: value.numpy() for name, value in model.network.parameters.items()}
    return np.maximum(X @ values["dense1/kernel"] + values["dense1/bias"], 0)


@pytest.mark.parametrize("smoothing", [None, 0.2])
def test_a_step_of_a_linear_classifier(smoothing):
    """Reject a smoothed label without its own share of the smoothing, and unused outputs that are left out."""
    model = learner(Baseline, BaselineOptions(outputs=6, label_smoothing=smoothing))
    f, kernel = features(model), model.own["classes/kernel"].numpy()
    bias = model.own["classes/bias"].numpy() + 0.1
    model.own["classes/bias"].assign(bias)
    labels, s = np.eye(6)[Y], smoothing or 0.0
    probabilities = softmax(f @ kernel + bias)
    loss = -(((1 - s) * labels + s / 6) * np.log(probabilities)).sum(axis=1).mean()
    moved = kernel - f.T @ (probabilities - (1 - s) * labels - s / 6) / len(X)
    metrics = model.train_step(batch_of())
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-9)
    np.testing.assert_allclose(metrics["accuracy"], (probabilities.argmax(axis=1) == Y).mean())
    np.testing.assert_allclose(model.own["classes/kernel"], moved, rtol=1e-9, atol=1e-12)
    wrong = [-((1 - s) * labels + s / 5 * (1 - labels)) * np.log(probabilities)] if smoothing else []
    wrong.append(-labels[:, :4] * np.log(softmax((f @ kernel + bias)[:, :4])))
    for each in wrong:
        assert abs(each.sum(axis=1).mean() - loss) > 1e-3


def test_a_step_of_a_cosine_classifier():
    """Reject cosines without the learned lengths, and without the scale."""
    model = learner(BaselinePlusPlus, BaselinePlusPlusOptions(scale=3.0))
    f, kernel, gain = features(model), model.own["classes/kernel"].numpy(), model.own["classes/gain"].numpy()
    np.testing.assert_allclose(gain, np.linalg.norm(kernel, axis=0))
    cosines = f / (np.linalg.norm(f, axis=1, keepdims=True) + 1e-5) @ (kernel / np.linalg.norm(kernel, axis=0))

    def loss(logits):
        return -np.log(softmax(logits)[np.arange(8), Y]).mean()

    found = model.train_step(batch_of())["loss"]
    np.testing.assert_allclose(found, loss(3 * gain * cosines), rtol=1e-9)
    for wrong in (3 * cosines, gain * cosines):
        assert abs(loss(wrong) - found) > 1e-3


def test_more_classes_than_outputs_are_refused():
    with pytest.raises(ValueError, match="outputs is 3, fewer than the 4 training classes"):
        learner(Baseline, BaselineOptions(outputs=3))


@pytest.mark.parametrize("groups", [None, 2])
def test_batch_norm_sees_the_mini_batch_in_groups(groups):
    """Reject the whole mini-batch with groups, whose loss is another one."""
    model = learner(Baseline, BaselineOptions(norm_groups=groups), batch_norm=True)
    kernel = model.network.parameters["dense1/kernel"].numpy()
    losses = {}
    for parts in (1, 2):
        normalised = []
        for part in np.split(X @ kernel, parts):
            normalised.append((part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + 1e-3))
        f = np.maximum(np.concatenate(normalised), 0)
        losses[parts] = -np.log(softmax(f @ model.own["classes/kernel"].numpy())[np.arange(8), Y]).mean()
    np.testing.assert_allclose(model.train_step(batch_of())["loss"], losses[groups or 1], rtol=1e-9)
    assert abs(losses[1] - losses[2]) > 1e-3


def test_two_workers_make_the_step_of_one():
    """Reject batch norm over each worker's images where one worker sees them together."""

    class Two:
        count, order = 2, None

        def __init__(self):
            self.sums = []

        def total(self, values):
            self.sums.append(values)
            return values

    def gradients(options, alone):
        found = []
        for half in (None,) if alone else (0, 1):
            model = learner(Baseline, options, batch_norm=True)
            before = {name: value.numpy() for name, value in model.parameters.items()}
            rows = slice(None) if half is None else slice(4 * half, 4 * half + 4)
            share = Share() if half is None else Share(Two(), 4 * half, 4 - 4 * half)
            model.train_step(batch_of(rows), share=share)
            found.append({name: before[name] - value.numpy() for name, value in model.parameters.items()})
        return {name: sum(each[name] for each in found) for name in found[0]}

    grouped = BaselineOptions(norm_groups=2)
    one, two = gradients(grouped, True), gradients(grouped, False)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-9, atol=1e-12)
    whole = gradients(BaselineOptions(), True)
    assert max(np.abs(whole[name] - two[name]).max() for name in one) > 1e-3


@pytest.mark.parametrize("rotations", ["none", "classes"])
def test_features_are_stored_in_the_order_of_the_images(make_source, rotations):
    """Compare a test on stored features with one on images; reject the features of unturned images."""
    source = make_source(dtype="float64", rotations=rotations)
    model = few_shot.learner(
        SimpleShotOptions(), MLPOptions(hidden=(6,), batch_norm=True), "inductive", precision="float64"
    )
    mean_of(features_of(model, source, "train"), model.mean)
    places = tf.range(source.size("train"))
    every = model.features(source.labelled("train", places)[0][None]).numpy()[0]
    np.testing.assert_allclose(model.mean, every.mean(axis=0), rtol=1e-9)
    shape = Shape(3, 2, 2)
    on_features, features_source = stored(model, source, "test")
    direct, through = source.sample("test", 3, 4, shape, 0), features_source.sample("test", 3, 4, shape, 0)
    np.testing.assert_array_equal(direct.drawn, through.drawn)
    expected = model.predict(direct).numpy()
    np.testing.assert_allclose(on_features.predict(through), expected, rtol=1e-7, atol=1e-9)
    if rotations == "classes":
        features_source.features = tf.tile(features_source.features[: len(source.pools["test"].images)], (4, 1))
        wrong = on_features.predict(features_source.sample("test", 3, 4, shape, 0)).numpy()
        assert np.abs(wrong - expected).max() > 1e-3


def test_features_are_not_stored_where_a_task_has_other_images(make_source):
    """Reject features of unturned images for turned ones, and tasks that a derived source does not draw."""

    class Reversed(ImageSource):
        def sample(self, split, index, *rest, **more):
            return super().sample(split, 1000 - index, *rest, **more)

    model = few_shot.learner(SimpleShotOptions(), MLPOptions(hidden=(6,)), "inductive")
    source = make_source()
    assert stored(model, source, "test") is not None
    assert stored(model, make_source(rotations="per-task"), "test") is None
    assert stored(model, Reversed("reversed", source.pools), "test") is None


def test_a_call_takes_fewer_tasks_of_wide_features(make_source):
    """Reject as many tasks of 16,000 features as of 64, and fewer tasks of coloured images than of grey ones."""
    source, shape = make_source(channels=3), Shape(5, 1, 15)

    def at_once(source):
        return source.stream("test", shape, 0).at_once(1000)

    of_features = [at_once(FeatureSource(source, "test", tf.zeros((1, width)))) for width in (64, 1600, 16_000)]
    assert of_features == [100, 100, 1_000_000 // (80 * 1000)]
    assert at_once(source) == at_once(make_source()) == 1_000_000 // (80 * 16 * 16)


def test_a_classifier_learns(make_source):
    source = make_source()
    model = few_shot.learner(BaselineOptions(outputs=source.classes("train")), MLPOptions(hidden=(32,)), "inductive")
    stream = ImageStream(source, "train", 0)
    losses = [float(model.train_step(stream.sample(6 * step, 6))["loss"]) for step in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
