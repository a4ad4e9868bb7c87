"""Random tabular MDPs: dynamics against their own P and R, gaps against all policies, purity."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.rl.rollout import roll_out
from metarun.datasets.mdps import build
from metarun.datasets.options import MDPsOptions

TINY = build(MDPsOptions(states=2, actions=2, horizon=3, episodes=2))


class Always:
    """Play one action always."""

    def __init__(self, action):
        self.action = action

    def start(self, tasks):
        return ()

    def act(self, memory, seen, number, keys):
        return tf.fill(seen.observation.shape, self.action), (), ()


@pytest.fixture(scope="module")
def played():
    source = build(MDPsOptions(states=3, actions=2, horizon=4, episodes=3000))
    trials = source.sample("train", 0, 2, seed=0)
    return trials, tf.function(lambda: roll_out(source, trials, Always(1)))()


def test_transitions_follow_the_action_taken(played):
    trials, rollout = played
    states = rollout.seen.observation.numpy().T.reshape(2, 3000, 4)

    def statistic(action):
        total = 0
        for trial, state in itertools.product(range(2), range(3)):
            after = states[trial, :, 1:][states[trial, :, :-1] == state]
            expected = trials.parameters["transitions"][trial, state, action].numpy() * len(after)
            total += ((np.bincount(after, minlength=3) - expected) ** 2 / expected).sum()
        return total

    critical = 32.9  # 12 degrees of freedom, 99.9%
    assert statistic(1) < critical
    assert statistic(0) > critical  # wrong variant: another action's transitions


def test_rewards_are_normal_around_the_mean_of_the_state_left(played):
    trials, rollout = played
    left, wrong = rollout.seen.observation.numpy(), []
    for trial in range(2):
        means = trials.parameters["rewards"][trial, :, 1].numpy()
        noise = rollout.reward.numpy()[:, trial] - means[left[:, trial]]
        assert abs(noise.mean()) < 4 / np.sqrt(12000) and abs(noise.std() - 1) < 0.03
        reached = np.roll(left[:, trial], -1)  # wrong variant: the reward of the state reached
        wrong.append((rollout.reward.numpy()[:, trial] - means[reached]).std())
    assert max(wrong) > 1.03


def test_episodes_start_in_state_0_and_end_after_the_horizon(played):
    _, rollout = played
    observation, terminal = rollout.seen.observation.numpy(), rollout.seen.terminal.numpy()
    assert (observation[::4] == 0).all() and (observation[1::4] != 0).any()
    assert terminal[::4].all() and not terminal[1::4].any()


def best_values(transitions, rewards, horizon):
    """Return V*_h(s), [H, S]: the best of all deterministic policies for the remaining steps, evaluated one by one."""
    states, actions = rewards.shape
    best = np.zeros((horizon + 1, states))
    for first in range(horizon):
        choices = itertools.product(itertools.product(range(actions), repeat=states), repeat=horizon - first)
        values = []
        for policy in choices:
            value = np.zeros(states)
            for action in reversed(policy):
                pairs = np.arange(states), np.array(action)
                value = rewards[pairs] + transitions[pairs] @ value
            values.append(value)
        best[first] = np.max(values, axis=0)
    return best


def test_the_gap_is_that_of_all_policies():
    trials = TINY.sample("train", 0, 3, seed=5)
    for trial in range(3):
        transitions = trials.parameters["transitions"][trial].numpy().astype(float)
        rewards = trials.parameters["rewards"][trial].numpy().astype(float)
        best = best_values(transitions, rewards, 3)
        for number, state, action in itertools.product(range(6), range(2), range(2)):
            fill = [tf.fill(3, which) for which in (state, action)]
            gap = TINY.step(trials, *fill, tf.constant(number))[1].gap[trial]
            time = number % 3
            right = best[time, state] - rewards[state, action] - transitions[state, action] @ best[time + 1]
            assert float(gap) == pytest.approx(right, abs=1e-5)
    myopic = rewards.max(axis=1, keepdims=True) - rewards  # wrong variant: the gap of one step
    assert np.abs(trials.parameters["gaps"][2, 0] - myopic).max() > 0.01


def test_a_trial_is_the_same_alone_and_in_a_batch():
    batch = TINY.sample("val", 10, 4, seed=7)
    together = roll_out(TINY, batch, Always(1))
    for offset in range(4):
        trials = TINY.sample("val", 10 + offset, 1, seed=7)
        np.testing.assert_array_equal(trials.drawn, batch.drawn[offset : offset + 1])
        alone = roll_out(TINY, trials, Always(1))
        np.testing.assert_array_equal(alone.seen.observation[:, 0], together.seen.observation[:, offset])
        np.testing.assert_allclose(alone.reward[:, 0], together.reward[:, offset], rtol=1e-6)
    assert (TINY.sample("val", 10, 4, seed=8).drawn.numpy() != batch.drawn.numpy()).any()


def test_luck_is_the_same_whatever_action_is_taken():
    trials = TINY.sample("train", 0, 100, seed=0)
    state = tf.zeros(100, tf.int32)
    noise = []
    for action, number in ((0, 0), (1, 0), (1, 1)):
        outcome = TINY.step(trials, state, tf.fill(100, action), tf.constant(number))[1]
        noise.append(outcome.reward - trials.parameters["rewards"][:, 0, action])
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-5)
    assert np.abs(noise[1] - noise[2]).max() > 1  # another step, another luck


def test_parameters_have_the_distributions_of_the_options():
    options = MDPsOptions(states=5, actions=3, reward_mean=2.0, reward_std=0.5, dirichlet=0.2)
    parameters = build(options).sample("train", 0, 2000, seed=0).parameters
    rewards, transitions = parameters["rewards"].numpy(), parameters["transitions"].numpy()
    assert abs(rewards.mean() - 2) < 0.02 and abs(rewards.std() - 0.5) < 0.01
    np.testing.assert_allclose(transitions.sum(axis=-1), 1, rtol=1e-5)
    # a component of a Dirichlet(c, ..., c) of size S: mean 1 / S, variance (S - 1) / (S^2 (S c + 1))
    variance = 4 / (25 * 2)
    assert abs(transitions.mean() - 0.2) < 1e-5 and abs(transitions.var() / variance - 1) < 0.03
    assert abs(4 / (25 * 6) / variance - 1) > 0.03  # wrong variant: concentration 1
