"""The outer optimizers: their learning rates, and their updates against plain numpy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from few_shot import OPTIONS, learner
from quadratic import QuadraticProblem, quadratic_tasks, theta_network

from metarun.algorithms import ALGORITHMS
from metarun.algorithms.networks.options import MLPOptions
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.optimizers import BETA1, BETA2, EPSILON, outer_optimizer
from metarun.algorithms.options import ReptileOptions
from metarun.algorithms.reptile import Reptile

START = np.array([1.0, -2.0, 0.0])
CUT = {"schedule": "step", "decay_every": 3, "decay_factor": 0.1}  # of the learning rate
RATES = [0.1] * 3 + [0.01] * 3 + [0.001]


def gradient(w):
    """Return the gradient of a quadratic function; its last element is so small that Adam's epsilon matters."""
    return np.array([0.5, 2.0, 0.0]) * w + np.array([0.3, -1.0, 1e-8])


def moved(undecayed=False, **options):
    """Return the weights after seven updates by an outer optimizer, and the learning rates, which are cut twice."""
    variable = tf.Variable(START)
    told = OptimizerOptions(learning_rate=0.1, **CUT, **options)
    optimizer = outer_optimizer(told, 100, undecayed=[variable] if undecayed else [])
    optimizer.build([variable])
    rates = []
    for _ in RATES:
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([tf.constant(gradient(variable.numpy()))], [variable])
    assert rates == pytest.approx(RATES, rel=1e-6)  # of float32
    return variable.numpy(), rates


def sgd(rates, momentum=0.0, nesterov=False, dampening=0.0, weight_decay=0.0, wrong=""):
    """Return the weights after PyTorch's SGD, or after a wrong variant of it."""
    w, velocity = START, None
    for rate in rates:
        g = gradient(w)
        if wrong == "decoupled decay":
            w = w - rate * weight_decay * w
        else:
            g = g + weight_decay * w
        added = rate * g if wrong == "velocity with the learning rate" else g
        if velocity is None:
            velocity = (1 - dampening) * added if wrong == "dampened first update" else added
        else:
            velocity = momentum * velocity + (1 - dampening) * added
        step = added + momentum * velocity if nesterov else velocity
        w = w - (1 if wrong == "velocity with the learning rate" else rate) * step
    return w


def adam(rates, weight_decay=0.0, decoupled=False, epsilon=EPSILON, wrong=""):
    """Return the weights after PyTorch's Adam or AdamW, or after a wrong variant of it."""
    w, mean, square = START, 0.0, 0.0
    for time, rate in enumerate(rates, 1):
        g = gradient(w)
        if decoupled:
            w = w - (rates[0] if wrong == "decay of the first learning rate" else rate) * weight_decay * w
        else:
            g = g + weight_decay * w
        mean, square = BETA1 * mean + (1 - BETA1) * g, BETA2 * square + (1 - BETA2) * g**2
        correction = math.sqrt(1 - BETA2**time)
        if wrong == "epsilon before the correction":
            root = (np.sqrt(square) + epsilon) / correction
        else:
            root = np.sqrt(square) / correction + epsilon
        w = w - rate * mean / (1 - BETA1**time) / root
    return w


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"momentum": 0.9}, ["velocity with the learning rate"]),
        ({"momentum": 0.9, "nesterov": True}, ["velocity with the learning rate"]),
        ({"momentum": 0.9, "dampening": 0.9}, ["velocity with the learning rate", "dampened first update"]),
        ({"weight_decay": 0.3}, []),
        (  # of MetaOptNet
            {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-2},
            ["velocity with the learning rate", "decoupled decay"],
        ),
        (  # of Baseline at test
            {"momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-1},
            ["velocity with the learning rate", "dampened first update", "decoupled decay"],
        ),
    ],
)
def test_sgd_is_that_of_pytorch(options, wrong):
    found, rates = moved(name="sgd", **options)
    np.testing.assert_allclose(found, sgd(rates, **options), rtol=1e-12, atol=1e-18)
    for variant in wrong:
        assert np.abs(found - sgd(rates, **options, wrong=variant)).max() > 1e-3, variant


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adam", ["epsilon before the correction"]),
        ("adamw", ["epsilon before the correction", "decay of the first learning rate"]),
    ],
)
def test_adam_with_weight_decay_is_that_of_pytorch(name, wrong):
    options = {"weight_decay": 0.3, "decoupled": name == "adamw"}
    found, rates = moved(name=name, weight_decay=0.3)
    np.testing.assert_allclose(found, adam(rates, **options), rtol=1e-12)
    assert np.abs(found - adam(rates, weight_decay=0.3, decoupled=name == "adam")).max() > 1e-2
    for variant in wrong:
        assert np.abs(found - adam(rates, **options, wrong=variant)).max() > 1e-3, variant


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_epsilon_is_what_is_told(name):
    """Reject the default, and for Keras's Adam, which has no weight decay, an epsilon that is not passed on."""
    found, rates = moved(name=name, weight_decay=0.3, epsilon=1e-3)
    options = {"weight_decay": 0.3, "decoupled": name == "adamw"}
    np.testing.assert_allclose(found, adam(rates, **options, epsilon=1e-3), rtol=1e-12)
    assert np.abs(found - adam(rates, **options)).max() > 1e-4
    plain, small = (moved(name="adam", **told)[0] for told in ({"epsilon": 1e-3}, {}))
    assert np.abs(plain - small).max() > 1e-4


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_what_is_not_decayed_moves_as_without_decay(name):
    found, rates = moved(undecayed=True, name=name, weight_decay=0.3)
    np.testing.assert_allclose(found, sgd(rates) if name == "sgd" else adam(rates), rtol=1e-12)


def test_plain_optimizers_are_those_of_keras():
    """Compare bits: old specs keep their results."""
    import keras

    variables = {}
    for name, rival in {"sgd": keras.optimizers.SGD(0.1), "adam": keras.optimizers.Adam(0.1, epsilon=1e-8)}.items():
        for optimizer in (outer_optimizer(OptimizerOptions(name=name, learning_rate=0.1), 100), rival):
            variable = tf.Variable(START)
            for _ in range(3):
                optimizer.apply([tf.constant(gradient(variable.numpy()))], [variable])
            variables.setdefault(name, []).append(variable.numpy().tobytes())
    assert all(one == other for one, other in variables.values())


def test_gradients_are_clipped_before_the_decay_is_added():
    """Reject a limit on the sum, which is 1."""
    options = OptimizerOptions(name="sgd", learning_rate=1.0, weight_decay=0.5, clip_norm=1.0)
    variable = tf.Variable([4.0])
    outer_optimizer(options, 100).apply([tf.constant([3.0])], [variable])
    assert float(variable[0]) == 4 - (1 + 0.5 * 4)


@pytest.mark.parametrize("name", ["maml", "protonet", "matchingnet"])
def test_weight_decay_spares_batch_norm_and_nothing_else(name, make_source):
    """Compare one update of SGD with one without decay: the difference is lr * decay * w, of biases too.

    Rejected: no decay of biases, or of the parameters that a learner has besides the network's.
    """
    batch = make_source(dtype="float64").sample("train", 0, 2, (3, 2, 2), 0)
    network = MLPOptions(hidden=(4,), batch_norm=True)
    after, before, norm = {}, {}, frozenset()
    for decay in ({}, {"weight_decay": 0.5}, {"weight_decay": 0.5, "decay_norm": True}):
        optimizer = OptimizerOptions(name="sgd", learning_rate=0.125, **decay)
        one = learner(OPTIONS[name], network, "inductive", optimizer=optimizer, jit=False, precision="float64")
        for value in one.parameters.values():
            value.assign_add(tf.ones_like(value))  # offsets and biases are 0 at first
        before = {key: value.numpy() for key, value in one.parameters.items()}
        one.train_step(batch)
        after[len(decay)] = {key: value.numpy() for key, value in one.parameters.items()}
        norm = one.network.norm
    assert {"norm1/scale", "norm1/offset"} == norm < before.keys()
    for key, value in before.items():
        decayed = 0.125 * 0.5 * value
        np.testing.assert_allclose(after[0][key] - after[1][key], 0 * decayed if key in norm else decayed, atol=1e-12)
        np.testing.assert_allclose(after[0][key] - after[2][key], decayed, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.5},
        {"name": "adam", "weight_decay": 0.5},
        {"name": "adamw", "weight_decay": 0.5},
    ],
)
def test_frozen_layers_are_not_decayed(options, make_source):
    batch = make_source().sample("train", 0, 2, (3, 2, 2), 0)
    network = MLPOptions(hidden=(4,), batch_norm=True, freeze=("dense1", "norm1/scale"))
    optimizer = OptimizerOptions(learning_rate=0.1, decay_norm=True, **options)
    one = learner(OPTIONS["maml"], network, "transductive", optimizer=optimizer, jit=False)
    before = {key: value.numpy() for key, value in one.parameters.items()}
    for _ in range(2):
        one.train_step(batch)
    same = {key for key, value in one.parameters.items() if np.array_equal(value, before[key])}
    assert same == {"dense1/kernel", "norm1/scale"}


def test_momentum_moves_every_task_of_serial_reptile():
    """Compare with a plain loop: theta - theta_i' is a gradient like others, and the rate changes between steps."""
    theta, velocity, shrink = np.array([2.0]), 0.0, 1 - (1 - 0.3) ** 2
    network, centers = theta_network(theta), np.array([[1.0], [-3.0]])
    options = ReptileOptions(inner_lr=0.3, inner_optimizer="sgd", inner_steps=2, inner_batch=2, serial=True)
    told = OptimizerOptions(name="sgd", learning_rate=0.5, momentum=0.5, weight_decay=0.25, schedule="linear")
    optimizer = outer_optimizer(told, 4, ALGORITHMS["reptile"].updates(options, 2))
    model = Reptile(network, optimizer, options, QuadraticProblem(), jit_compile=False)
    for rate in (0.5, 0.375):
        for center in centers:
            velocity = 0.5 * velocity + shrink * (theta - center) + 0.25 * theta
            theta = theta - rate * velocity
        model.train_step(quadratic_tasks(centers))
    np.testing.assert_allclose(network.parameters["theta"].numpy(), theta, rtol=1e-6)
    assert len(model.variables) == 5  # theta, its second moment, inner steps; updates, velocity


@pytest.mark.parametrize(
    ("told", "rates"),  # after 0, 25, 50 and 100 of 100 steps
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "linear", "final_learning_rate": 0.1}, [1.0, 0.775, 0.55, 0.1]),
        ({"schedule": "linear"}, [1.0, 0.75, 0.5, 0.0]),
        ({"schedule": "cosine", "final_learning_rate": 0.1}, [1.0, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1]),
        ({"schedule": "step", "decay_every": 40, "decay_factor": 0.3}, [1.0, 1.0, 0.3, 0.09]),
        ({"schedule": "step", "decay_steps": (25, 50), "decay_factor": 0.3}, [1.0, 0.3, 0.09, 0.09]),
        ({"schedule": "step", "decay_steps": (26, 100)}, [1.0, 1.0, 0.5, 0.25]),
        (  # MetaOptNet's
            {"schedule": "step", "decay_steps": (20, 40, 100), "decay_factors": (0.06, 0.2, 0.2)},
            [1.0, 0.06, 0.012, 0.0024],
        ),
    ],
)
def test_schedules(told, rates):
    """Reject twice the steps, another end, a decay without stairs, a schedule that counts the updates of a step.

    Of listed steps reject a decay one step late, the first rate times each factor, and the factors from the last on.
    """
    for updates in (1, 4):
        optimizer = outer_optimizer(OptimizerOptions(learning_rate=1.0, **told), 100, updates)
        optimizer.build([tf.Variable(0.0)])
        for update in {0, updates - 1}:  # the rate of a step's last update is that of its first
            found = []
            for step in (0, 25, 50, 100):
                optimizer.iterations.assign(updates * step + update)
                found.append(float(optimizer.learning_rate))
            np.testing.assert_allclose(found, rates, atol=1e-6)


@pytest.mark.parametrize(
    ("told", "moves"),
    [({}, [3.0, -4.0]), ({"clip_value": 3.5}, [3.0, -3.5]), ({"clip_norm": 1.0}, [0.6, -0.8])],
)
def test_gradients_are_clipped(told, moves):
    """Reject the norm of each gradient, which gives 1 and -1. The norm is that of all together."""
    optimizer = outer_optimizer(OptimizerOptions(name="sgd", learning_rate=1.0, **told), 100)
    variables = [tf.Variable([0.0]), tf.Variable([0.0])]
    optimizer.apply([tf.constant([3.0]), tf.constant([-4.0])], variables)
    np.testing.assert_allclose([-float(variable[0]) for variable in variables], moves, rtol=1e-6)
