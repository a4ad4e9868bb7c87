"""The meta-gradient against closed forms and against central differences."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from quadratic import QuadraticProblem, quadratic_tasks, theta_network

from metarun.algorithms.adaptation import predict_queries, recorded_steps
from metarun.algorithms.learner import Problem
from metarun.algorithms.maml import MAML, adapted_parameters, maml
from metarun.algorithms.memory import peak_bytes
from metarun.algorithms.metrics import mean_squared_error, regression_metrics
from metarun.algorithms.networks import keras_network
from metarun.algorithms.networks.feedforward import build
from metarun.algorithms.networks.keras_network import KerasNetwork
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import MAMLOptions
from metarun.datasets.options import SinusoidOptions
from metarun.datasets.sinusoid import SinusoidSource
from metarun.datasets.tasks import Episode, Shape

CLASSIFY = Problem(regression=False, protocol="transductive")


def learner(network, problem, **options):
    optimizer = keras.optimizers.SGD(1.0)
    return MAML(network, optimizer, MAMLOptions(**options), problem, jit_compile=False)


@pytest.mark.parametrize(("steps", "first_order"), [(1, False), (1, True), (3, False), (3, True)])
def test_quadratic_tasks_have_the_closed_form(steps, first_order):
    """Compare with the closed form: L_i = |theta - c_i|^2 / 2: theta_i' - c = (1 - a)^k (theta - c), whose derivative
    is another (1 - a)^k."""
    alpha, theta, centers = 0.3, np.array([2.0, -1.0]), np.array([[1.0, 0.5], [-3.0, 2.0], [0.0, 4.0]])
    model = learner(
        theta_network(theta), QuadraticProblem(), inner_lr=alpha, inner_steps=steps, first_order=first_order
    )
    gradient = model.meta_gradient(quadratic_tasks(centers))[1]["theta"].numpy()
    shrink = (1 - alpha) ** steps
    second, first = (shrink**2 * (theta - centers)).mean(axis=0), (shrink * (theta - centers)).mean(axis=0)
    right, wrong = (first, second) if first_order else (second, first)
    np.testing.assert_allclose(gradient, right, rtol=1e-12)
    assert np.abs(gradient - wrong).max() > 0.1


def test_outputs_along_many_steps_are_those_after_each_recorded_number():
    """Compare with c_i + (1 - a)^k (theta - c_i), which no other k gives."""
    alpha, theta, centers = 0.1, np.array([2.0, -1.0]), np.array([[1.0, 0.5], [-3.0, 2.0]])
    model = learner(theta_network(theta), QuadraticProblem(), inner_lr=alpha, inner_steps=1, test_inner_steps=12)
    outputs = model.predict(quadratic_tasks(centers)).numpy()[:, :, 0]
    expected = [centers + (1 - alpha) ** number * (theta - centers) for number in (0, 1, 2, 5, 10, 12)]
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    assert np.abs(np.diff(expected, axis=0)).min() > 1e-3


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0, [0]),
        (1, [0, 1]),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (11, [0, 1, 2, 5, 10, 11]),
        (50, [0, 1, 2, 5, 10, 20, 50]),
        (1000, [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
    ],
)
def test_a_long_adaptation_is_looked_at_less_often_as_it_goes_on(steps, expected):
    assert recorded_steps(steps) == expected


def test_sum_over_tasks_is_the_mean_times_the_tasks():
    tasks = quadratic_tasks(np.array([[1.0], [4.0], [-2.0]]))
    gradients = [
        learner(theta_network([3.0]), QuadraticProblem(), inner_lr=0.1, task_reduction=reduction)
        .meta_gradient(tasks)[1]["theta"].numpy()
        for reduction in ("mean", "sum")
    ]  # fmt: skip
    np.testing.assert_allclose(gradients[1], 3 * gradients[0], rtol=1e-12)


def meta_loss(model, batch):
    """Return the loss of the queries after adaptation, without its derivative."""
    theta = {name: tf.convert_to_tensor(value) for name, value in model.parameters.items()}
    adapted, protocol = model.adapt(theta, batch)[0], model.problem.protocol
    outputs = predict_queries(model.network, adapted, batch.support_x, batch.query_x, protocol)
    return float(tf.reduce_mean(model.problem.loss(outputs, batch.query_y)))


def directional_difference(model, batch, directions, epsilon=1e-6):
    """Return the central difference of the meta-loss along `directions`."""
    losses = []
    start = {name: variable.numpy() for name, variable in model.parameters.items()}
    for sign in (1, -1):
        for name, variable in model.parameters.items():
            variable.assign(start[name] + sign * epsilon * directions[name])
        losses.append(meta_loss(model, batch))
    for name, variable in model.parameters.items():
        variable.assign(start[name])
    return (losses[0] - losses[1]) / (2 * epsilon)


def relative_error(model, batch):
    """Return the largest error along three random directions, over the length of the gradient's random projection."""
    metrics, gradient = model.meta_gradient(batch)
    assert meta_loss(model, batch) == pytest.approx(float(metrics["loss"]), rel=1e-12)
    gradient = {name: value.numpy() for name, value in gradient.items()}
    return max(error_along(model, batch, gradient, np.random.default_rng(seed)) for seed in range(3))


def error_along(model, batch, gradient, generator):
    """Return the relative error along a random direction of length 1."""
    directions = {name: generator.normal(size=value.shape) for name, value in model.parameters.items()}
    size = sum(direction.size for direction in directions.values())
    length = np.sqrt(sum((direction**2).sum() for direction in directions.values()))
    directions = {name: direction / length for name, direction in directions.items()}
    analytic = sum((gradient[name] * directions[name]).sum() for name in directions)
    numeric = directional_difference(model, batch, directions)
    expected = np.sqrt(sum((value**2).sum() for value in gradient.values()) / size)
    return abs(analytic - numeric) / expected


NETWORKS = {
    "conv4-stride": (Conv4Options(filters=3, downsample="stride"), Problem(False, "transductive")),
    "conv4-pool-inductive": (Conv4Options(filters=3), Problem(False, "inductive")),
    "mlp-norm": (MLPOptions(hidden=(6,), batch_norm=True), Problem(False, "transductive")),
}


@pytest.mark.parametrize(
    ("name", "adapt"),
    [
        pytest.param(name, adapt, marks=pytest.mark.slow if name.startswith("conv4") and adapt != "weights" else ())
        for name in NETWORKS
        for adapt in ("weights", "all", "head")
    ],
)
def test_the_meta_gradient_agrees_with_central_differences(make_source, name, adapt):
    options, problem = NETWORKS[name]
    batch = make_source(dtype="float64", size=32).sample("train", 0, 2, Shape(3, 1, 2), seed=0)

    def error(first_order):
        network = build(options, (32, 32, 1), 3, "float64", seed=0)
        model = learner(network, problem, inner_lr=0.5, inner_steps=2, adapt=adapt, first_order=first_order)
        return relative_error(model, batch)

    assert error(first_order=False) < 1e-6
    assert error(first_order=True) > 1e-3


def test_regression_agrees_with_central_differences():
    batch = SinusoidSource(SinusoidOptions(), "float64").sample("train", 0, 3, Shape(1, 5, 5), seed=0)

    def error(first_order):
        network = build(MLPOptions(hidden=(8, 8)), (1,), 1, "float64", seed=0)
        model = learner(network, Problem(True, "inductive"), inner_lr=0.02, inner_steps=2, first_order=first_order)
        return relative_error(model, batch)

    assert error(first_order=False) < 1e-6
    assert error(first_order=True) > 1e-4


@pytest.mark.slow
def test_the_compiled_gradient_is_the_same(make_source):
    batch = make_source(dtype="float64").sample("train", 0, 2, Shape(3, 1, 2), seed=0)
    network = build(Conv4Options(filters=3), (16, 16, 1), 3, "float64", seed=0)
    plain = learner(network, CLASSIFY, inner_lr=0.5).meta_gradient(batch)[1]
    compiled = MAML(network, keras.optimizers.SGD(1.0), MAMLOptions(inner_lr=0.5), CLASSIFY)
    for name, gradient in compiled.compiled_gradient(batch)[1].items():
        np.testing.assert_allclose(gradient, plain[name], atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", pytest.param("sum", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mlp-norm", pytest.param("conv4-stride", marks=pytest.mark.slow)])
def test_saving_memory_changes_nothing(make_source, name, reduction):
    """Compare gradient and metrics; a sum over chunks in place of a mean would be twice or four times as large."""
    batch = make_source(dtype="float64").sample("train", 0, 4, Shape(3, 1, 2), seed=0)
    network = build(NETWORKS[name][0], (16, 16, 1), 3, "float64", seed=0)
    options = {"inner_lr": 0.5, "inner_steps": 2, "task_reduction": reduction}
    plain = learner(network, CLASSIFY, **options).compiled_gradient(batch)
    for option in ({"tasks_per_chunk": 2}, {"tasks_per_chunk": 1}, {"recompute_inner": True}):
        saving = learner(network, CLASSIFY, **options, **option).compiled_gradient(batch)
        for name, value in plain[0].items():
            assert float(saving[0][name]) == pytest.approx(float(value), rel=1e-12), option
        for name, gradient in plain[1].items():
            np.testing.assert_allclose(saving[1][name], gradient, rtol=1e-9, atol=1e-12, err_msg=str(option))


@pytest.mark.slow
def test_saving_memory_saves_it(make_source):
    """Reject options that change nothing. Both options lower the peak of the tensors alive at once."""
    batch = make_source(images=40, size=4).sample("train", 0, 8, Shape(3, 30, 10), seed=0)
    network = build(MLPOptions(hidden=(16, 16)), (4, 4, 1), 3, "float32", seed=0)

    def peak(**options):
        one = learner(network, CLASSIFY, inner_lr=0.5, inner_steps=4, **options)
        return peak_bytes(tf.function(one.meta_gradient).get_concrete_function(batch))

    plain = peak()
    assert peak(tasks_per_chunk=1) < 0.3 * plain and peak(recompute_inner=True) < 0.6 * plain


def in_a_layer(inner):
    """Put `inner` in a layer of the user's own, whose inner layers a model does not list."""

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.inner = inner

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x, training=False):
            return self.inner(x, training=training)

    return Block()


@pytest.mark.parametrize("inside", [False, True])
def test_a_keras_models_batch_norm_has_its_true_second_derivative(inside, monkeypatch):
    """Check that Keras stops the gradient of the mean inside the variance, which central differences do not."""
    norm = keras.layers.BatchNormalization(dtype="float64")
    norm = in_a_layer(norm) if inside else norm
    model = keras.Sequential(
        [keras.Input((3,), dtype="float64"), keras.layers.Dense(5, dtype="float64"), norm]
        + [keras.layers.Activation("tanh", dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    )
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 2, 6, 3)), generator.integers(0, 2, (2, 2, 6)).astype(np.int32)
    batch = Episode(*map(tf.constant, (x[0], y[0], x[1], y[1], y[0][:, :2], y[0])))
    network = KerasNetwork(model)
    assert len(network.norm) == 2

    def error():
        one = learner(network, CLASSIFY, inner_lr=0.5, inner_steps=2, adapt="all")
        return relative_error(one, batch)

    assert error() < 1e-6
    monkeypatch.setattr(keras_network, "exact_moments", contextlib.nullcontext)  # the wrong variant: as Keras has it
    assert error() > 1e-4


def test_adapt_chooses_the_parameters():
    network = build(Conv4Options(filters=3), (16, 16, 1), 3, "float32", seed=0)
    assert adapted_parameters(network, "head") == ["head/kernel", "head/bias"]
    weights = adapted_parameters(network, "weights")
    assert "conv1/kernel" in weights and not any(name.startswith("norm") for name in weights)
    assert adapted_parameters(network, "all") == list(network.parameters)


def test_adaptation_lifts_the_accuracy_above_chance(make_source):
    network = build(Conv4Options(filters=4), (16, 16, 1), 5, "float32", seed=0)
    model = learner(network, CLASSIFY, inner_lr=0.5, test_inner_steps=2)
    batch = make_source().sample("test", 0, 60, Shape(5, 1, 3), seed=0)
    metrics = model.evaluate(batch)
    assert abs(float(tf.reduce_mean(metrics["accuracy_0"])) - 0.2) < 0.04
    assert float(tf.reduce_mean(metrics["accuracy_2"])) > 0.35


def test_the_step_size_of_the_test_is_its_own(make_source):
    network = build(MLPOptions(hidden=(8,), batch_norm=True), (16, 16, 1), 5, "float32", seed=0)
    batch = make_source().sample("test", 0, 4, Shape(5, 1, 3), seed=0)
    both, test, training = (
        learner(network, CLASSIFY, **rates).evaluate(batch)["negative_log_likelihood"].numpy()
        for rates in ({"inner_lr": 0.1, "test_inner_lr": 0.5}, {"inner_lr": 0.5}, {"inner_lr": 0.1})
    )
    np.testing.assert_array_equal(both, test)
    assert (both != training).all()


def dense_model():
    keras.utils.set_random_seed(0)
    hidden, last = keras.layers.Dense(8, "tanh", dtype="float64"), keras.layers.Dense(1, dtype="float64")
    return keras.Sequential([keras.Input((1,), dtype="float64"), hidden, last])


def test_the_plain_function_makes_the_meta_update_of_any_keras_model():
    batch = SinusoidSource(SinusoidOptions(), "float64").sample("train", 0, 4, Shape(1, 5, 5), seed=0)
    model, other = dense_model(), dense_model()
    before = [weight.numpy() for weight in model.trainable_variables]
    network = KerasNetwork(other)
    oracle = learner(network, Problem(True, "transductive"), inner_lr=0.05, adapt="all")
    gradient = oracle.meta_gradient(batch)[1]
    assert relative_error(oracle, batch) < 1e-6
    loss = maml(model, keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.1), batch, loss="mean_squared_error")
    assert float(loss) > 0
    for weight, old, name in zip(model.trainable_variables, before, gradient, strict=True):
        np.testing.assert_allclose(weight.numpy(), old - 0.1 * gradient[name].numpy(), rtol=1e-6, atol=1e-9)


def test_the_plain_function_learns_and_refuses_what_it_cannot_differentiate():
    source, model, outer = SinusoidSource(SinusoidOptions(), "float64"), dense_model(), keras.optimizers.Adam(0.03)
    tasks = source.sample("train", 0, 8, Shape(1, 5, 5), 0)
    losses = [
        float(maml(model, keras.optimizers.SGD(0.05), outer, tasks, loss="mean_squared_error")) for _ in range(12)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    batch = source.sample("train", 0, 2, Shape(1, 5, 5), 0)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)  # an inner optimizer counts no steps
    for other in ({"momentum": 0.9}, {"learning_rate": schedule}, {"gradient_accumulation_steps": 4}):
        with pytest.raises(ValueError, match="must be plain keras.optimizers.SGD"):
            inner = keras.optimizers.SGD(**{"learning_rate": 0.05} | other)
            maml(model, inner, outer, batch, loss="mean_squared_error")
    with pytest.raises(ValueError, match="expected 'cross_entropy' or 'mean_squared_error'"):
        maml(model, keras.optimizers.SGD(0.05), outer, batch, loss="mse")
    with pytest.raises(ValueError, match="build the model first"):
        KerasNetwork(keras.Sequential([keras.layers.Dense(1)]))
    dropout = keras.layers.Dropout(0.5, name="drop")
    with pytest.raises(ValueError, match="remove drop: it draws random numbers"):
        KerasNetwork(keras.Sequential([keras.Input((2,)), dropout, keras.layers.Dense(1)]))


def test_targets_need_no_axis_of_one():
    """Reject each prediction compared with every target, which `[T, N]` and `[T, N, 1]` broadcast to where N = T."""
    predictions, targets = tf.constant([[[1.0], [2.0]], [[3.0], [5.0]]]), tf.constant([[1.0, 4.0], [3.0, 6.0]])
    for told in (targets, targets[..., None]):
        np.testing.assert_allclose(mean_squared_error(predictions, told), [2.0, 0.5])
        np.testing.assert_allclose(regression_metrics(predictions[None], told)["mse"], [2.0, 0.5])
    with pytest.raises(Exception, match="reshape"):
        mean_squared_error(predictions, targets[:, :1])


def test_a_keras_model_with_batch_norm_sees_one_task_at_a_time(make_source):
    model = keras.Sequential(
        [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    )
    network = KerasNetwork(model)
    batch = make_source().sample("train", 0, 2, Shape(3, 1, 2), seed=0)
    both = network(network.parameters, batch.support_x)
    alone = network(network.parameters, Episode(*(part[1:] for part in batch)).support_x)
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)
