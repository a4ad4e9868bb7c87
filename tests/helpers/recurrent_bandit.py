"""A tiny source of trials: bandits with two arms, one of which pays with probability `good` and the other never.

Episodes have `horizon` steps; the observation is the step of the episode, so that episodes can be told apart. With
`box` the action is a number, whose sign chooses the arm.
"""

import tensorflow as tf

from metarun.datasets.random import TaskKeys
from metarun.datasets.trials import Outcome, Space, Trials


class DependentBandit:
    """Let p of the arms be (good, 0) or (0, good): what one arm pays tells of the other."""

    name = "dependent bandit"

    def __init__(self, episodes=10, horizon=1, good=1.0, box=False):
        self.episodes, self.horizon, self.good = episodes, horizon, good
        self.observations = Space(horizon)
        self.actions = Space(1, discrete=False) if box else Space(2)

    def sample(self, split, index, tasks, seed):
        keys = TaskKeys.of_stream(seed, split, index, tasks)
        best = tf.cast(keys.uniform("arms") < 0.5, tf.int32)
        return Trials({"best": best}, tf.stack(keys.key, axis=1), best[:, None])

    def first(self, trials):
        return (), tf.zeros_like(trials.parameters["best"])

    def step(self, trials, state, action, number):
        chosen = action if self.actions.discrete else tf.cast(action[:, 0] > 0, tf.int32)
        right = chosen == trials.parameters["best"]
        pays = TaskKeys.of_trials(trials.keys, number).uniform("rewards") < self.good
        after = tf.broadcast_to((number + 1) % self.horizon, chosen.shape)
        reward = tf.cast(right & pays, tf.float32)
        return (), Outcome(after, reward, after == 0, tf.where(right, 0.0, self.good))
