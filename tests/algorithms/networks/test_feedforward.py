"""Networks against plain numpy, against Keras, and with and without the task axis."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.adaptation import per_task
from metarun.algorithms.networks.feedforward import build
from metarun.algorithms.networks.keras_network import KerasNetwork
from metarun.algorithms.networks.layers import LEAK, activate_and_pool, batch_norm, convolution, max_pool
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.programs import program
from metarun.datasets.errors import DataError

GENERATOR = np.random.default_rng(0)


def random(*shape):
    return tf.constant(GENERATOR.normal(size=shape))


@pytest.mark.parametrize(("stride", "size"), [(1, 6), (1, 5), (2, 6), (2, 5), (2, 7), (2, 2)])
def test_convolution_with_task_kernels_is_the_ordinary_one_of_each_task(stride, size):
    x, kernels = random(3, 2, size, size, 4), random(3, 3, 3, 4, 5)
    batched = convolution(x, kernels, stride)
    for task in range(3):
        expected = tf.nn.conv2d(x[task], kernels[task], stride, "SAME")
        np.testing.assert_allclose(batched[task], expected, atol=1e-12)
        np.testing.assert_allclose(convolution(x, kernels[task], stride)[task], expected, atol=1e-12)
    wrong = tf.nn.conv2d(x[0], kernels[1], stride, "SAME")  # the kernel of another task
    assert np.abs(batched[0] - wrong).max() > 0.1


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_any_number_of_images_has_the_bits_of_a_known_number(stride):
    """Reject the library's convolution, which sums in another order; inner steps of exported learners add that up."""
    x, kernel = (tf.cast(random(*shape), tf.float32) for shape in ((1, 7, 7, 6, 16), (1, 3, 3, 16, 8)))

    def gradient(x, kernel=kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.square(convolution(x, kernel, stride))
        return tape.gradient(y, kernel)

    found, expected = program(gradient, input_signature=[tf.TensorSpec((1, None, 7, 6, 16))])(x), program(gradient)(x)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(program(gradient)(x, kernel[0]) - expected[0]).max() > 0


def test_batch_norm_against_numpy():
    x, scale, offset = random(2, 6, 3, 3, 4), random(2, 4), random(2, 4)
    for groups in (1, 3):
        y, mean, variance = batch_norm(x, scale, offset, groups, 1e-3)
        for task in range(2):
            for group in range(groups):
                rows = slice(group * 6 // groups, (group + 1) * 6 // groups)
                part = x[task, rows].numpy()
                center, spread = part.mean(axis=(0, 1, 2)), part.var(axis=(0, 1, 2))
                expected = (part - center) / np.sqrt(spread + 1e-3) * scale[task].numpy() + offset[task].numpy()
                np.testing.assert_allclose(y[task, rows], expected, atol=1e-12)
                np.testing.assert_allclose(mean[task, group], center, atol=1e-12)
                np.testing.assert_allclose(variance[task, group], spread, atol=1e-12)
    pooled = (x - tf.reduce_mean(x, [0, 1, 2, 3])).numpy()  # wrong variant: statistics over all tasks
    separate = batch_norm(x, None, tf.zeros(4, tf.float64), 1, 1e-3)[0].numpy()
    assert np.abs(pooled / x.numpy().std(axis=(0, 1, 2, 3)) - separate).max() > 0.05


def test_fused_batch_norm_equals_the_plain_one():
    x, scale, offset = (tf.cast(random(*shape), tf.float32) for shape in ((1, 8, 5, 5, 3), (3,), (3,)))
    fused = batch_norm(x, scale, offset, 1, 1e-3)
    double = batch_norm(*(tf.cast(part, tf.float64) for part in (x, scale, offset)), 1, 1e-3)
    for one, other in zip(fused, double, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_on_a_gpu_max_pooling_is_of_slices(monkeypatch):
    """Reject the library's kernel, of whose derivative XLA says on a GPU that it gives no equal bits twice."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])

    def pooled(x):
        return max_pool(x, "valid", shared=True)

    graph = tf.function(pooled).get_concrete_function(tf.TensorSpec((1, 2, 4, 4, 1))).graph
    assert "MaxPool" not in {operation.type for operation in graph.get_operations()}


def test_max_pool_valid_drops_and_same_keeps_an_odd_row():
    for size in (5, 6):
        x = random(2, 3, size, size, 4)
        for padding, length in (("valid", size // 2), ("same", (size + 1) // 2)):
            pooled = max_pool(x, padding, shared=False)
            assert pooled.shape == (2, 3, length, length, 4)
            np.testing.assert_array_equal(pooled, max_pool(x, padding, shared=True))
            np.testing.assert_array_equal(pooled[1, 2, 0, 1], np.max(x[1, 2, 0:2, 2:4], axis=(0, 1)))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_maximum_before_the_activation_gives_the_bits_of_the_paper_s_order(activation, shared):
    """Reject a gradient that is shared out among equal pixels: whole numbers make many of them, also among zeros."""
    x = tf.constant(np.random.default_rng(4).integers(-2, 3, (2, 3, 5, 6, 4)), tf.float32)
    upstream = tf.cast(random(2, 3, 3, 3, 4), tf.float32)
    act = tf.nn.relu if activation == "relu" else functools.partial(tf.nn.leaky_relu, alpha=LEAK)
    orders = (
        lambda: activate_and_pool(x, "same", shared, activation),
        lambda: max_pool(act(x), "same", shared),
    )
    found = []
    for order in orders:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = order()
        found.append((y, tape.gradient(y, x, upstream)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    equal = tf.cast(act(x) == tf.repeat(tf.repeat(found[1][0], 2, 2), 2, 3)[:, :, :5], tf.float32)
    spread = equal * tf.repeat(tf.repeat(upstream, 2, 2), 2, 3)[:, :, :5]
    assert np.abs(spread - found[0][1]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "shape", "outputs", "parameters"),
    [  # counts: kernels 9 * in * out, offset and scale (or a bias) each layer, head; the papers' nets
        (Conv4Options(downsample="stride", features="mean", norm_scale=False), (28, 28, 1), 5,
         576 + 3 * 36864 + 256 + 325),
        (Conv4Options(downsample="stride"), (28, 28, 1), 5, 576 + 3 * 36864 + 512 + 256 * 5 + 5),
        (Conv4Options(), (28, 28, 1), None, 576 + 3 * 36864 + 512),
        (Conv4Options(filters=32, norm_scale=False), (84, 84, 3), 5, 864 + 3 * 9216 + 128 + 800 * 5 + 5),
        (Conv4Options(filters=32, pool_padding="same"), (84, 84, 3), 5, 864 + 3 * 9216 + 256 + 1152 * 5 + 5),
        (MLPOptions(), (1,), 1, 80 + 1640 + 41),
        (MLPOptions(hidden=(256, 128, 64, 64), batch_norm=True, norm_scale=False), (28, 28, 1), 5,
         784 * 256 + 256 * 128 + 128 * 64 + 64 * 64 + 512 + 325),
    ],
)  # fmt: skip
def test_parameter_counts_and_output_shapes(options, shape, outputs, parameters):
    network = build(options, shape, outputs, "float32", seed=0)
    assert sum(np.prod(value.shape) for value in network.parameters.values()) == parameters
    y = network(network.parameters, tf.zeros((2, 3, *shape)))
    assert y.shape == (2, 3, network.features if outputs is None else outputs)


def test_pytorchs_first_values():
    """Check that they are uniform within 1/sqrt(fan in), so that the variance is a third of its square: LeCun's would
    be three times as much, Glorot's less in the first layer and more in the others."""
    network = build(Conv4Options(initializer="pytorch"), (28, 28, 1), None, "float64", seed=0)
    for number, fan_in in ((1, 9), (2, 576), (3, 576), (4, 576)):
        kernel = network.parameters[f"conv{number}/kernel"].numpy()
        scale = network.parameters[f"norm{number}/scale"].numpy()
        assert np.abs(kernel).max() <= fan_in**-0.5 and kernel.var() == pytest.approx(1 / (3 * fan_in), rel=0.1)
        assert 0 <= scale.min() < 0.1 and 0.9 < scale.max() <= 1 and abs(scale.mean() - 0.5) < 0.12
    again = build(Conv4Options(initializer="pytorch"), (28, 28, 1), None, "float64", seed=0)
    np.testing.assert_array_equal(again.parameters["norm1/scale"], network.parameters["norm1/scale"])
    plain = build(Conv4Options(), (28, 28, 1), None, "float64", seed=0).parameters
    assert (plain["norm1/scale"].numpy() == 1).all()
    assert plain["conv2/kernel"].numpy().var() == pytest.approx(2 / (2 * 576), rel=0.1)


def test_he_values_by_the_outputs():
    """Check the variance 2/(9 x filters); by the inputs that of the first layer would be 64 times as much."""
    network = build(Conv4Options(initializer="he"), (28, 28, 1), None, "float64", seed=0)
    for number in range(1, 5):
        kernel = network.parameters[f"conv{number}/kernel"].numpy()
        assert kernel.var() == pytest.approx(2 / 576, rel=0.15) and np.abs(kernel).max() > 2.5 * kernel.std()
        assert (network.parameters[f"norm{number}/scale"].numpy() == 1).all()


@pytest.mark.parametrize(
    "options",
    [
        Conv4Options(filters=4),
        Conv4Options(filters=4, downsample="stride", batch_norm=False),
        MLPOptions(hidden=(7,), batch_norm=True),
    ],
)
def test_shared_and_copied_parameters_give_the_same(options):
    network = build(options, (16, 16, 1), 3, "float64", seed=1)
    x = random(2, 6, 16, 16, 1)
    shared = network(network.parameters, x)
    np.testing.assert_allclose(network(per_task(network.parameters, 2), x), shared, atol=1e-10)
    groups = network(network.parameters, x, groups=3) if options.batch_norm else None
    if groups is not None:
        np.testing.assert_allclose(groups[:, 2:4], network(network.parameters, x[:, 2:4]), atol=1e-10)
        assert np.abs(groups - shared).max() > 1e-3  # wrong variant: one group


def test_running_averages_move_towards_the_batch_and_are_used():
    network = build(Conv4Options(filters=3), (16, 16, 1), None, "float64", seed=0)
    x = random(1, 8, 16, 16, 1)
    before = network(network.parameters, x, running=True)
    for _ in range(300):
        network.update_running(network.apply(network.parameters, x)[1])
    after = network(network.parameters, x, running=True)
    np.testing.assert_allclose(after, network(network.parameters, x), atol=1e-6)
    assert np.abs(after - before).max() > 0.1


def test_one_update_of_the_running_averages():
    """Reject momentum and its rest exchanged, which converges too. Ioffe and Szegedy's moving average."""
    network = build(Conv4Options(filters=3, norm_momentum=0.9), (16, 16, 1), None, "float64", seed=0)
    moments = network.apply(network.parameters, random(2, 8, 16, 16, 1))[1]
    network.update_running(moments)
    for name, first in (("mean", 0.0), ("variance", 1.0)):
        right = 0.9 * first + 0.1 * moments[f"norm1/{name}"].numpy().mean(axis=(0, 1))
        np.testing.assert_allclose(network.running[f"norm1/{name}"], right, rtol=1e-9)


@pytest.mark.parametrize("running", [False, True])
def test_epsilon_is_that_of_the_options(running):
    network = build(Conv4Options(filters=3, norm_epsilon=0.5), (16, 16, 1), None, "float64", seed=0)
    x = random(1, 8, 4, 4, 3)
    moments = (0, 1) if running else (x.numpy().mean(axis=(1, 2, 3)), x.numpy().var(axis=(1, 2, 3)))
    found = network._normalise(network.parameters, 1, x, 1, running, {})
    np.testing.assert_allclose(found, np.maximum((x - moments[0]) / np.sqrt(moments[1] + 0.5), 0), atol=1e-9)


def test_first_values_of_the_papers_code():
    """Measure standard deviations: of the head's normal numbers 1, of a normal cut at two deviations 0.88 of the one
    told."""
    conv = build(Conv4Options(head_initializer="normal"), (28, 28, 1), 50, "float64", seed=0).parameters
    assert conv["head/kernel"].numpy().std() == pytest.approx(1, rel=0.05)
    dense = build(MLPOptions(hidden=(400,), initializer="truncated_normal"), (10,), 5, "float64", seed=0).parameters
    assert dense["dense1/kernel"].numpy().std() == pytest.approx(0.0088, rel=0.05)
    assert np.abs(dense["dense1/kernel"]).max() <= 0.02


def test_the_same_seed_gives_the_same_first_values_and_another_seed_others():
    first, again, other = (build(Conv4Options(filters=4), (16, 16, 1), 5, "float32", seed) for seed in (3, 3, 4))
    for name, value in first.parameters.items():
        np.testing.assert_array_equal(value, again.parameters[name])
        if name.endswith("kernel"):
            assert np.abs(value - other.parameters[name]).max() > 1e-3
    kernels = [first.parameters[f"conv{n}/kernel"].numpy() for n in (2, 3)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # no two layers share a seed


def keras_conv4(filters: int, outputs: int) -> keras.Model:
    """Build the network of Conv4Options(filters, downsample="stride") in Keras."""
    layers = [keras.Input((16, 16, 1), dtype="float64")]
    for _ in range(4):
        layers.append(keras.layers.Conv2D(filters, 3, 2, "same", use_bias=False, dtype="float64"))
        layers.append(keras.layers.BatchNormalization(epsilon=1e-3, dtype="float64"))
        layers.append(keras.layers.ReLU(dtype="float64"))
    return keras.Sequential(
        [*layers, keras.layers.Flatten(dtype="float64"), keras.layers.Dense(outputs, dtype="float64")]
    )


def test_a_keras_model_computes_what_the_built_in_network_computes():
    built_in = build(Conv4Options(filters=4, downsample="stride"), (16, 16, 1), 3, "float64", seed=0)
    general = KerasNetwork(keras_conv4(4, 3))
    order = [f"{layer}{n}/{part}" for n in range(1, 5) for layer, part in
             (("conv", "kernel"), ("norm", "scale"), ("norm", "offset"))] + ["head/kernel", "head/bias"]  # fmt: skip
    values = [built_in.parameters[name] for name in order]
    for variable, value in zip(general.parameters.values(), values, strict=True):
        variable.assign(value)
    x = random(2, 6, 16, 16, 1)
    for groups in (1, 3):
        expected = built_in(built_in.parameters, x, groups=groups)
        np.testing.assert_allclose(general(general.parameters, x, groups=groups), expected, atol=1e-10)
    assert len(general.norm) == 8 and len(general.head) == 2


def test_images_that_vanish_are_named():
    with pytest.raises(DataError, match="images of 8x8 are too small for conv4"):
        build(Conv4Options(), (8, 8, 1), 5, "float32", seed=0)
    assert build(Conv4Options(downsample="stride"), (8, 8, 1), 5, "float32", seed=0).features == 64
