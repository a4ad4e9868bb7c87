"""Bernoulli bandits: rewards, luck and gaps, each a pure function of (seed, split, index)."""

import numpy as np
import tensorflow as tf

from metarun.datasets.bandits import build
from metarun.datasets.options import BanditsOptions
from metarun.datasets.random import TaskKeys

SOURCE = build(BanditsOptions(arms=4, pulls=10))


def pull(trials, arm, number):
    action = tf.fill(trials.keys.shape[0], arm)
    return SOURCE.step(trials, (), action, tf.constant(number))[1]


def test_arms_pay_with_their_own_probability():
    trials = SOURCE.sample("train", 0, 4000, seed=0)
    rewards = np.mean([pull(trials, 2, number).reward for number in range(10)], axis=0)
    means = trials.parameters["means"].numpy()
    deviation = np.sqrt(np.mean(means[:, 2] * (1 - means[:, 2])) / 10)

    def fits(arm):
        """Check that the mean square of the difference is binomial noise alone, which it is only for the arm pulled."""
        return abs(np.mean((rewards - means[:, arm]) ** 2) / deviation**2 - 1) < 0.1

    assert fits(2)
    assert not fits(1)  # wrong variant: arms counted from 1


def test_means_are_uniform():
    means = SOURCE.sample("train", 0, 4000, seed=0).parameters["means"].numpy()
    counts = np.histogram(means, bins=10, range=(0, 1))[0]
    assert ((counts - 1600) ** 2 / 1600).sum() < 27.9  # 9 degrees of freedom, 99.9%
    counts = np.histogram(means.mean(axis=1), bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() > 27.9  # wrong variant: one number for all arms has no such mean


def test_a_trial_is_the_same_alone_and_in_a_batch():
    batch = SOURCE.sample("val", 10, 4, seed=7)
    for offset in range(4):
        alone = SOURCE.sample("val", 10 + offset, 1, seed=7)
        np.testing.assert_array_equal(alone.parameters["means"], batch.parameters["means"][offset : offset + 1])
        np.testing.assert_array_equal(alone.drawn, batch.drawn[offset : offset + 1])
        for number in range(10):
            assert pull(alone, 1, number).reward[0] == pull(batch, 1, number).reward[offset]
    others = [SOURCE.sample("test", 10, 4, 7), SOURCE.sample("val", 10, 4, 8), SOURCE.sample("val", 11, 4, 7)]
    assert all((other.drawn.numpy() != batch.drawn.numpy()).any() for other in others)
    assert len(np.unique(batch.drawn, axis=0)) == 4


def test_luck_is_the_same_whatever_arm_is_pulled():
    """Check that the arm that is more likely to pay then never fails where the other pays; with luck of their own it
    would."""
    trials = SOURCE.sample("train", 0, 1000, seed=0)
    better = trials.parameters["means"][:, 0] > trials.parameters["means"][:, 1]
    first, second = pull(trials, 0, 3).reward, pull(trials, 1, 3).reward
    assert (tf.where(better, first - second, second - first).numpy() >= 0).all()
    another = pull(trials, 1, 4).reward  # wrong variant: another pull's luck
    assert (tf.where(better, first - another, another - first).numpy() < 0).any()


def test_the_gap_is_the_distance_to_the_best_arm():
    trials = SOURCE.sample("train", 0, 50, seed=0)
    means = trials.parameters["means"].numpy()
    gaps = np.stack([pull(trials, arm, 0).gap for arm in range(4)], axis=1)
    np.testing.assert_array_equal(gaps, means.max(axis=1, keepdims=True) - means)
    outcome = pull(trials, 0, 0)
    assert outcome.terminal.numpy().all() and (outcome.observation.numpy() == 0).all()
    assert outcome.reward.dtype == outcome.gap.dtype == tf.float32


def test_log_gamma_draws_have_the_distribution():
    keys = TaskKeys.of_stream(0, "train", 0, 4)

    def share_below(concentration, bound, dtype="float64"):
        drawn = keys.log_gamma("posterior", tf.fill((4, 50_000), tf.constant(concentration, dtype)))
        return np.mean(drawn.numpy() < np.log(bound))

    close = 0.0045  # four standard deviations
    for dtype in ("float32", "float64"):
        assert abs(share_below(1.0, np.log(2), dtype) - 0.5) < close
        assert abs(share_below(0.5, 0.6744898**2 / 2, dtype) - 0.5) < close  # half of a squared normal number
        assert abs(share_below(2.0, 1.6783470, dtype) - 0.5) < close
    # wrong variants: every candidate accepted (median d = 2/3 at concentration 1); no correction below 1
    assert abs(share_below(1.0, 2 / 3) - 0.5) > close
    assert abs(share_below(1.5, 0.6744898**2 / 2) - 0.5) > close
    large = keys.log_gamma("posterior", tf.fill((4, 50_000), tf.constant(400.0))).numpy()
    assert abs(np.exp(large).mean() - 400) < 0.2 and abs(np.exp(large).std() - 20) < 0.15
    tiny = keys.log_gamma("posterior", tf.fill((4, 1000), tf.constant(1e-4))).numpy()
    assert np.isfinite(tiny).all()  # exp underflows to 0: a Dirichlet draw of them would be 0 / 0
