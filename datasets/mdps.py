"""Random tabular Markov decision processes (Duan et al. 2016, section 3.2).

P(. | s, a) ~ Dirichlet, mean reward R(s, a) ~ N, reward noise N; all of them independent, fixed for a trial. Every
episode starts in state 0. The state after its last step is never observed.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from .options import MDPsOptions
from .random import TaskKeys
from .tasks import Split
from .trials import Outcome, Space, Trials, TrialSource

Backup = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class MDPsSource(TrialSource):
    """Sample MDPs, as a `TrialSource`. Parameters of a trial: `transitions` [T, S, A, S], `rewards` [T, S, A], `gaps`
    [T, H, S, A].

    The state of an environment is the current state of its process, `[T]` int32.
    """

    name = "mdps"
    regression = False
    content_digest = ""
    in_memory = compiles = True

    def __init__(self, options: MDPsOptions):
        self.options = options
        self.observations, self.actions = Space(options.states), Space(options.actions)
        self.episodes, self.horizon = options.episodes, options.horizon
        self.trial = f"{options.states} states, {options.actions} actions, {options.episodes} episodes"

    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, seed: int) -> Trials:
        """Sample trials `index` to `index + tasks - 1`, see `TrialSource`."""
        options, shape = self.options, (self.options.states, self.options.actions)
        keys = TaskKeys.of_stream(seed, split, index, tasks)
        rewards = options.reward_mean + options.reward_std * keys.normal("rewards", *shape)
        rewards = tf.cast(rewards, tf.float32)  # [T, S, A]
        concentration = tf.fill((tasks, *shape, options.states), tf.constant(options.dirichlet, tf.float64))
        transitions = tf.cast(tf.nn.softmax(keys.log_gamma("transitions", concentration)), tf.float32)
        values = backward_induction(expected_backup(rewards, transitions), rewards, options.horizon)
        gaps = tf.reduce_max(values, axis=-1, keepdims=True) - values
        words = tf.stack(keys.key, axis=1)
        drawn = [tf.reshape(tf.bitcast(part, tf.int32), (tasks, -1)) for part in (rewards, transitions, words)]
        return Trials({"transitions": transitions, "rewards": rewards, "gaps": gaps}, words, tf.concat(drawn, axis=1))

    def first(self, trials: Trials) -> tuple[tf.Tensor, tf.Tensor]:
        """Return state 0."""
        state = tf.zeros(trials.keys.shape[0], tf.int32)
        return state, state

    def step(self, trials: Trials, state: tf.Tensor, action: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, Outcome]:
        """Take step `number`, see `TrialSource`."""
        time, tasks = number % self.horizon, trials.keys.shape[0]
        keys = TaskKeys.of_trials(trials.keys, number)
        place = tf.stack([tf.range(tasks), state, action], axis=1)
        noise = self.options.reward_noise * tf.cast(keys.normal("noise"), tf.float32)
        reward = tf.gather_nd(trials.parameters["rewards"], place) + noise
        gap = tf.gather_nd(trials.parameters["gaps"][:, time], place)
        reached = tf.cumsum(tf.gather_nd(trials.parameters["transitions"], place), axis=1)  # [T, S]
        point = tf.cast(keys.uniform("outcome", 1), tf.float32) * reached[:, -1:]
        after = tf.reduce_sum(tf.cast(reached[:, :-1] <= point, tf.int32), axis=1)
        terminal = tf.fill((tasks,), time == self.horizon - 1)
        after = tf.where(terminal, 0, after)
        return after, Outcome(after, reward, terminal, gap)


def backward_induction(backup: Backup, like: tf.Tensor, horizon: int) -> tf.Tensor:
    """Return the action values Q_h `[T, H, S, A]` of h = 0 .. H - 1.

    Q_h = backup(max_a Q_{h+1}, H - 1 - h), with Q_H = 0.

    Args:
        backup: Maps the values `[T, S]` of the next states and the number of steps that follow to `[T, S, A]`.
        like: Any tensor `[T, S, A]`, for shape and dtype.
        horizon: The number H of steps.
    """

    def one(after: tf.Tensor, array: tf.TensorArray, follow: tf.Tensor):
        values = backup(tf.reduce_max(after, axis=-1), follow)
        return values, array.write(horizon - 1 - follow, values), follow + 1

    array = tf.TensorArray(like.dtype, horizon, element_shape=like.shape)
    _, array, _ = tf.while_loop(
        lambda after, array, follow: follow < horizon,
        one,
        (tf.zeros_like(like), array, tf.constant(0)),
        maximum_iterations=horizon,
    )
    return tf.transpose(array.stack(), (1, 0, 2, 3))


def expected_backup(rewards: tf.Tensor, transitions: tf.Tensor) -> Backup:
    """Return the Bellman equation: Q(s, a) = R(s, a) + sum over s' of P(s' | s, a) V(s')."""
    return lambda after, follow: rewards + tf.reduce_sum(transitions * after[:, None, None], axis=-1)


def build(options: MDPsOptions, dtype: str = "float32") -> MDPsSource:
    """Build the source of a spec. Rewards are float32, whatever the `dtype` of networks."""
    return MDPsSource(options)
