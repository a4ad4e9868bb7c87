"""Metrics of outputs that are not finite: a wrong answer in each of them, and nothing else changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent_bandit import DependentBandit

from metarun.algorithms.metrics import classification_metrics, regression_metrics, right_answers
from metarun.algorithms.networks.options import GRUOptions
from metarun.algorithms.options import RL2Options
from metarun.algorithms.rl2 import RL2

LABELS = np.zeros((3, 4), np.int32)  # of class 0, which the largest of outputs that are NaN is


def logits():
    """Return logits `[2, 3, 4, 5]`: two numbers of inner steps, 3 tasks of 4 queries, all right."""
    return np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32) + np.eye(5, dtype=np.float32)[0] * 9


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3])
def test_fault_02_an_output_that_is_not_finite_is_a_wrong_answer(broken, place):
    """Reject argmax of NaN, which is class 0; a likelihood over the other queries; bins without the query."""
    whole, part = logits(), logits()
    part[1, 1, 2, place] = broken
    before = {name: value.numpy() for name, value in classification_metrics(whole, LABELS, (0, 1)).items()}
    after = {name: value.numpy() for name, value in classification_metrics(part, LABELS, (0, 1)).items()}
    np.testing.assert_array_equal(after["accuracy"], [1, 0.75, 1])
    np.testing.assert_array_equal(after["accuracy_0"], [1, 1, 1])
    assert after["negative_log_likelihood"][1] == np.inf
    for name in ("accuracy", "negative_log_likelihood", "calibration"):  # of the other tasks, bit for bit
        np.testing.assert_array_equal(after[name][[0, 2]], before[name][[0, 2]])
    queries, confidence, right = after["calibration"][1]
    assert queries.sum() == 4 and right.sum() == 3 and np.isfinite(confidence).all()
    assert queries[-1] - right[-1] == 1  # wrong, and sure of it
    assert not right_answers(part[1], LABELS)[1, 2]


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e30])
def test_fault_02_a_prediction_that_is_not_finite_is_infinitely_wrong(broken):
    """Reject an error of NaN, which is neither above nor below another; 1e30 has a square that no float32 holds."""
    predictions = np.zeros((2, 3, 4, 1), np.float32)
    predictions[1, 1, 2] = broken
    found = regression_metrics(predictions, np.ones((3, 4, 1), np.float32), (0, 5))
    np.testing.assert_array_equal(found["mse"], [1, np.inf, 1])
    np.testing.assert_array_equal(found["mse_0"], [1, 1, 1])


@pytest.mark.parametrize("box", [False, True])
def test_fault_02_a_policy_whose_outputs_are_not_finite_earns_nothing(eagerly, box):
    """Reject the reward of always choosing arm 0, which is what argmax makes of NaN."""
    source = DependentBandit(episodes=3, box=box)
    learner = RL2(source, GRUOptions(units=4), lambda _: keras.optimizers.Adam(), RL2Options(minibatch=2))
    trials = source.sample("test", 0, 4, 0)
    before = learner.evaluate(trials)
    assert np.isfinite(before["total_reward"]).all() and np.isfinite(before["regret"]).all()
    for variable in learner.policy.parameters.values():
        variable.assign(tf.fill(variable.shape, np.nan))
    after = learner.evaluate(trials)
    np.testing.assert_array_equal(after["total_reward"], [-np.inf] * 4)
    np.testing.assert_array_equal(after["regret"], [np.inf] * 4)
    np.testing.assert_array_equal(after["optimal_actions"], [0.0] * 4)
