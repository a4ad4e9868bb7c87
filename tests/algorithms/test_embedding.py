"""Prototypical and Matching Networks against a second implementation in plain numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.learner import Problem
from metarun.algorithms.matchingnet import MatchingNetwork
from metarun.algorithms.networks.feedforward import build
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import MatchingNetworkOptions, PrototypicalNetworkOptions
from metarun.algorithms.protonet import PrototypicalNetwork
from metarun.datasets.tasks import Shape

WAY, SHOT, QUERIES, WIDTH = 3, 2, 4, 5
INDUCTIVE = Problem(regression=False, protocol="inductive")
GENERATOR = np.random.default_rng(0)
SUPPORTS, QUERY = GENERATOR.normal(size=(2, WAY * SHOT, WIDTH)), GENERATOR.normal(size=(2, QUERIES, WIDTH))


def learner(kind, options, network_options=None):
    network = build(network_options or MLPOptions(hidden=(WIDTH,)), (7,), None, "float64", seed=0)
    return kind(network, keras.optimizers.Adam(1e-2), options, INDUCTIVE)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def cosine(first, second):
    return first @ second / (np.linalg.norm(first) * np.linalg.norm(second))


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_prototypical_networks_against_numpy(distance):
    model = learner(PrototypicalNetwork, PrototypicalNetworkOptions(distance=distance))
    probabilities = tf.nn.softmax(model.logits(model.own, tf.constant(SUPPORTS), tf.constant(QUERY), WAY)).numpy()
    expected, wrong = np.empty_like(probabilities), np.empty_like(probabilities)
    for task in range(2):
        prototypes = [SUPPORTS[task, SHOT * k : SHOT * (k + 1)].mean(axis=0) for k in range(WAY)]
        for number, query in enumerate(QUERY[task]):
            squared = np.array([((query - prototype) ** 2).sum() for prototype in prototypes])
            angles = np.array([1 - cosine(query, prototype) for prototype in prototypes])
            expected[task, number] = softmax(-squared if distance == "squared_euclidean" else -angles)
            wrong[task, number] = softmax(-np.sqrt(squared))  # the distance not squared
    np.testing.assert_allclose(probabilities, expected, rtol=1e-9)
    assert np.abs(probabilities - wrong).max() > 0.05


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_matching_networks_against_numpy(temperature):
    model = learner(MatchingNetwork, MatchingNetworkOptions(temperature=temperature))
    probabilities = np.exp(model.logits(model.own, tf.constant(SUPPORTS), tf.constant(QUERY), WAY).numpy())
    expected, wrong = np.zeros_like(probabilities), np.zeros_like(probabilities)
    for task in range(2):
        for number, query in enumerate(QUERY[task]):
            similarity = np.array([cosine(query, support) for support in SUPPORTS[task]])
            attention = softmax(similarity / temperature)
            for image in range(WAY * SHOT):
                expected[task, number, image // SHOT] += attention[image]
                wrong[task, number, image // SHOT] += softmax(QUERY[task, number] @ SUPPORTS[task].T)[image]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-9)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-12)
    assert np.abs(probabilities - wrong).max() > 0.05  # dot products in place of cosines


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, name, x, hidden, cell):
    kernel, recurrent, bias = (weights[f"context/{name}/{part}"].numpy() for part in ("kernel", "recurrent", "bias"))
    gates = x @ kernel + hidden @ recurrent + bias
    enter, forget, candidate, leave = np.split(gates, 4)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
    return sigmoid(leave) * np.tanh(cell), cell


def plain_full_context(weights, supports, query, steps, attend=True):
    """Compute appendix A of the paper, one image at a time."""
    count, width = supports.shape
    forward, backward = np.zeros((count, width)), np.zeros((count, width))
    hidden = cell = np.zeros(width)
    for i in range(count):
        hidden, cell = lstm(weights, "forward", supports[i], hidden, cell)
        forward[i] = hidden
    hidden = cell = np.zeros(width)
    for i in reversed(range(count)):
        hidden, cell = lstm(weights, "backward", supports[i], hidden, cell)
        backward[i] = hidden
    g = forward + backward + supports
    hidden, cell = np.zeros(width), np.zeros(width)
    for _ in range(steps):
        read = softmax(g @ hidden) @ g if attend else np.zeros(width)
        hidden, cell = lstm(weights, "attention", query, np.concatenate([hidden, read]), cell)
        hidden = hidden + query
    return g, hidden


@pytest.mark.parametrize("steps", [1, 4])
def test_full_context_embeddings_against_numpy(steps):
    options = MatchingNetworkOptions(full_context_embeddings=True, attention_steps=steps)
    model = learner(MatchingNetwork, options)
    g = model.embed_supports(model.own, tf.constant(SUPPORTS))
    f = model.embed_queries(model.own, tf.constant(QUERY), g)
    for task in range(2):
        for number in range(QUERIES):
            expected = plain_full_context(model.parameters, SUPPORTS[task], QUERY[task, number], steps)
            np.testing.assert_allclose(g[task], expected[0], rtol=1e-9)
            np.testing.assert_allclose(f[task, number], expected[1], rtol=1e-9)
            ignored = plain_full_context(model.parameters, SUPPORTS[task], QUERY[task, number], steps, attend=False)
            assert np.abs(f[task, number] - ignored[1]).max() > 1e-3  # f(x) must depend on S


def test_full_context_embeddings_decide():
    """Reject the supports without their context. Queries attend to the supports read in context."""
    model = learner(MatchingNetwork, MatchingNetworkOptions(full_context_embeddings=True, attention_steps=2))
    probabilities = np.exp(model.logits(model.own, tf.constant(SUPPORTS), tf.constant(QUERY), WAY).numpy())
    right, wrong = np.zeros_like(probabilities), np.zeros_like(probabilities)
    plain = tf.constant(SUPPORTS)
    for task in range(2):
        for number, query in enumerate(QUERY[task]):
            g, f = plain_full_context(model.parameters, SUPPORTS[task], query, 2)
            before = model.embed_queries(model.own, tf.constant(QUERY), plain).numpy()[task, number]
            for image in range(WAY * SHOT):
                right[task, number, image // SHOT] += softmax(np.array([cosine(f, each) for each in g]))[image]
                wrong[task, number, image // SHOT] += softmax(np.array([cosine(before, each) for each in g]))[image]
    np.testing.assert_allclose(probabilities, right, rtol=1e-9)
    assert np.abs(right - wrong).max() > 1e-4


def test_the_gradient_reaches_every_parameter(make_source):
    batch = make_source(dtype="float64").sample("train", 0, 1, Shape(WAY, SHOT, 2), seed=0)
    network = build(Conv4Options(filters=4), (16, 16, 1), None, "float64", seed=0)
    options = MatchingNetworkOptions(full_context_embeddings=True)
    model = MatchingNetwork(network, keras.optimizers.SGD(0.1), options, INDUCTIVE)
    before = {name: value.numpy() for name, value in model.parameters.items()}
    model.train_step(batch)
    assert len(before) == 12 + 9
    for name, value in before.items():
        assert np.abs(model.parameters[name].numpy() - value).max() > 0, name


@pytest.mark.parametrize(("kind", "options"), [
    (PrototypicalNetwork, PrototypicalNetworkOptions()),
    pytest.param(MatchingNetwork, MatchingNetworkOptions(temperature=0.1), marks=pytest.mark.slow),
])  # fmt: skip
def test_training_way_may_differ_from_the_tests_way(make_source, kind, options):
    source = make_source(classes=30, images=8)
    network = build(Conv4Options(filters=8), (16, 16, 1), None, "float32", seed=0)
    model = kind(network, keras.optimizers.Adam(3e-3), options, INDUCTIVE)
    step = tf.function(lambda number: model.train_step(source.sample("train", number, 1, Shape(10, 1, 3), 0)))
    for number in range(60):
        step(tf.constant(number, tf.int64))
    metrics = model.evaluate(source.sample("test", 0, 20, Shape(4, 2, 3), 0))
    assert float(tf.reduce_mean(metrics["accuracy"])) > 0.8  # chance is 0.25
    assert step.experimental_get_tracing_count() == 1
