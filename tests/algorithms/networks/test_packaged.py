"""Networks of other packages: a Keras model or an object with a task axis, checked before it is trained."""

from types import SimpleNamespace
from typing import Any, Literal

import few_shot
import keras
import numpy as np
import pytest
import tensorflow as tf
from few_shot import OPTIONS, for_training

from metarun.algorithms import ALGORITHMS, networks
from metarun.algorithms.learner import Problem
from metarun.algorithms.networks.keras_network import KerasNetwork
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import PrototypicalNetworkOptions
from metarun.datasets.errors import DataError
from metarun.datasets.options import Options
from metarun.datasets.tasks import Shape
from metarun.experiments.errors import Interrupted

IMAGE = (16, 16, 1)
layers = keras.layers


class Backbone(Options):
    """Build strided convolutions with batch norm, conv4 with `downsample: stride` in Keras."""

    name: Literal["backbone"] = "backbone"
    blocks: int = 4

    def build(self, input_shape, outputs, precision, seed):
        model = keras.Sequential([keras.Input(input_shape)])
        for _ in range(self.blocks):
            model.add(layers.Conv2D(4, 3, 2, "same", use_bias=False))
            model.add(layers.BatchNormalization(momentum=0.9, epsilon=1e-3))
            model.add(layers.ReLU())
        model.add(layers.Flatten())
        if outputs is not None:
            model.add(layers.Dense(outputs))
        return model


class Building(Options):
    """Build a package's network by a function."""

    name: Literal["building"] = "building"
    function: Any

    def build(self, input_shape, outputs, precision, seed):
        return self.function(input_shape, outputs, precision, seed)


def learner(algorithm, network, protocol="inductive", precision="float64", seed=0):
    return few_shot.learner(algorithm, network, protocol, precision=precision, seed=seed, jit=False)


def batches(make_source, dtype="float64"):
    source = make_source(dtype=dtype)
    return [source.sample("train", index, 2, Shape(3, 2, 2), seed=0) for index in (0, 2, 4)]


def in_conv4s_order(names, kinds):
    """Sort names as Conv4 has them, block by block."""
    return [
        f"{kind}{number}/{part}" for number in range(1, 5) for kind, part in kinds if f"{kind}{number}/{part}" in names
    ]


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
def test_batch_norm_of_keras_follows_the_protocol(make_source, protocol):
    """Reject averages that no step moved; the other protocol. Batch norm acts like conv4's, in training and test."""
    ours = learner(PrototypicalNetworkOptions(), Conv4Options(filters=4, downsample="stride"), protocol)
    theirs = learner(PrototypicalNetworkOptions(), Backbone(), protocol)
    order = in_conv4s_order(ours.parameters, (("conv", "kernel"), ("norm", "scale"), ("norm", "offset")))
    for name, variable in zip(order, theirs.parameters.values(), strict=True):
        variable.assign(ours.parameters[name])
    untrained = learner(PrototypicalNetworkOptions(), Backbone(), protocol)
    *training, test = batches(make_source)
    for batch in training:
        expected, found = ours.train_step(batch), theirs.train_step(batch)
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-9)
    averages = in_conv4s_order(ours.network.running, (("norm", "mean"), ("norm", "variance")))
    for name, variable in zip(averages, theirs.network.running.values(), strict=True):
        np.testing.assert_allclose(variable, ours.network.running[name], rtol=1e-9, atol=1e-12)
    found = theirs.predict(test).numpy()
    np.testing.assert_allclose(found, ours.predict(test), rtol=1e-7)
    for variable, value in zip(untrained.parameters.values(), theirs.parameters.values(), strict=True):
        variable.assign(value)
    stale = np.abs(found - untrained.predict(test)).max()
    assert stale > 1e-3 if protocol == "inductive" else stale < 1e-9
    theirs.problem = Problem(False, "transductive" if protocol == "inductive" else "inductive")
    assert np.abs(found - theirs.predict(test)).max() > 1e-3


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "reptile" else ()) for name in OPTIONS]
)
def test_every_learner_trains_a_keras_model(make_source, name):
    """Reject a checkpoint without the moving averages, of learners that test with them."""
    one, other = (learner(OPTIONS[name], Backbone(blocks=2), "inductive", "float32", seed) for seed in (0, 1))
    assert all(value.dtype == tf.float32 for value in one.parameters.values())
    first, second, test = batches(make_source, "float32")
    if not ALGORITHMS[name].trains_on_queries:
        first, second = (each._replace(query_x=each.query_x[:, :0]) for each in (first, second))
    first, second = (for_training(name, each) for each in (first, second))
    before = [value.numpy() for value in one.parameters.values()]
    one.train_step(first)
    assert all((old != new.numpy()).any() for old, new in zip(before, one.parameters.values(), strict=True))
    for source, target in zip(one.variables, other.variables, strict=True):
        assert (source.numpy() != target.numpy()).any() or not source.numpy().any() or source.shape.rank < 4
        target.assign(source)
    one.train_step(second), other.train_step(second)
    values = one.evaluate(test)
    assert values["accuracy"].dtype == tf.float32 and np.isfinite(values["negative_log_likelihood"]).all()
    for key, value in other.evaluate(test).items():
        np.testing.assert_array_equal(value, values[key])
    averages = {id(value) for value in one.network.running.values()}
    saved = {id(value) for value in one.variables}
    assert not ALGORITHMS[name].has_head or not averages & saved
    assert ALGORITHMS[name].has_head or averages and averages <= saved


@pytest.mark.parametrize("name", [pytest.param("maml", marks=pytest.mark.slow), "protonet"])
def test_fault_10_a_recurrent_network_of_a_package_trains(make_source, name):
    """Reject GRU told to draw random numbers, or to keep running averages. XLA has derivatives of its loop."""

    def rows(input_shape, outputs, precision, seed):
        last = [layers.Dense(outputs)] if outputs is not None else []
        return keras.Sequential([keras.Input(input_shape), layers.Reshape((4, 64)), layers.GRU(3), *last])

    one = few_shot.learner(OPTIONS[name], Building(function=rows), "inductive", precision="float32", jit=True)
    before = [value.numpy() for value in one.parameters.values()]
    metrics = one.train_step(batches(make_source, "float32")[0])
    assert np.isfinite(metrics["loss"])
    assert all((old != new.numpy()).any() for old, new in zip(before, one.parameters.values(), strict=True))


def test_a_network_with_a_task_axis_is_taken_as_it_is():
    built = []

    def own(input_shape, outputs, precision, seed):
        built.append(networks.build(MLPOptions(hidden=(5,)), input_shape, outputs, precision, seed))
        return built[-1]

    options = Building(function=own)
    assert networks.build(options, IMAGE, 3, "float64", 0) is built[0]
    assert learner(PrototypicalNetworkOptions(), options).network is built[1]


def test_the_seed_and_the_precision_are_those_of_the_spec():
    first, again, other = (networks.build(Backbone(), IMAGE, 3, "float64", seed) for seed in (3, 3, 4))
    for one, same, another in zip(*(net.parameters.values() for net in (first, again, other)), strict=True):
        assert one.dtype == tf.float64
        np.testing.assert_array_equal(one, same)
        assert one.shape.rank < 4 or (one.numpy() != another.numpy()).any()
    assert keras.config.floatx() == "float32" and keras.config.dtype_policy().name == "float32"
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 6, *IMAGE)), tf.float32)
    half, full = (networks.build(Backbone(), IMAGE, 3, precision, 0) for precision in ("bfloat16", "float32"))
    outputs = half(half.parameters, x)
    assert outputs.dtype == tf.float32
    assert 1e-5 < np.abs(outputs - full(full.parameters, x)).max() < 0.1


class Counting(keras.layers.Layer):
    """Keep a number of its own."""

    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        return x


def sequential(*parts):
    return lambda input_shape, outputs, precision, seed: keras.Sequential([keras.Input(input_shape), *parts])


def failing(*_):
    raise KeyError("no\nweights")


@pytest.mark.parametrize(
    ("function", "outputs", "message"),
    [
        (failing, 3, r"KeyError: 'no\\nweights'"),
        (lambda *_: [1], 3, r"it is a list, no Keras model, and has no parameters, layers, .*, __call__$"),
        (lambda *_: SimpleNamespace(parameters={}), None, r"it is a SimpleNamespace, .*features, .*, update_running$"),
        (sequential(layers.Flatten(), layers.Dense(4)), 3, r"expected 3 numbers for .*\[16, 16, 1\], got .*\[4\]"),
        (sequential(layers.Conv2D(4, 3)), None, r"expected a vector for .*, got outputs of shape \[14, 14, 4\]"),
        (sequential(layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)), 3, "remove dropout.*: it draws random"),
        (sequential(Counting(name="counting"), layers.Flatten()), None, "in BatchNormalization alone, not in counting"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(function, outputs, message):
    with pytest.raises(DataError, match=f"^network building of [^:]+: .*{message}") as caught:
        networks.build(Building(function=function), IMAGE, outputs, "float32", 0)
    assert "\n" not in str(caught.value)
    assert keras.config.floatx() == "float32" and keras.config.dtype_policy().name == "float32"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def functional(mix):
    x = keras.Input((4,))
    y = layers.Dense(3)(x)
    return keras.Model(x, mix(y))


@pytest.mark.parametrize(
    ("model", "mixes"),
    [
        (functional(lambda y: layers.ReLU()(y)), False),
        (functional(lambda y: layers.LayerNormalization()(layers.Add()([y, y]))), False),
        (keras.Sequential([keras.Input((4,)), functional(lambda y: y)]), False),
        (functional(lambda y: layers.BatchNormalization()(y)), True),
        (functional(lambda y: layers.TimeDistributed(layers.BatchNormalization())(layers.Reshape((1, 3))(y))), True),
        (functional(lambda y: keras.ops.subtract(y, keras.ops.mean(y, axis=0))), True),
        (keras.Sequential([keras.Input((4,)), functional(lambda y: y + keras.ops.mean(y, axis=0))]), True),
        (functional(lambda y: Counting()(y)), True),
        (Subclassed(), True),
    ],
)
def test_whether_an_output_may_depend_on_other_examples(model, mixes):
    """Check that the inductive protocol, where it may, shows a network one query at a time."""
    model(tf.zeros((2, 4)))
    assert KerasNetwork(model).batch_norm == mixes


def test_a_stop_while_it_is_built_is_no_error_of_the_package():
    """Reject a signal that is reported as the package's mistake, and noted as the run's failure."""

    class Stopped(Options):
        name: Literal["stopped"] = "stopped"

        def build(self, *arguments):
            raise Interrupted("stopped by SIGTERM")

    with pytest.raises(Interrupted, match="SIGTERM"):
        networks.build(Stopped(), IMAGE, 3, "float32", seed=0)
