"""Reptile against closed forms and against a plain loop in numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from quadratic import QuadraticProblem, quadratic_tasks, theta_network

from metarun.algorithms import ALGORITHMS
from metarun.algorithms.learner import Problem, Support
from metarun.algorithms.networks.feedforward import build
from metarun.algorithms.networks.options import MLPOptions
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.optimizers import outer_optimizer
from metarun.algorithms.options import ReptileOptions
from metarun.algorithms.reptile import BETA2, EPSILON, Reptile, added_moment
from metarun.datasets.options import SinusoidOptions
from metarun.datasets.sinusoid import SinusoidSource
from metarun.datasets.tasks import Episode, Shape


def learner(network, problem, epsilon=1.0, **options):
    return Reptile(network, keras.optimizers.SGD(epsilon), ReptileOptions(**options), problem, jit_compile=False)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [1, 4])
def test_quadratic_tasks_have_the_closed_form(steps, reduction):
    """Compare with theta + eps * mean_i or sum_i of (1 - (1 - a)^k)(c_i - theta)."""
    alpha, epsilon, theta = 0.2, 0.5, np.array([2.0, -1.0])
    centers = np.array([[1.0, 0.5], [-3.0, 2.0]])
    network = theta_network(theta)
    options = dict(inner_lr=alpha, inner_optimizer="sgd", inner_steps=steps, inner_batch=2, task_reduction=reduction)
    learner(network, QuadraticProblem(), epsilon, **options).train_step(quadratic_tasks(centers))
    moves = (1 - (1 - alpha) ** steps) * (centers - theta)
    expected = theta + epsilon * getattr(np, reduction)(moves, axis=0)
    np.testing.assert_allclose(network.parameters["theta"].numpy(), expected, rtol=1e-6)
    other = theta + epsilon * getattr(np, "sum" if reduction == "mean" else "mean")(moves, axis=0)
    assert np.abs(network.parameters["theta"].numpy() - other).max() > 0.1


def test_serial_moves_after_each_task():
    alpha, theta, centers = 0.3, np.array([2.0]), np.array([[1.0], [-3.0]])
    options = dict(inner_lr=alpha, inner_optimizer="sgd", inner_steps=2, inner_batch=2)
    expected, shrink = theta, 1 - (1 - alpha) ** 2
    for center in centers:
        expected = expected + 0.5 * shrink * (center - expected)
    network, batched = theta_network(theta), theta_network(theta)
    learner(network, QuadraticProblem(), 0.5, serial=True, **options).train_step(quadratic_tasks(centers))
    learner(batched, QuadraticProblem(), 0.5, **options).train_step(quadratic_tasks(centers))
    np.testing.assert_allclose(network.parameters["theta"].numpy(), expected, rtol=1e-6)
    assert np.abs(batched.parameters["theta"].numpy() - expected).max() > 0.1


def adam_loop(theta, centers, rate, steps, epsilon, beta1=0.0, reset=False):
    """Run algorithm 1 with the Adam of the paper's code, in numpy: tasks continue the second moments and step count."""
    second, first, time = np.zeros_like(theta), np.zeros_like(theta), 0
    for center in centers:
        adapted = theta.copy()
        if reset:
            second, time = np.zeros_like(theta), 0
        first = np.zeros_like(theta)
        for _ in range(steps):
            gradient, time = adapted - center, time + 1
            first = beta1 * first + (1 - beta1) * gradient
            second = BETA2 * second + (1 - BETA2) * gradient**2
            corrected = rate * np.sqrt(1 - BETA2**time) / (1 - beta1**time if beta1 else 1.0)
            adapted = adapted - corrected * first / (np.sqrt(second) + EPSILON)
        theta = theta + epsilon * (adapted - theta)
    return theta


def test_serial_takes_one_step_of_the_schedule_however_many_tasks():
    """Reject annealing within a step, and thrice as fast. Three tasks move by the same epsilon each."""
    network = theta_network([0.0])
    options = ReptileOptions(inner_lr=0.1, inner_optimizer="sgd", inner_steps=1, inner_batch=1, serial=True)
    told = OptimizerOptions(name="sgd", learning_rate=1.0, schedule="linear")
    optimizer = outer_optimizer(told, 4, ALGORITHMS["reptile"].updates(options, 3))
    model = Reptile(network, optimizer, options, QuadraticProblem(), jit_compile=False)
    rates = []
    for _ in range(3):
        rates.append(float(model.optimizer.learning_rate))
        model.train_step(quadratic_tasks([[1.0], [1.0], [1.0]]))
    assert rates == [1.0, 0.75, 0.5]
    assert 1 - network.parameters["theta"].numpy()[0] == pytest.approx((0.9 * 0.925 * 0.95) ** 3)


def test_an_outer_adam_counts_every_task_of_serial():
    """Reject the bias correction of a first update in each of them, which makes the third 1.6 times as long. Adam's
    steps on gradients of one size and sign equal its learning rate."""
    network = theta_network([0.0])
    options = ReptileOptions(inner_lr=0.1, inner_optimizer="sgd", inner_steps=1, inner_batch=1, serial=True)
    model = Reptile(network, outer_optimizer(OptimizerOptions(), 4), options, QuadraticProblem(), jit_compile=False)
    for _ in range(2):
        model.train_step(quadratic_tasks([[1e6], [1e6], [1e6]]))
    np.testing.assert_allclose(network.parameters["theta"].numpy(), [6e-3], rtol=1e-4)


def test_serial_adam_is_a_loop_over_tasks():
    theta, centers = np.array([2.0, -1.0]), np.array([[1.0, 4.0], [-3.0, 2.0], [0.5, 0.0]])
    network = theta_network(theta)
    model = learner(network, QuadraticProblem(), 0.5, inner_lr=0.1, inner_steps=3, inner_batch=2, serial=True)
    model.train_step(quadratic_tasks(centers))
    result = network.parameters["theta"].numpy()
    np.testing.assert_allclose(result, adam_loop(theta, centers, 0.1, 3, 0.5), rtol=1e-6)
    assert np.abs(result - adam_loop(theta, centers, 0.1, 3, 0.5, beta1=0.9)).max() > 1e-3
    assert np.abs(result - adam_loop(theta, centers, 0.1, 3, 0.5, reset=True)).max() > 1e-3
    assert int(model.steps_taken) == 9


def test_the_chained_second_moment_is_that_of_the_tasks_in_a_row():
    generator = np.random.default_rng(0)
    squares = generator.random((3, 4, 2))  # tasks, steps, elements
    start = generator.random(2)
    chained = start.copy()
    for square in squares.reshape(12, 2):
        chained = BETA2 * chained + (1 - BETA2) * square
    ends = []
    for task in squares:
        moment = start.copy()
        for square in task:
            moment = BETA2 * moment + (1 - BETA2) * square
        ends.append(moment)
    before, after = tf.constant(start), tf.constant(np.stack(ends))
    result = BETA2**12 * before + added_moment(before, after, 4)
    shared = BETA2**12 * before + added_moment(before, after[:2], 4, behind=1) + added_moment(before, after[2:], 4)
    np.testing.assert_allclose(shared, chained, rtol=1e-12)
    np.testing.assert_allclose(result, chained, rtol=1e-12)
    assert np.abs(np.mean(ends, axis=0) - chained).max() > 1e-4  # wrong variant: the mean over tasks


def test_batched_adam_hands_on_the_second_moment_of_all_tasks():
    """Reject the decay and the number of steps of one task. The moment is that of the tasks in a row, each of which
    begins where the meta-batch does."""
    theta, centers, start = np.array([2.0, -1.0]), np.array([[1.0, 4.0], [-3.0, 2.0], [0.5, 0.0]]), np.array([0.5, 2.0])
    chained = start.copy()
    for center in centers:
        adapted, second = theta.copy(), start.copy()
        for time in range(11, 14):
            gradient = adapted - center
            second = BETA2 * second + (1 - BETA2) * gradient**2
            chained = BETA2 * chained + (1 - BETA2) * gradient**2
            adapted -= 0.1 * np.sqrt(1 - BETA2**time) * gradient / (np.sqrt(second) + EPSILON)
    model = learner(theta_network(theta), QuadraticProblem(), 0.5, inner_lr=0.1, inner_steps=3, inner_batch=2)
    model.moments["theta"].assign(start)
    model.steps_taken.assign(10)
    model.train_step(quadratic_tasks(centers))
    np.testing.assert_allclose(model.moments["theta"].numpy(), chained, rtol=1e-9)
    assert int(model.steps_taken) == 19


def test_training_and_test_have_mini_batches_of_their_own_size():
    model = learner(
        theta_network([2.0]), QuadraticProblem(), inner_lr=0.1, inner_steps=2, inner_batch=2, test_inner_batch=3
    )
    asked, order = [], model._order

    def watched(batch, steps, size):
        asked.append(size)
        return order(batch, steps, size)

    model._order = watched
    model.learn(quadratic_tasks([[1.0]]))
    model.predict(quadratic_tasks([[1.0]]))
    assert asked == [2, 3]


def test_evaluation_starts_from_the_moments_of_training_and_leaves_them():
    network = theta_network([2.0])
    model = learner(network, QuadraticProblem(), inner_lr=0.1, inner_steps=3, inner_batch=2)
    fresh = model.evaluate(quadratic_tasks([[5.0]]))["mse"].numpy()
    model.train_step(quadratic_tasks([[90.0], [-90.0]]))
    network.parameters["theta"].assign([2.0])
    before = [variable.numpy() for variable in model.variables]
    first, second = (model.evaluate(quadratic_tasks([[5.0]]))["mse"].numpy() for _ in range(2))
    assert first == second and abs(first - fresh) > 1e-3
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_outputs_along_many_steps_are_those_of_a_plain_loop():
    """Reject one step more or less, and other mini-batches."""
    batch = SinusoidSource(SinusoidOptions(), "float64").sample("test", 0, 3, Shape(1, 5, 7), 0)
    network = build(MLPOptions(hidden=(8,)), (1,), 1, "float64", 0)
    model = learner(network, Problem(True, "inductive"), inner_lr=0.02, inner_batch=2, test_inner_steps=13)
    support = Support.of_task(batch)
    order, state = model._order(support, 13, 2), model._start(support)
    expected = [network(state[0], batch.query_x)]
    for number in range(13):
        state = model._inner_step(*state, support, order, number)[:2]
        if number + 1 in (1, 2, 5, 10, 13):
            expected.append(network(state[0], batch.query_x))
    np.testing.assert_allclose(model.predict(batch), expected, rtol=1e-9)
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2, 3)).min() > 1e-3


def test_mini_batches_pass_through_the_support_set_without_replacement():
    model = learner(theta_network([0.0]), QuadraticProblem(), inner_lr=0.1)
    batch = quadratic_tasks([[1.0], [2.0]], examples=6)
    order = model._order(Support.of_task(batch), steps=5, size=4).numpy()  # 20 rows: three passes and a third
    assert order.shape == (2, 5, 4)
    passes = order.reshape(2, 20)
    for task in range(2):
        for start in (0, 6, 12):
            assert sorted(passes[task, start : start + 6]) == list(range(6))
    assert (passes[0] != passes[1]).any() and (passes[0, :6] != passes[0, 6:12]).any()
    alone = model._order(Support.of_task(Episode(*(part[1:] for part in batch))), steps=5, size=4).numpy()
    np.testing.assert_array_equal(alone[0], order[1])


def test_regression_learns():
    source = SinusoidSource(SinusoidOptions())
    network = build(MLPOptions(hidden=(32, 32)), (1,), 1, "float32", seed=0)
    model = learner(network, Problem(True, "inductive"), 0.5, inner_lr=0.02, inner_optimizer="sgd", inner_steps=8,
                    inner_batch=10)  # fmt: skip
    test = source.sample("test", 0, 100, Shape(1, 10, 10), 0)
    step = tf.function(lambda number: model.train_step(source.sample("train", number, 5, Shape(1, 10, 0), 0)))
    before = float(tf.reduce_mean(model.evaluate(test)["mse"]))
    for number in range(300):
        step(tf.constant(5 * number, tf.int64))
    assert float(tf.reduce_mean(model.evaluate(test)["mse"])) < 0.8 * before
