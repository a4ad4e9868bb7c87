"""The fused path against the general one: the same network as a Keras model, task after task."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.adaptation import per_task
from metarun.algorithms.learner import Problem
from metarun.algorithms.maml import MAML
from metarun.algorithms.matchingnet import MatchingNetwork
from metarun.algorithms.networks import feedforward
from metarun.algorithms.networks.keras_network import KerasNetwork
from metarun.algorithms.networks.layers import (
    TaskConvolution,
    gathered_patches,
    normalised_block,
    patches,
    patches_gradient,
)
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import MAMLOptions, MatchingNetworkOptions, PrototypicalNetworkOptions, ReptileOptions
from metarun.algorithms.programs import compiled
from metarun.algorithms.protonet import PrototypicalNetwork
from metarun.algorithms.reptile import Reptile
from metarun.datasets.tasks import Shape

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
GENERATOR = np.random.default_rng(0)
NETWORKS = {
    "stride": Conv4Options(filters=4, downsample="stride", features="mean"),
    "pool": Conv4Options(filters=4, pool_padding="same"),
    "mlp": MLPOptions(hidden=(7, 6), batch_norm=True),
}


def random(*shape, dtype="float64"):
    return tf.constant(GENERATOR.normal(size=shape), dtype)


def keras_model(options, shape, outputs, dtype):
    """Build the network of the options as a Keras model of the same precision."""
    norm = {"epsilon": 1e-3, "dtype": dtype}
    layers = [keras.Input(shape, dtype=dtype)]
    if isinstance(options, MLPOptions):
        layers.append(keras.layers.Flatten(dtype=dtype))
        for width in options.hidden:
            layers += [
                keras.layers.Dense(width, use_bias=False, dtype=dtype),
                keras.layers.BatchNormalization(**norm),
                keras.layers.ReLU(dtype=dtype),
            ]
    else:
        stride = 2 if options.downsample == "stride" else 1
        for _ in range(4):
            layers += [
                keras.layers.Conv2D(options.filters, 3, stride, "same", use_bias=False, dtype=dtype),
                keras.layers.BatchNormalization(**norm),
                keras.layers.ReLU(dtype=dtype),
            ]
            if stride == 1:
                layers.append(keras.layers.MaxPooling2D(2, padding=options.pool_padding, dtype=dtype))
        pool = keras.layers.GlobalAveragePooling2D if options.features == "mean" else keras.layers.Flatten
        layers.append(pool(dtype=dtype))
    if outputs is not None:
        layers.append(keras.layers.Dense(outputs, dtype=dtype))
    return keras.Sequential(layers)


def general(options, network, shape, outputs, dtype):
    """Build a KerasNetwork with the values of `network`, in Keras' order of them."""
    wrapped = KerasNetwork(keras_model(options, shape, outputs, dtype))
    for variable, value in zip(wrapped.parameters.values(), _in_keras_order(network), strict=True):
        variable.assign(value)
    return wrapped


def _in_keras_order(network):
    layers = sorted({name.split("/")[0] for name in network.parameters if not name.startswith(("norm", "head"))})
    order = [
        f"{layer}/{part}"
        for n, first in enumerate(layers, start=1)
        for layer, part in ((first, "kernel"), (f"norm{n}", "scale"), (f"norm{n}", "offset"))
    ]
    order += [name for name in ("head/kernel", "head/bias") if name in network.parameters]
    return [network.parameters[name] for name in order]


def gradients_of(learner, batch):
    """Return the loss and what the outer optimizer would get, in Keras' order of the network's parameters."""
    if isinstance(learner, MAML):
        metrics, gradients = learner.compiled_gradient(batch)
        return float(metrics["loss"]), gradients
    adapted, _, losses = learner.compiled_learn(batch)
    return float(tf.reduce_mean(losses)), adapted


SECOND_ORDER = MAMLOptions(inner_lr=0.1, adapt="all")
FIRST_ORDER = MAMLOptions(inner_lr=0.1, first_order=True)
REPTILE = ReptileOptions(inner_lr=0.05, inner_optimizer="sgd", inner_steps=2, inner_batch=4)
QUICK = [
    (SECOND_ORDER, "pool", "float64"),
    (SECOND_ORDER, "mlp", "float64"),
    (REPTILE, "mlp", "float32"),
]
EVERY = [
    (algorithm, name, dtype)
    for algorithm in (SECOND_ORDER, SECOND_ORDER.model_copy(update={"inner_steps": 2}), FIRST_ORDER, REPTILE)
    for name in NETWORKS
    for dtype in TOLERANCE
]


@pytest.mark.parametrize(
    ("algorithm", "name", "dtype"),
    QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in EVERY if case not in QUICK],
)
def test_gradient_learners_equal_the_keras_path(make_source, algorithm, name, dtype):
    options = NETWORKS[name]
    batch = make_source(dtype=dtype).sample("train", 0, 2, Shape(3, 2, 2), seed=0)
    fast = feedforward.build(options, (16, 16, 1), 3, dtype, seed=0, fuse=name != "mlp")
    slow = general(options, fast, (16, 16, 1), 3, dtype)
    kind = MAML if isinstance(algorithm, MAMLOptions) else Reptile
    problem, optimizer = Problem(False, "transductive"), keras.optimizers.SGD
    loss, gradients = gradients_of(kind(fast, optimizer(1.0), algorithm, problem, jit_compile=True), batch)
    expected, wanted = gradients_of(kind(slow, optimizer(1.0), algorithm, problem, jit_compile=False), batch)
    assert loss == pytest.approx(expected, abs=TOLERANCE[dtype])
    fast.parameters, kept = gradients, fast.parameters
    for got, other in zip(_in_keras_order(fast), wanted.values(), strict=True):
        np.testing.assert_allclose(got, other, atol=TOLERANCE[dtype] * max(1.0, float(np.abs(other).max())))
    fast.parameters = kept
    if isinstance(algorithm, MAMLOptions) and not algorithm.first_order and dtype == "float64":
        other = algorithm.model_copy(update={"first_order": True})  # the wrong variant
        _, wrong = gradients_of(kind(fast, optimizer(1.0), other, problem, jit_compile=True), batch)
        assert max(float(np.abs(gradients[key] - wrong[key]).max()) for key in wrong) > 1e-6


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PrototypicalNetwork, PrototypicalNetworkOptions()),
        (MatchingNetwork, MatchingNetworkOptions(full_context_embeddings=True, attention_steps=2)),
    ],
)
def test_embedding_learners_equal_the_keras_path(make_source, kind, options, dtype):
    batch = make_source(dtype=dtype).sample("train", 0, 2, Shape(3, 2, 2), seed=0)
    fast = feedforward.build(NETWORKS["pool"], (16, 16, 1), None, dtype, seed=0, fuse=True)
    model = keras_model(NETWORKS["pool"], (16, 16, 1), None, dtype)
    for variable, value in zip(model.trainable_variables, _in_keras_order(fast), strict=True):
        variable.assign(value)
    learner = kind(fast, keras.optimizers.SGD(1.0), options, Problem(False, "transductive"), jit_compile=True)

    def plain_loss():
        losses = []
        for task in range(2):
            images = tf.concat([batch.support_x[task], batch.query_x[task]], 0)
            embedded = model(images, training=True)[None]
            logits = learner.logits(learner.own, embedded[:, :6], embedded[:, 6:], 3)
            losses.append(tf.nn.sparse_softmax_cross_entropy_with_logits(batch.query_y[task], logits[0]))
        return tf.reduce_mean(losses)

    with tf.GradientTape() as tape:
        expected = plain_loss()
    wanted = tape.gradient(expected, model.trainable_variables)
    before = {name: value.numpy() for name, value in learner.parameters.items()}
    metrics = tf.function(learner.train_step)(batch)
    assert float(metrics["loss"]) == pytest.approx(float(expected), abs=TOLERANCE[dtype])
    fast.parameters = {name: before[name] - value.numpy() for name, value in fast.parameters.items()}  # SGD's step
    for got, other in zip(_in_keras_order(fast), wanted, strict=True):
        np.testing.assert_allclose(got, other, atol=TOLERANCE[dtype] * max(1.0, float(np.abs(other).max())))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize(("stride", "size"), [(1, 6), (2, 5), (2, 6)])
def test_three_maps_are_each_others_derivatives(monkeypatch, stride, size, fuse):
    """Check that second derivatives of convolutions with a kernel per task agree, as patches (small) and one by one."""
    x, kernel = random(2, 3, size, size, 2), random(2, 3, 3, 2, 4)

    def values(kind):
        one = TaskConvolution(tuple(x.shape), tuple(kernel.shape), stride, fuse)
        one.small = kind == "small"

        def convolve(x, kernel):
            if kind == "plain":
                return tf.stack([tf.nn.conv2d(x[task], kernel[task], stride, "SAME") for task in range(2)])
            return one.outputs(x, kernel)

        with tf.GradientTape() as outer:
            outer.watch((x, kernel))
            with tf.GradientTape() as inner:
                inner.watch((x, kernel))
                y = tf.reduce_sum(tf.sin(convolve(x, kernel)))
            first = inner.gradient(y, (x, kernel))
            mixed = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(tf.cos(first[1]))
        return [y, *first, *outer.gradient(mixed, (x, kernel))]

    expected = values("plain")
    for kind in ("small", "large"):
        for got, other in zip(values(kind), expected, strict=True):
            np.testing.assert_allclose(got, other, atol=1e-10)


@pytest.mark.parametrize(("stride", "size"), [(1, 6), (1, 5), (2, 6), (2, 5), (2, 2), (1, 1)])
def test_patches_and_their_adjoint(stride, size):
    x = random(2, 3, size, size, 4)
    seen = patches(x, stride)
    np.testing.assert_array_equal(gathered_patches(x, stride), seen)
    spread = random(*seen.shape)
    back = patches_gradient(spread, tuple(x.shape), stride)
    assert float(tf.reduce_sum(seen * spread)) == pytest.approx(float(tf.reduce_sum(x * back)), rel=1e-12)


@pytest.mark.parametrize("pool", [None, "valid"])
def test_a_large_block_is_left_to_the_library(monkeypatch, pool):
    """Compare value, gradient, and the gradient of the gradient, with the plain formula in float64."""
    monkeypatch.setattr("metarun.algorithms.networks.layers.LARGE", 1)
    x, offset, scale = random(2, 3, 6, 6, 4), random(2, 4), random(2, 4)

    def values(dtype, fuse):
        inputs = [tf.cast(each, dtype) for each in (x, scale, offset)]
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                y, *_ = normalised_block(*inputs, groups=1, epsilon=1e-3, pool=pool, fuse=fuse)
                total = tf.reduce_sum(tf.sin(y))
            first = inner.gradient(total, inputs)
            mixed = tf.add_n([tf.reduce_sum(each**2) for each in first])
        return [y, *first, *outer.gradient(mixed, inputs)]

    for got, expected in zip(values(tf.float32, True), values(tf.float64, False), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_compiled_programs_have_two_derivatives():
    program = compiled(lambda x, y: tf.sin(x) * y)
    x, y = random(3), random(3)

    def values(function):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch((x, y))
            with tf.GradientTape() as inner:
                inner.watch((x, y))
                z = function(x, y)
            first = inner.gradient(z, (x, y))
        return [z, *first, *outer.gradient(first[0], (x, y)), outer.gradient(first[1], x)]

    for got, expected in zip(values(program), values(lambda x, y: tf.sin(x) * y), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["stride", "pool"])
def test_bfloat16_is_near_float32_and_keeps_what_is_exact(name):
    """Check that outputs and statistics are float32; a network whose last layer were bfloat16 would have coarser
    outputs."""
    half = feedforward.build(NETWORKS[name], (16, 16, 1), 3, "bfloat16", seed=0, fuse=True)
    full = feedforward.build(NETWORKS[name], (16, 16, 1), 3, "float32", seed=0, fuse=True)
    assert {value.dtype for value in half.parameters.values()} == {tf.float32}
    x = random(2, 6, 16, 16, 1, dtype="float32")
    outputs, moments = half.apply(per_task(half.parameters, 2), x)
    expected = full(per_task(full.parameters, 2), x)
    assert outputs.dtype == tf.float32 and all(value.dtype == tf.float32 for value in moments.values())
    np.testing.assert_allclose(outputs, expected, atol=0.1)
    assert np.abs(outputs - expected).max() > 1e-5  # bfloat16 was used
    assert np.abs(outputs - tf.cast(tf.cast(outputs, tf.bfloat16), tf.float32)).max() > 0
