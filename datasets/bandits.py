"""Bernoulli multi-armed bandits (Duan et al. 2016, section 3.1): p of each arm ~ U[0, 1], fixed for a trial.

A pull is an episode of one step. The observation is always 0. Pull `number` of a trial pays 1 where u < p of the arm.
u is uniform and depends on the trial and that number only, not on the arm.
"""

from __future__ import annotations

import tensorflow as tf

from .options import BanditsOptions
from .random import TaskKeys
from .tasks import Split
from .trials import Outcome, Space, Trials, TrialSource


class BanditsSource(TrialSource):
    """Sample bandits, as a `TrialSource`. Parameters of a trial: `means` [T, arms]."""

    name = "bandits"
    regression = False
    content_digest = ""
    in_memory = compiles = True
    observations = Space(1)
    horizon = 1

    def __init__(self, options: BanditsOptions):
        self.options = options
        self.actions = Space(options.arms)
        self.episodes = options.pulls
        self.trial = f"{options.arms} arms, {options.pulls} pulls"

    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, seed: int) -> Trials:
        """Sample trials `index` to `index + tasks - 1`, see `TrialSource`."""
        keys = TaskKeys.of_stream(seed, split, index, tasks)
        means = tf.cast(keys.uniform("arms", self.options.arms), tf.float32)
        words = tf.stack(keys.key, axis=1)
        return Trials({"means": means}, words, tf.concat([tf.bitcast(means, tf.int32), tf.bitcast(words, tf.int32)], 1))

    def first(self, trials: Trials) -> tuple[tuple[()], tf.Tensor]:
        """Return no state, and observation 0."""
        return (), tf.zeros(trials.keys.shape[0], tf.int32)

    def step(self, trials: Trials, state: tuple[()], action: tf.Tensor, number: tf.Tensor) -> tuple[tuple[()], Outcome]:
        """Pull arms `action` as pull `number`, see `TrialSource`."""
        means, tasks = trials.parameters["means"], trials.keys.shape[0]
        uniform = TaskKeys.of_trials(trials.keys, number).uniform("outcome")  # [T]
        mean = tf.gather(means, action, batch_dims=1)
        reward = tf.cast(uniform < tf.cast(mean, tf.float64), tf.float32)
        gap = tf.reduce_max(means, axis=1) - mean
        return state, Outcome(tf.zeros(tasks, tf.int32), reward, tf.ones(tasks, tf.bool), gap)


def build(options: BanditsOptions, dtype: str = "float32") -> BanditsSource:
    """Build the source of a spec. Rewards are float32, whatever the `dtype` of networks."""
    return BanditsSource(options)
