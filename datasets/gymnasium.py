"""Trials in environments of Gymnasium (Towers et al. 2024), which step in Python on the host.

A task distribution is a function from a random generator to an environment: its random draws make one trial differ from
another. Each trial makes its own environment, seeded by the trial's key, so that it can be played again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from .errors import DataError
from .random import TaskKeys
from .tasks import Split
from .trials import Outcome, Space, Trials, TrialSource

Make = Callable[[np.random.Generator], gymnasium.Env]
MakeVector = Callable[[list[np.random.Generator]], VectorEnv]


class GymnasiumSource(TrialSource):
    """Sample trials of `episodes` x `horizon` steps each, as a `TrialSource`.

    An episode ends when the environment says so, or after `horizon` steps. The next one begins in the same environment,
    so episodes that end early leave time for more. Observations and actions are Discrete or Box. A Box is flattened,
    and actions are clipped to its bounds. The best actions are unknown, so there is no regret.

        import gymnasium
        from metarun.datasets.gymnasium import GymnasiumSource

        def make(generator):  # one task: a pole of its own length
            environment = gymnasium.make("CartPole-v1")
            environment.unwrapped.length = generator.uniform(0.25, 1.0)
            return environment

        source = GymnasiumSource("cartpoles", make, episodes=2, horizon=20)
        trials = source.sample("train", 0, 4, seed=0)
        state, observation = source.first(trials)  # observation: [4, 4]
    """

    content_digest = ""
    in_memory = True
    compiles = False

    def __init__(
        self,
        name: str,
        make: Make | None = None,
        *,
        episodes: int,
        horizon: int,
        make_vector: MakeVector | None = None,
        trial: str | None = None,
    ):
        """Make one environment and read its spaces.

        Args:
            name: The name of the source, for messages.
            make: A function that makes one environment from a random generator.
            episodes: The number of episodes that a trial has time for.
            horizon: The largest number of steps of an episode.
            make_vector: In place of `make`, a function that makes a vector environment with one environment per
                generator. It must reset in the same step (`AutoresetMode.SAME_STEP`) and limit its episodes itself.
            trial: A few words about a trial, for tables; default "2 episodes of 20".

        Raises:
            DataError: Not exactly one of `make` and `make_vector` is given, or a space is not Discrete or Box, or the
                vector environment does not reset in the same step.
        """
        if (make is None) == (make_vector is None):
            raise DataError(f"{name}: give either make or make_vector")
        self.name, self.episodes, self.horizon = name, episodes, horizon
        self.trial = trial or f"{episodes} episodes of {horizon}"
        self._make_vector = make_vector or _vector_of(make, horizon)
        self._playing: dict[int, VectorEnv] = {}
        self._made = 0
        probe = self._make_vector([np.random.default_rng(0)])
        self._spaces = probe.single_observation_space, probe.single_action_space
        self.observations, self.actions = (_space(name, space) for space in self._spaces)
        if probe.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise DataError(f"{name}: make_vector's environments must reset in the same step (AutoresetMode.SAME_STEP)")
        probe.close()

    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, seed: int) -> Trials:
        """Sample trials `index` to `index + tasks - 1`, see `TrialSource`."""
        words = tf.stack(TaskKeys.of_stream(seed, split, index, tasks).key, axis=1)
        return Trials({}, words, tf.bitcast(words, tf.int32))

    def first(self, trials: Trials) -> tuple[tf.Tensor, tf.Tensor]:
        """Make the environments; the state is the number of this batch of environments."""
        number, observation = tf.numpy_function(self._start, [trials.keys], [tf.int64, self._dtype])
        return tf.reshape(number, ()), self._shaped(observation, trials)

    def step(self, trials: Trials, state: tf.Tensor, action: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, Outcome]:
        """Step the environments, see `TrialSource`; random outcomes also depend on earlier actions."""
        dtypes = [tf.int64, self._dtype, tf.float32, tf.bool]
        same, observation, reward, terminal = tf.numpy_function(self._step, [state, action, number], dtypes)
        tasks = trials.keys.shape[0]
        outcome = Outcome(
            self._shaped(observation, trials),
            tf.ensure_shape(reward, (tasks,)),
            tf.ensure_shape(terminal, (tasks,)),
            (),
        )
        return tf.reshape(same, ()), outcome

    @property
    def _dtype(self) -> tf.DType:
        return tf.int32 if self.observations.discrete else tf.float32

    def _shaped(self, observation: tf.Tensor, trials: Trials) -> tf.Tensor:
        tasks = trials.keys.shape[0]
        return tf.ensure_shape(observation, (tasks,) if self.observations.discrete else (tasks, self.observations.size))

    def _start(self, keys: np.ndarray) -> tuple[np.int64, np.ndarray]:
        environments = self._make_vector([np.random.default_rng([*key, 0]) for key in keys])
        seeds: Any = [int(np.random.default_rng([*key, 1]).integers(2**31)) for key in keys]
        observation, _ = environments.reset(seed=seeds)
        self._made += 1
        self._playing[self._made] = environments
        return np.int64(self._made), self._encoded(observation)

    def _step(self, state: np.ndarray, action: np.ndarray, number: np.ndarray):
        environments = self._playing[int(state)]
        space: Any = self._spaces[1]
        if isinstance(space, gymnasium.spaces.Box):
            action = np.clip(action.reshape(-1, *space.shape), space.low, space.high).astype(space.dtype)
        else:
            action = action + space.start
        observation, reward, terminated, truncated, _ = environments.step(action)
        if int(number) == self.episodes * self.horizon - 1:
            self._playing.pop(int(state)).close()
        return np.int64(state), self._encoded(observation), reward.astype(np.float32), terminated | truncated

    def _encoded(self, observation: np.ndarray) -> np.ndarray:
        space: Any = self._spaces[0]
        if isinstance(space, gymnasium.spaces.Discrete):
            return (observation - space.start).astype(np.int32)
        return observation.reshape(len(observation), -1).astype(np.float32)


def _vector_of(make: Make | None, horizon: int) -> MakeVector:
    """Return a function that makes one environment per generator, each with a limit of steps per episode."""
    assert make is not None

    def make_vector(generators: list[np.random.Generator]) -> VectorEnv:
        def made(generator: np.random.Generator) -> Callable[[], gymnasium.Env]:
            return lambda: gymnasium.wrappers.TimeLimit(make(generator), horizon)

        return SyncVectorEnv([made(each) for each in generators], autoreset_mode=AutoresetMode.SAME_STEP)

    return make_vector


def _space(name: str, space: Any) -> Space:
    if isinstance(space, gymnasium.spaces.Discrete):
        return Space(int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        return Space(int(np.prod(space.shape)), discrete=False)
    raise DataError(f"{name}: {type(space).__name__} spaces are not supported: use Discrete or Box")
