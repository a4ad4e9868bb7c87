"""Playing trials: a policy acts in a batch of environments, and whole trials run in one compiled loop."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from ...datasets.random import TaskKeys
from ...datasets.trials import Space, Trials, TrialSource
from ..programs import program


class Seen(NamedTuple):
    """Hold the inputs of a policy at a step (Duan et al. 2016, section 2.2), each `[T, ...]`.

    Before the first step of a trial: action 0, reward 0, terminal True.
    """

    observation: tf.Tensor  # of this step
    action: tf.Tensor  # of the step before
    reward: tf.Tensor  # of the step before
    terminal: tf.Tensor  # whether the step before ended an episode


class Policy(Protocol):
    """Define a policy with memory, which plays a batch of trials."""

    def start(self, tasks: int) -> Any:
        """Return the memory at the start of a trial, a structure of tensors `[T, ...]`."""
        ...

    def act(self, memory: Any, seen: Seen, number: tf.Tensor, keys: TaskKeys) -> tuple[tf.Tensor, Any, Any]:
        """Choose an action for each trial.

        Args:
            memory: The memory after the step before.
            seen: The inputs of this step.
            number: The number of the step in its trial, int32 scalar.
            keys: The random numbers of this trial and step.

        Returns:
            The action, the new memory, and a structure of tensors `[T, ...]` to record, or ().
        """
        ...


class Rollout(NamedTuple):
    """Hold the steps of a batch of trials in order, `[N, T, ...]`."""

    seen: Seen
    action: tf.Tensor
    reward: tf.Tensor
    gap: Any  # see `Outcome`
    recorded: Any  # as returned by the policy


def roll_out(source: TrialSource, trials: Trials, policy: Policy) -> Rollout:
    """Play all steps of the trials.

    Args:
        source: The environments.
        trials: A batch of T trials that `source` has sampled.
        policy: The policy that acts.

    Returns:
        All N = episodes x horizon steps.
    """
    steps, tasks = source.episodes * source.horizon, trials.keys.shape[0]
    state, observation = source.first(trials)
    seen = Seen(observation, *first_seen(source, tasks))
    memory = policy.start(tasks)

    def step(number: tf.Tensor, state: Any, seen: Seen, memory: Any):
        action, memory, recorded = policy.act(memory, seen, number, TaskKeys.of_trials(trials.keys, number))
        state, outcome = source.step(trials, state, action, number)
        after = Seen(outcome.observation, action, outcome.reward, outcome.terminal)
        return state, after, memory, Rollout(seen, action, outcome.reward, outcome.gap, recorded)

    *_, example = program(step).get_concrete_function(tf.constant(0), state, seen, memory).structured_outputs
    flat = tf.nest.flatten(example)
    arrays = [tf.TensorArray(one.dtype, steps, element_shape=one.shape) for one in flat]

    def body(number: tf.Tensor, state: Any, seen: Seen, memory: Any, arrays: list[tf.TensorArray]):
        state, seen, memory, happened = step(number, state, seen, memory)
        written = [array.write(number, one) for array, one in zip(arrays, tf.nest.flatten(happened), strict=True)]
        return number + 1, state, seen, memory, written

    *_, arrays = tf.while_loop(
        lambda number, *_: number < steps,
        body,
        (tf.constant(0), state, seen, memory, arrays),
        maximum_iterations=steps,
    )
    return tf.nest.pack_sequence_as(example, [array.stack() for array in arrays])


def first_seen(source: TrialSource, tasks: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return action, reward and terminal as a policy sees them before the first step of a trial."""
    actions = source.actions
    action = tf.zeros(tasks, tf.int32) if actions.discrete else tf.zeros((tasks, actions.size))
    return action, tf.zeros(tasks), tf.ones(tasks, tf.bool)


def encode(observations: Space, actions: Space, seen: Seen, dtype: tf.DType) -> tf.Tensor:
    """Return a policy's inputs `[..., D]`: observation, previous action, its raw reward and its end-of-episode flag.

    Discrete observations and actions are one-hot.
    """

    def vector(space: Space, value: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(value, space.size, dtype=dtype) if space.discrete else tf.cast(value, dtype)

    flags = tf.cast(tf.stack([tf.cast(seen.reward, dtype), tf.cast(seen.terminal, dtype)], axis=-1), dtype)
    return tf.concat([vector(observations, seen.observation), vector(actions, seen.action), flags], axis=-1)


def trial_metrics(rollout: Rollout, answered: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
    """Return the test metrics of trials, one value per trial `[T]`.

    A trial in which a reward or an output of the policy is not finite has diverged: its total reward is minus infinity,
    its regret infinite from that step on, and the action of that step is not a best one.

    Args:
        rollout: The trials as they were played.
        answered: Whether the policy's outputs are finite at each step, bool `[N, T]`; by default they are.

    Returns:
        total_reward, the undiscounted sum over the trial; regret, the expected loss of its actions against the best
        ones; optimal_actions, the fraction of steps with a best action. Also per step, `[T, N]`: regret_by_step, the
        regret up to each step; optimal_by_step, whether each action was a best one. Only total_reward is returned where
        the best actions are unknown.
    """
    reward = tf.reduce_sum(rollout.reward, axis=0)
    whole = tf.math.is_finite(reward) if answered is None else tf.math.is_finite(reward) & tf.reduce_all(answered, 0)
    total = {"total_reward": tf.where(whole, reward, -math.inf)}
    if isinstance(rollout.gap, tuple):
        return total
    gap = rollout.gap if answered is None else tf.where(answered, rollout.gap, math.inf)
    best = tf.transpose(tf.cast(gap <= 1e-6, tf.float32))  # [T, N]
    regret = tf.cumsum(tf.transpose(gap), axis=1)
    return total | {
        "regret": regret[:, -1],
        "optimal_actions": tf.reduce_mean(best, axis=1),
        "regret_by_step": regret,
        "optimal_by_step": best,
    }
