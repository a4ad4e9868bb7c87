"""The formula for floating-point operations against the products in the traced graph."""

import few_shot
import pytest
import tensorflow as tf
from few_shot import OPTIONS, for_training
from products import products

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import MAMLOptions, MatchingNetworkOptions
from metarun.datasets.tasks import Shape

SHAPE = Shape(3, 2, 4)


def learner(options, network, protocol="transductive"):
    return few_shot.learner(options, network, protocol, (28, 28, 1))


CONV = Conv4Options(filters=4, downsample="stride")
MAML_CASES = [
    (MAMLOptions(inner_lr=0.1), CONV, "transductive"),
    (MAMLOptions(inner_lr=0.1, inner_steps=3), CONV, "transductive"),
    (MAMLOptions(inner_lr=0.1, inner_steps=2, first_order=True), CONV, "transductive"),
    (MAMLOptions(inner_lr=0.1, inner_steps=2, adapt="head"), CONV, "transductive"),
    (MAMLOptions(inner_lr=0.1), CONV, "inductive"),
    (MAMLOptions(inner_lr=0.1), Conv4Options(filters=4), "transductive"),
    (MAMLOptions(inner_lr=0.1, inner_steps=2), MLPOptions(hidden=(6, 5)), "transductive"),
]


@pytest.mark.parametrize(
    ("options", "network", "protocol"),
    [pytest.param(*case, marks=() if case in MAML_CASES[3:5] else pytest.mark.slow) for case in MAML_CASES],
)
def test_maml(make_source, options, network, protocol):
    """Reject a count without second order's share, which would be lower by more than half."""
    one, batch = learner(options, network, protocol), make_source(size=28).sample("train", 0, 2, SHAPE, seed=0)
    one.compiled_gradient = one.meta_gradient
    counted = products(tf.function(one.meta_gradient).get_concrete_function(batch))
    assert 2 * one.operations(SHAPE) == pytest.approx(counted, rel=0.01)


def test_reptile(make_source):
    options = OPTIONS["reptile"].model_copy(update={"inner_steps": 1})  # the graph holds the loop's body once
    one, batch = learner(options, CONV), make_source(size=28).sample("train", 0, 2, SHAPE, seed=0)
    assert 2 * one.operations(SHAPE) == products(tf.function(one.learn).get_concrete_function(batch))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (OPTIONS["protonet"].model_copy(update={"distance": "cosine"}), SHAPE),  # the other distance is no product
        (MatchingNetworkOptions(), SHAPE),
        (OPTIONS["r2d2"], SHAPE),
        (MatchingNetworkOptions(full_context_embeddings=True, attention_steps=3), Shape(1, 1, 4)),  # scans of one step
    ],
)
def test_embedding(make_source, options, shape):
    one, batch = learner(options, Conv4Options(filters=4)), make_source(size=28).sample("train", 0, 1, shape, seed=0)
    counted = products(tf.function(one.train_step).get_concrete_function(batch))
    assert one.operations(shape) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("options", [OPTIONS["protonet"].model_copy(update={"distance": "cosine"}),
                                     MatchingNetworkOptions(), OPTIONS["r2d2"]])  # fmt: skip
def test_comparisons(options):
    """Count them alone: beside the network's they are less than a thousandth."""
    one = learner(options, Conv4Options(filters=4))
    features = (tf.TensorSpec((1, n, one.network.features)) for n in (6, 12))

    def compare(supports, queries):
        return one.logits(one.own, supports, queries, 3)

    assert 2 * one.comparison(3, 6, 12) == products(tf.function(compare).get_concrete_function(*features)) > 0


@pytest.mark.parametrize("name", ["baseline", "baseline++", "simpleshot"])
def test_classifiers(make_source, name):
    """Count the images of a mini-batch."""
    one, batch = (
        learner(OPTIONS[name], Conv4Options(filters=4)),
        make_source(size=28).sample("train", 0, 1, SHAPE, seed=0),
    )
    images = for_training(name, batch)
    counted = products(tf.function(one.train_step).get_concrete_function(images))
    assert len(images.x) * one.operations(SHAPE) == pytest.approx(counted, rel=0.03)


def test_every_algorithm_is_counted():
    """Count all but RL^2, which is in test_rl2.py."""
    learning = {name for name, entry in ALGORITHMS.items() if KINDS[entry.kind].is_trained}
    classifiers = {"baseline", "baseline++", "simpleshot"}
    assert learning == {"maml", "reptile", "protonet", "matchingnet", "r2d2", "rl2"} | classifiers
