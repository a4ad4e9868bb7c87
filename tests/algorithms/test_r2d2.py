"""R2D2: ridge regression inside the meta-gradient."""

import few_shot
import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.networks.options import MLPOptions
from metarun.algorithms.options import R2D2Options
from metarun.datasets.tasks import Shape

WAY, SHOT, QUERY = 3, 2, 4
LOG_PENALTY = np.log(0.3)


def learner(**options):
    return few_shot.learner(R2D2Options(**options), MLPOptions(hidden=(5,)), "inductive", precision="float64")


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def loss_of(supports, queries, labels, scale, offset, penalty, grows=True):
    """Return the mean cross-entropy of the queries of one task."""
    x = np.concatenate([supports, np.ones((len(supports), 1))], axis=1)
    asked = np.concatenate([queries, np.ones((len(queries), 1))], axis=1)
    y = np.eye(WAY)[np.repeat(np.arange(WAY), SHOT)]
    weights = x.T @ np.linalg.solve(x @ x.T + penalty * (len(x) if grows else 1) * np.eye(len(x)), y)
    return -np.log(softmax(scale * asked @ weights + offset)[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("learn", [False, True])
def test_the_loss_and_the_gradients_of_what_is_learned(make_source, learn):
    """Compare with numpy and differences; reject a penalty that does not grow, and the gradient of lambda itself."""
    model = learner(penalty=0.3, learn_penalty=learn, scale=2.0)
    batch = make_source(dtype="float64").sample("train", 0, 2, Shape(WAY, SHOT, QUERY), seed=0)
    supports, queries = (each.numpy() for each in model.embed(batch))
    labels = batch.query_y.numpy()

    def loss(scale=2.0, offset=0.0, log_penalty=LOG_PENALTY, **more):
        tasks = zip(supports, queries, labels, strict=True)
        return np.mean([loss_of(*task, scale, offset, np.exp(log_penalty), **more) for task in tasks])

    with tf.GradientTape() as tape:
        logits, _ = model._forward(batch, running=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.query_y, logits)
        value = tf.reduce_mean(losses)
    gradients = tape.gradient(value, model.own)
    np.testing.assert_allclose(value, loss(), rtol=1e-9)
    assert abs(loss(grows=False) - loss()) > 1e-4
    slope = (loss(scale=2.0 + 1e-6) - loss(scale=2.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(gradients["ridge/scale"], slope, rtol=1e-5)
    if learn:
        log = LOG_PENALTY
        slope = (loss(log_penalty=log + 1e-6) - loss(log_penalty=log - 1e-6)) / 2e-6
        np.testing.assert_allclose(gradients["ridge/log_penalty"], slope, rtol=1e-5)
        assert abs(slope / 0.3 - gradients["ridge/log_penalty"].numpy()) > 0.1 * abs(slope)
    else:
        assert "ridge/log_penalty" not in model.own


def test_it_learns(make_source):
    source, model = make_source(), few_shot.learner(R2D2Options(penalty=1.0), MLPOptions(hidden=(16,)), "inductive")
    losses = [
        float(model.train_step(source.sample("train", 4 * step, 4, Shape(WAY, SHOT, QUERY), 0))["loss"])
        for step in range(40)
    ]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
