"""The GRU against a plain loop: values, the derivative through time, first weights, weight normalisation."""

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.networks.gru import GRU
from metarun.algorithms.networks.options import GRUOptions

STEPS, BATCH, INPUTS, OUTPUTS = 6, 3, 4, 2
KINDS = [{"activation": kind, "weight_norm": norm} for kind in ("relu", "tanh") for norm in (True, False)]


def network(units=5, **options):
    one = GRU(GRUOptions(units=units, **options), INPUTS, OUTPUTS, "float64", seed=1)
    for name in ("bias", "head/bias"):
        one.parameters[name].assign(tf.random.stateless_normal(one.parameters[name].shape, (0, 1), dtype="float64"))
    return one


def inputs():
    return tf.constant(np.random.default_rng(0).normal(size=(STEPS, BATCH, INPUTS)))


def plain(one, weights, xs, reset_inside=False):
    """Compute a GRU as the paper's code does; `reset_inside`: the original GRU, (r * h) U_c instead of r * (h U_c)."""
    h, outputs, units = tf.zeros((xs.shape[1], one.units), tf.float64), [], one.units
    act = tf.nn.relu if one.options.activation == "relu" else tf.tanh
    for x in tf.unstack(xs):
        x_r, x_u, x_c = tf.split(x @ weights.input + weights.bias, 3, axis=1)
        u_r, u_u, u_c = (weights.recurrent[:, gate * units : (gate + 1) * units] for gate in range(3))
        r, u = tf.sigmoid(x_r + h @ u_r), tf.sigmoid(x_u + h @ u_u)
        c = act(x_c + ((r * h) @ u_c if reset_inside else r * (h @ u_c)))
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
    """Reject the GRU with the reset gate before the product; a gradient cut after one step."""
    one, xs = network(**options), inputs()
    outputs, gradients = loss_and_gradients(one, one.unroll, xs)
    expected, right = loss_and_gradients(one, lambda weights, xs: plain(one, weights, xs), xs)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
    for got, wanted in zip(gradients, right, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10)
    other, _ = loss_and_gradients(one, lambda weights, xs: plain(one, weights, xs, reset_inside=True), xs)
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
    for normed, plain_weights in zip(one.weights(), bare.weights(), strict=True):
        np.testing.assert_allclose(normed, plain_weights, atol=1e-12)
    before = one.weights()
    one.parameters["recurrent/direction"].assign(3 * one.parameters["recurrent/direction"])
    np.testing.assert_allclose(one.weights().recurrent, before.recurrent, atol=1e-12)
    column = tf.one_hot(2, 15, dtype=tf.float64) + 1  # twice the length in column 2 alone
    one.parameters["recurrent/direction"].assign(column * one.parameters["recurrent/direction"])
    np.testing.assert_allclose(one.weights().recurrent, before.recurrent, atol=1e-12)
    one.parameters["recurrent/length"].assign(column * one.parameters["recurrent/length"])
    np.testing.assert_allclose(one.weights().recurrent, column * before.recurrent, atol=1e-12)
