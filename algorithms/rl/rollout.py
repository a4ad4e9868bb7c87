"""Playing trials: a policy in a batch of environments, whole trials in one compiled loop."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from ...datasets.random import TaskKeys
from ...datasets.trials import Trials, TrialSource
from ..programs import program


class Seen(NamedTuple):
    """What a policy is told before a step (Duan et al. 2016, section 2.2), each `[T, ...]`.

    Before the first step of a trial: action 0, reward 0, terminal True.
    """

    observation: tf.Tensor  # now
    action: tf.Tensor  # of the step before
    reward: tf.Tensor  # that it brought
    terminal: tf.Tensor  # whether it ended an episode


class Policy(Protocol):
    """Who plays."""

    def start(self, tasks: int) -> Any:
        """What it remembers at the start of a trial: a structure of tensors `[T, ...]`."""
        ...

    def act(self, memory: Any, seen: Seen, number: tf.Tensor, keys: TaskKeys) -> tuple[tf.Tensor, Any, Any]:
        """Action, the new memory, and what else is to be recorded (a structure of tensors `[T, ...]`, or ()).

        `number` (int32 scalar) is that of the step; `keys` give random numbers of this trial and step.
        """
        ...


class Rollout(NamedTuple):
    """What happened, step after step: `[N, T, ...]`."""

    seen: Seen
    action: tf.Tensor
    reward: tf.Tensor
    gap: Any  # see `Outcome`
    recorded: Any  # what the policy recorded


def roll_out(source: TrialSource, trials: Trials, policy: Policy) -> Rollout:
    """Play all steps of the trials."""
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
    """Action, reward and terminal before the first step of a trial."""
    actions = source.actions
    action = tf.zeros(tasks, tf.int32) if actions.discrete else tf.zeros((tasks, actions.size))
    return action, tf.zeros(tasks), tf.ones(tasks, tf.bool)


def trial_metrics(rollout: Rollout) -> dict[str, tf.Tensor]:
    """What a test measures, one value a trial `[T]`.

    total_reward: undiscounted sum over the trial; regret: what its actions cost in expectation against the best ones;
    optimal_actions: the share of steps with a best action. Also `[T, N]`, step by step: the regret up to each, and
    whether each action was a best one. The regret is left out where the best actions are unknown.
    """
    total = {"total_reward": tf.reduce_sum(rollout.reward, axis=0)}
    if isinstance(rollout.gap, tuple):
        return total
    best = tf.transpose(tf.cast(rollout.gap <= 1e-6, tf.float32))  # [T, N]
    regret = tf.cumsum(tf.transpose(rollout.gap), axis=1)
    return total | {
        "regret": regret[:, -1],
        "optimal_actions": tf.reduce_mean(best, axis=1),
        "regret_by_step": regret,
        "optimal_by_step": best,
    }
