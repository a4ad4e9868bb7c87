"""Classical policies for Bernoulli bandits, which Duan et al. 2016 compare with in section 3.1.

Every arm has a Beta(1, 1) prior; of equal indices the first arm is pulled. A rule is a pure function that returns an
arm. Its arguments are the counts of the trial, the number of the pull, random numbers and the policy's one parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ...datasets.bandits import BanditsSource
from ...datasets.random import TaskKeys
from ..rl.rollout import Seen
from .gittins import gittins_indices


class Counts(NamedTuple):
    """Hold the successes and failures of each arm so far in a trial, each `[T, arms]`."""

    successes: tf.Tensor
    failures: tf.Tensor

    def after(self, seen: Seen, number: tf.Tensor) -> Counts:
        """Return the counts with the pull before pull `number` added; there is none before pull 0."""
        pulled = tf.one_hot(seen.action, self.successes.shape[1]) * tf.cast(number > 0, tf.float32)
        paid = pulled * seen.reward[:, None]
        return Counts(self.successes + paid, self.failures + pulled - paid)

    @property
    def mean(self) -> tf.Tensor:
        """Return the posterior means `[T, arms]`."""
        return (self.successes + 1) / (self.successes + self.failures + 2)


Rule = Callable[[Counts, tf.Tensor, TaskKeys, tf.Tensor], tf.Tensor]


class BanditPolicy:
    """Play by a rule from `Counts`, as a `Policy`."""

    def __init__(self, source: BanditsSource, rule: Rule, parameter: tf.Tensor):
        self.arms, self.rule, self.parameter = source.options.arms, rule, parameter

    def start(self, tasks: int) -> Counts:
        """Return counts of 0."""
        return Counts(tf.zeros((tasks, self.arms)), tf.zeros((tasks, self.arms)))

    def act(self, memory: Counts, seen: Seen, number: tf.Tensor, keys: TaskKeys) -> tuple[tf.Tensor, Counts, tuple[()]]:
        """Choose an arm, see `Policy`."""
        counts = memory.after(seen, number)
        return self.rule(counts, number, keys, self.parameter), counts, ()


def greedy(counts: Counts, number: tf.Tensor, keys: TaskKeys, parameter: tf.Tensor) -> tf.Tensor:
    """Choose the arm with the highest posterior mean."""
    return _best(counts.mean)


def epsilon_greedy(counts: Counts, number: tf.Tensor, keys: TaskKeys, epsilon: tf.Tensor) -> tf.Tensor:
    """Choose a random arm with probability epsilon, else the arm with the highest posterior mean."""
    explore = keys.uniform("explore") < tf.cast(epsilon, tf.float64)
    return tf.where(explore, random_action(keys, counts.mean.shape[1]), _best(counts.mean))


def ucb1(counts: Counts, number: tf.Tensor, keys: TaskKeys, scale: tf.Tensor) -> tf.Tensor:
    """Choose the arm with the highest mean + scale sqrt(2 ln t / n) (Auer et al. 2002).

    n counts the pulls of an arm and the two of its prior; t counts all pulls before this one.
    """
    log_time = tf.math.log(tf.maximum(tf.cast(number, tf.float32), 1.0))
    return _best(counts.mean + scale * tf.sqrt(2 * log_time / (counts.successes + counts.failures + 2)))


def thompson_sampling(counts: Counts, number: tf.Tensor, keys: TaskKeys, parameter: tf.Tensor) -> tf.Tensor:
    """Choose the best arm of one draw from the posterior (Thompson 1933)."""
    log_odds, _ = _posterior_draw(counts, keys)
    return _best(log_odds)


def optimistic_thompson_sampling(counts: Counts, number: tf.Tensor, keys: TaskKeys, samples: tf.Tensor) -> tf.Tensor:
    """Choose the best arm of the draw whose joint posterior density over all arms is highest, among `samples` draws.

    This is the authors' rule of that name. May et al. 2012 take the larger of draw and mean for each arm instead.
    """

    def one(sample: tf.Tensor, best: tf.Tensor, arm: tf.Tensor):
        log_odds, density = _posterior_draw(counts, keys.numbered(sample))
        better = density > best
        return sample + 1, tf.where(better, density, best), tf.where(better, _best(log_odds), arm)

    tasks = counts.mean.shape[0]
    start = (tf.constant(0), tf.fill((tasks,), tf.float32.min), tf.zeros(tasks, tf.int32))
    return tf.while_loop(lambda sample, *_: sample < tf.cast(samples, tf.int32), one, start)[2]


def gittins(counts: Counts, number: tf.Tensor, keys: TaskKeys, indices: tf.Tensor) -> tf.Tensor:
    """Choose the arm with the highest index in the table `indices` [pulls + 1, pulls + 1]."""
    successes, failures = tf.cast(counts.successes, tf.int64), tf.cast(counts.failures, tf.int64)
    place = successes * indices.shape[1] + failures  # beyond what float32 counts in ones
    return _best(tf.gather(tf.reshape(indices, [-1]), place))


RULES: dict[str, Rule] = {
    "gittins": gittins,
    "thompson_sampling": thompson_sampling,
    "optimistic_thompson_sampling": optimistic_thompson_sampling,
    "ucb1": ucb1,
    "epsilon_greedy": epsilon_greedy,
    "greedy": greedy,
}


def rule_parameter(name: str, value: float, source: BanditsSource) -> tf.Tensor:
    """Return the tensor that the rule `name` takes for a `value` of its option."""
    return tf.constant(gittins_indices(source.options.pulls, value) if name == "gittins" else value, tf.float32)


def random_action(keys: TaskKeys, actions: int) -> tf.Tensor:
    """Draw uniformly among `actions` actions, `[T]` int32."""
    return tf.cast(keys.uniform("action", high=float(actions)), tf.int32)


def _best(index: tf.Tensor) -> tf.Tensor:
    return tf.argmax(index, axis=1, output_type=tf.int32)


def _posterior_draw(counts: Counts, keys: TaskKeys) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw every arm's mean: log-odds `[T, arms]`, and their joint log-density `[T]` up to a constant."""
    shapes = tf.stack([counts.successes, counts.failures], axis=1) + 1  # [T, 2, arms]
    log_gamma = keys.log_gamma("posterior", shapes)
    log_odds = log_gamma[:, 0] - log_gamma[:, 1]
    log_success, log_failure = -tf.math.softplus(-log_odds), -tf.math.softplus(log_odds)
    return log_odds, tf.reduce_sum(counts.successes * log_success + counts.failures * log_failure, axis=1)
