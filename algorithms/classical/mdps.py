"""Classical policies for random tabular MDPs, which Duan et al. 2016 compare with in section 3.2.

All plan at the start of an episode by backward induction on their estimates. They act on the values, equal ones at
random. Their formulas are those of TabulaRL (github.com/iosband/TabulaRL, Osband 2016), whose agents the authors ran.
Its prior mean of rewards is 0 where the environments' is 1, and the published columns carry that error: `prior_mean`.

One deviation: TabulaRL's UCRL2 widens its transition estimates in place, again at every step of one backward induction.
Here each step starts from the estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ...datasets.mdps import MDPsSource, backward_induction, expected_backup
from ...datasets.random import TaskKeys
from ..rl.rollout import Seen
from .bandits import random_action

VANISHING = 1e-4  # weight of a prior that matters only until the first observation
CONFIDENCE = 0.05  # UCRL2's delta


class Experience(NamedTuple):
    """Hold the observations in a trial so far."""

    visits: tf.Tensor  # [T, S, A] number of rewards seen
    rewards: tf.Tensor  # [T, S, A] their sum
    moves: tf.Tensor  # [T, S, A, S] number of moves to each next state; none at the end of an episode

    def after(self, state: tf.Tensor, seen: Seen, number: tf.Tensor) -> Experience:
        """Return the experience with the step before step `number` added, taken in `state`; there is none before step
        0.
        """
        place = tf.stack([tf.range(state.shape[0]), state, seen.action], axis=1)
        there = tf.fill(state.shape, tf.cast(number > 0, tf.float32))
        continues = there * tf.cast(~seen.terminal, tf.float32)
        return Experience(
            tf.tensor_scatter_nd_add(self.visits, place, there),
            tf.tensor_scatter_nd_add(self.rewards, place, there * seen.reward),
            tf.tensor_scatter_nd_add(self.moves, tf.concat([place, seen.observation[:, None]], axis=1), continues),
        )


class Prior(NamedTuple):
    """Hold a prior with independent normal mean rewards and Dirichlet transitions."""

    mean: float  # of mean rewards
    weight: float  # of the prior, as a number of rewards
    concentration: float  # of the Dirichlet prior, per next state
    noise: float = 1.0  # standard deviation of a reward

    @classmethod
    def of(cls, source: MDPsSource, mean: float) -> Prior:
        """Return the prior that the environments are drawn from, with another mean of rewards."""
        noise, std = max(source.options.reward_noise, 1e-3), max(source.options.reward_std, 1e-3)
        return cls(mean, (noise / std) ** 2, source.options.dirichlet, noise)

    def mean_rewards(self, experience: Experience) -> tf.Tensor:
        """Return the posterior means of rewards `[T, S, A]`."""
        return (self.mean * self.weight + experience.rewards) / (self.weight + experience.visits)

    def mean_transitions(self, experience: Experience) -> tf.Tensor:
        """Return the posterior means of transitions `[T, S, A, S]`."""
        counts = self.concentration + experience.moves
        return counts / tf.reduce_sum(counts, axis=-1, keepdims=True)

    def draw(self, experience: Experience, keys: TaskKeys) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw mean rewards `[T, S, A]` and transitions `[T, S, A, S]` from the posterior."""
        deviation = self.noise * tf.math.rsqrt(self.weight + experience.visits)
        normal = tf.cast(keys.normal("rewards", *experience.visits.shape[1:]), tf.float32)
        log_gamma = keys.log_gamma("posterior", self.concentration + experience.moves)
        return self.mean_rewards(experience) + deviation * normal, tf.nn.softmax(log_gamma)


class Memory(NamedTuple):
    """Hold the memory of an `MDPPolicy`."""

    experience: Experience
    state: tf.Tensor  # [T] int32, where the last action was taken
    values: tf.Tensor  # [T, H, S, A] of this episode's plan


class Situation(NamedTuple):
    """Hold the inputs of a plan at the start of an episode."""

    source: MDPsSource
    experience: Experience
    episode: tf.Tensor  # its number, int32 scalar from 0
    keys: TaskKeys
    prior_mean: float
    parameter: tf.Tensor  # samples, or the scale of a bonus


Plan = Callable[[Situation], tf.Tensor]  # -> values [T, H, S, A]


class MDPPolicy:
    """Plan at the start of every episode, and then act on the plan, equal values at random; a `Policy`."""

    def __init__(self, source: MDPsSource, plan: Plan, prior_mean: float, parameter: tf.Tensor, explores: bool = False):
        """Keep the plan and its parameter.

        Args:
            source: The environments.
            plan: A function of `PLANS`.
            prior_mean: The prior mean of mean rewards.
            parameter: The plan's parameter; with `explores`, the probability of a random action.
            explores: Whether to take random actions.
        """
        self.source, self.plan, self.prior_mean = source, plan, prior_mean
        self.parameter, self.explores = parameter, explores

    def start(self, tasks: int) -> Memory:
        """Return a memory without observations."""
        states, actions = self.source.observations.size, self.source.actions.size
        pairs = tf.zeros((tasks, states, actions))
        experience = Experience(pairs, pairs, tf.zeros((tasks, states, actions, states)))
        values = tf.zeros((tasks, self.source.horizon, states, actions))
        return Memory(experience, tf.zeros(tasks, tf.int32), values)

    def act(self, memory: Memory, seen: Seen, number: tf.Tensor, keys: TaskKeys) -> tuple[tf.Tensor, Memory, tuple[()]]:
        """Choose an action, see `Policy`."""
        time, episode = number % self.source.horizon, number // self.source.horizon
        experience = memory.experience.after(memory.state, seen, number)
        values = tf.cond(
            time == 0,
            lambda: self.plan(Situation(self.source, experience, episode, keys, self.prior_mean, self.parameter)),
            lambda: memory.values,
        )
        action = _best_at_random(tf.gather(values[:, time], seen.observation, batch_dims=1), keys)
        if self.explores:
            explore = keys.uniform("explore") < tf.cast(self.parameter, tf.float64)
            action = tf.where(explore, random_action(keys, self.source.actions.size), action)
        return action, Memory(experience, seen.observation, values), ()


def posterior_sampling(now: Situation) -> tf.Tensor:
    """Return the highest value among `samples` environments drawn from the posterior, per time, state and action.

    One sample: PSRL (Strens 2000; Osband, Russo and Van Roy 2013). More: optimistic PSRL.
    """
    prior = Prior.of(now.source, now.prior_mean)

    def one(sample: tf.Tensor, best: tf.Tensor):
        rewards, transitions = prior.draw(now.experience, now.keys.numbered(sample))
        values = backward_induction(expected_backup(rewards, transitions), rewards, now.source.horizon)
        return sample + 1, tf.maximum(best, values)

    tasks, states, actions = now.experience.visits.shape
    start = tf.fill((tasks, now.source.horizon, states, actions), tf.float32.min)
    return tf.while_loop(lambda sample, _: sample < tf.cast(now.parameter, tf.int32), one, (tf.constant(0), start))[1]


def certainty_equivalence(now: Situation) -> tf.Tensor:
    """Return the values that hold if the estimates are true; the prior vanishes at the first observation, as in
    TabulaRL.
    """
    prior = Prior(now.prior_mean, VANISHING, VANISHING)
    rewards = prior.mean_rewards(now.experience)
    return backward_induction(
        expected_backup(rewards, prior.mean_transitions(now.experience)), rewards, now.source.horizon
    )


def bayesian_exploration_bonus(now: Situation) -> tf.Tensor:
    """Return the values of BEB (Kolter and Ng 2009) as in TabulaRL.

    The reward is R + 1 / (1 + n) + beta H / (1 + m) for each step that follows, with beta = 2 scale H^2. n and m count
    observations and the prior's weight, of rewards and of transitions.
    """
    prior, horizon = Prior.of(now.source, now.prior_mean), now.source.horizon
    rewards = prior.mean_rewards(now.experience) + 1 / (1 + prior.weight + now.experience.visits)
    moves = tf.reduce_sum(prior.concentration + now.experience.moves, axis=-1)
    bonus = 2 * now.parameter * horizon**3 / (1 + moves)  # [T, S, A]
    expected = expected_backup(rewards, prior.mean_transitions(now.experience))
    return backward_induction(
        lambda after, follow: expected(after, follow) + bonus * tf.cast(follow, tf.float32), rewards, horizon
    )


def ucrl2(now: Situation) -> tf.Tensor:
    """Return the values of UCRL2 (Jaksch, Ortner and Auer 2010) for finite horizons, as in TabulaRL.

    Rewards may deviate from their estimates by scale sqrt(4 L / n), and transitions, in L1, by scale sqrt(4 S L / m). L
    = ln(2 S A (k + 1) / delta) in episode k = 1, 2, ... The plan is for the best of all these environments.
    """
    prior, (_, states, actions) = Prior(now.prior_mean, VANISHING, VANISHING / 10), now.experience.visits.shape
    logarithm = tf.math.log(2 * states * actions * (tf.cast(now.episode, tf.float32) + 2) / CONFIDENCE)
    seen = tf.maximum(now.experience.visits, 1)
    moved = tf.maximum(tf.reduce_sum(now.experience.moves, axis=-1), 1)
    rewards = prior.mean_rewards(now.experience) + now.parameter * tf.sqrt(4 * logarithm / seen)
    transitions, width = prior.mean_transitions(now.experience), now.parameter * tf.sqrt(4 * states * logarithm / moved)
    return backward_induction(
        lambda after, follow: rewards + optimistic_expectation(transitions, width, after), rewards, now.source.horizon
    )


def optimistic_expectation(transitions: tf.Tensor, width: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """Return the highest mean `[T, S, A]` of `after` [T, S] over distributions within an L1 distance of `transitions`.

    Half of the distance `width` moves to the best state, taken from the worst states first.
    """
    order = tf.argsort(after, axis=1)  # [T, S], worst first
    after = tf.gather(after, order, batch_dims=1)[:, None, None]  # [T, 1, 1, S]
    sorted_ = tf.gather(transitions, order, axis=3, batch_dims=1)
    moved = tf.minimum(width / 2, 1 - sorted_[..., -1])[..., None]  # [T, S, A, 1]
    worse = tf.cumsum(sorted_, axis=-1, exclusive=True)
    taken = tf.clip_by_value(moved - worse, 0, sorted_)[..., :-1]
    gained = tf.reduce_sum(taken * (after[..., -1:] - after[..., :-1]), axis=-1)
    return tf.reduce_sum(sorted_ * after, axis=-1) + gained


PLANS: dict[str, Plan] = {
    "psrl": posterior_sampling,
    "opsrl": posterior_sampling,
    "ucrl2": ucrl2,
    "beb": bayesian_exploration_bonus,
    "epsilon_greedy": certainty_equivalence,
    "greedy": certainty_equivalence,
}


def _best_at_random(values: tf.Tensor, keys: TaskKeys) -> tf.Tensor:
    """Choose the action of the highest of `values` [T, A], equal ones at random."""
    draws = tf.cast(keys.uniform("ties", values.shape[1]), tf.float32)
    best = values == tf.reduce_max(values, axis=1, keepdims=True)
    return tf.argmax(tf.where(best, draws, -1.0), axis=1, output_type=tf.int32)
