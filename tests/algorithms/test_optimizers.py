"""The outer optimizers: their learning rates, and their updates."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.optimizers import outer_optimizer


@pytest.mark.parametrize(
    ("told", "rates"),  # after 0, 25, 50 and 100 of 100 steps
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "linear", "final_learning_rate": 0.1}, [1.0, 0.775, 0.55, 0.1]),
        ({"schedule": "linear"}, [1.0, 0.75, 0.5, 0.0]),
        ({"schedule": "cosine", "final_learning_rate": 0.1}, [1.0, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1]),
        ({"schedule": "step", "decay_every": 40, "decay_factor": 0.3}, [1.0, 1.0, 0.3, 0.09]),
    ],
)
def test_schedules(told, rates):
    """Reject twice the steps, another end, a decay without stairs, a schedule that counts the updates of a step."""
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
