"""The GRU against a plain loop: values, the derivative through time, first weights, weight normalisation."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.networks.gru import GRU
from metarun.algorithms.networks.options import GRUOptions

STEPS, BATCH, INPUTS, OUTPUTS = 6, 3, 4, 2
KINDS = [{"activation": kind, "weight_norm": norm} for kind in ("relu", "tanh") for norm in (True, False)]
KINDS += [{"activation": kind, "weight_norm": False, "layer_norm": True} for kind in ("relu", "tanh")]


def network(units=5, **options):
    one = GRU(GRUOptions(units=units, **options), INPUTS, OUTPUTS, "float64", seed=1)
    for name in ("bias", "head/bias", "input/gain", "recurrent/gain", "recurrent/bias"):
        if name in one.parameters:
            shape, seed = one.parameters[name].shape, (0, len(name))
            one.parameters[name].assign_add(tf.random.stateless_normal(shape, seed, dtype="float64"))
    return one


def inputs():
    return tf.constant(np.random.default_rng(0).normal(size=(STEPS, BATCH, INPUTS)))


def layer_norm(x, gain, bias):
    mean, variance = tf.nn.moments(x, axes=[1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-8) * gain + bias


def plain(one, weights, xs, reset_inside=False, apart=False):
    """Compute a GRU as the paper's code does.

    `reset_inside`: the original GRU, (r * h) U_c instead of r * (h U_c). `apart`: layer norm of each gate by itself.
    """
    h, outputs, units = tf.zeros((xs.shape[1], one.units), tf.float64), [], one.units
    act = tf.nn.relu if one.options.activation == "relu" else tf.tanh
    cuts = [slice(0, 2 * units), slice(2 * units, 3 * units)]
    if apart:
        cuts = [slice(gate * units, (gate + 1) * units) for gate in range(3)]

    def normed(product, gain, bias):
        if gain is None:
            return product + (0 if bias is None else bias)
        return tf.concat([layer_norm(product[:, cut], gain[cut], bias[cut]) for cut in cuts], axis=1)

    for x in tf.unstack(xs):
        x_r, x_u, x_c = tf.split(normed(x @ weights.input, weights.input_gain, weights.bias), 3, axis=1)
        carried = normed(h @ weights.recurrent, weights.recurrent_gain, weights.recurrent_bias)
        h_r, h_u, h_c = tf.split(carried, 3, axis=1)
        r, u = tf.sigmoid(x_r + h_r), tf.sigmoid(x_u + h_u)
        c = act(x_c + ((r * h) @ weights.recurrent[:, 2 * units :] if reset_inside else r * h_c))
        h = (1 - u) * h + u * c
        outputs.append(h @ weights.head + weights.head_bias)
    return tf.stack(outputs)


def loss_and_gradients(one, unroll, xs):
    parameters = {name: tf.convert_to_tensor(value) for name, value in one.parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch((parameters, xs))
        outputs = unroll(one.weights(parameters), xs)
        loss = tf.reduce_sum(tf.sin(outputs) * tf.range(1.0, STEPS + 1, dtype=tf.float64)[:, None, None])
    return outputs, tape.gradient(loss, [*parameters.values(), xs])


@pytest.mark.parametrize("options", KINDS)
def test_values_and_gradients_are_those_of_a_plain_loop(options):
    """Reject the GRU with the reset gate before the product; layer norm of each gate; a gradient cut after one step."""
    one, xs = network(**options), inputs()
    outputs, gradients = loss_and_gradients(one, one.unroll, xs)
    expected, right = loss_and_gradients(one, lambda weights, xs: plain(one, weights, xs), xs)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
    for got, wanted in zip(gradients, right, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10)
    for wrong in ({"reset_inside": True}, {"apart": True})[: 1 + ("layer_norm" in options)]:
        other, _ = loss_and_gradients(one, functools.partial(plain, one, **wrong), xs)
        assert np.abs(other - expected).max() > 1e-3

    def cut(weights, xs):
        h, outputs = one.start(BATCH), []
        for x in tf.unstack(xs):
            out, h = one.step(weights, x, tf.stop_gradient(h))
            outputs.append(out)
        return tf.stack(outputs)

    _, wrong = loss_and_gradients(one, cut, xs)
    assert max(np.abs(a - b).max() for a, b in zip(wrong, right, strict=True)) > 1e-3


def test_steps_are_the_unrolled_outputs():
    """Reject h from zero at every step."""
    one, xs = network(), inputs()
    weights, h, outputs = one.weights(), one.start(BATCH), []
    for x in tf.unstack(xs):
        out, h = one.step(weights, x, h)
        outputs.append(out)
    np.testing.assert_allclose(tf.stack(outputs), one.unroll(weights, xs), atol=1e-12)
    fresh = tf.stack([one.step(weights, x, one.start(BATCH))[0] for x in tf.unstack(xs)])
    assert np.abs(fresh[1:] - one.unroll(weights, xs)[1:]).max() > 1e-3


def test_a_compiled_program_gives_the_same():
    one, xs = network(), inputs()
    compiled = tf.function(lambda xs: loss_and_gradients(one, one.unroll, xs), jit_compile=True)
    for got, wanted in zip(
        tf.nest.flatten(compiled(xs)), tf.nest.flatten(loss_and_gradients(one, one.unroll, xs)), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_first_weights():
    """Reject one matrix for all gates. Gates are drawn one by one: Xavier for inputs, orthogonal for h; biases 0."""
    one = GRU(GRUOptions(units=64), INPUTS, OUTPUTS, "float64", seed=0)
    weights = one.weights()
    for gate in range(3):
        recurrent = weights.recurrent[:, gate * 64 : (gate + 1) * 64]
        np.testing.assert_allclose(tf.transpose(recurrent) @ recurrent, np.eye(64), atol=1e-5)
    bound = np.sqrt(6 / (INPUTS + 64))
    assert 0.98 * bound < np.abs(weights.input).max() <= bound
    assert np.sqrt(6 / (INPUTS + 3 * 64)) < 0.9 * bound  # what one Xavier matrix for all gates would be bounded by
    assert not np.any(weights.bias) and not np.any(weights.head_bias)
    assert (weights.recurrent[:, :64] != weights.recurrent[:, 64:128]).numpy().any()


def test_weight_norm_starts_at_the_plain_weights_and_ignores_the_length_of_v():
    """Reject: by row, and over the whole matrix."""
    one, bare = network(), network(weight_norm=False)
    for normed, plain_weights in zip(one.weights()[:5], bare.weights()[:5], strict=True):
        np.testing.assert_allclose(normed, plain_weights, atol=1e-12)
    before = one.weights()
    one.parameters["recurrent/direction"].assign(3 * one.parameters["recurrent/direction"])
    np.testing.assert_allclose(one.weights().recurrent, before.recurrent, atol=1e-12)
    column = tf.one_hot(2, 15, dtype=tf.float64) + 1  # twice the length in column 2 alone
    one.parameters["recurrent/direction"].assign(column * one.parameters["recurrent/direction"])
    np.testing.assert_allclose(one.weights().recurrent, before.recurrent, atol=1e-12)
    one.parameters["recurrent/length"].assign(column * one.parameters["recurrent/length"])
    np.testing.assert_allclose(one.weights().recurrent, column * before.recurrent, atol=1e-12)


def test_a_forget_bias_keeps_more_of_the_memory():
    """Reject a bias of the other sign. The update gate of zeros is sigmoid(-b), and the memory keeps sigmoid(b)."""
    for options in ({}, {"weight_norm": False, "layer_norm": True}):
        one = GRU(GRUOptions(units=8, forget_bias=1.0, **options), INPUTS, OUTPUTS, "float64", seed=0)
        h = tf.ones((1, 8), tf.float64)
        weights = one.weights()._replace(recurrent=tf.zeros((8, 24), tf.float64))
        _, after = one.step(weights, tf.zeros((1, INPUTS), tf.float64), h)
        np.testing.assert_allclose(after, 1 / (1 + np.exp(-1.0)) * h, atol=1e-12)


def test_layer_norm_ignores_the_size_of_rewards():
    """Reject the plain cell, whose memory grows with its inputs."""
    xs, changes = inputs(), []
    for options in ({"layer_norm": True}, {}):
        one = network(weight_norm=False, **options)
        changes.append(np.abs(one.unroll(one.weights(), 100 * xs) - one.unroll(one.weights(), xs)).max())
    assert changes[0] < 1e-6 and changes[1] > 1
