"""Tasks of reinforcement learning. The letters of all shapes are defined here, once.

T trials in a batch. A trial is one environment, played for `episodes` episodes of at most `horizon` steps each, N =
episodes x horizon steps in all. A policy's memory lasts for one trial (Duan et al. 2016, section 2.2).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from .tasks import Shape, Split

TRIALS_AT_ONCE = 1000  # trials of one evaluation call, at most


class Space(NamedTuple):
    """Hold a space of observations or actions: integers 0 .. size - 1, or vectors of `size` numbers."""

    size: int
    discrete: bool = True


class Trials(NamedTuple):
    """Hold a batch of T trials."""

    parameters: dict[str, tf.Tensor]  # [T, ...], what distinguishes the environments
    keys: tf.Tensor  # [T, 2] uint32, the key of each trial's random numbers (`TaskKeys.of_trials`)
    drawn: tf.Tensor  # [T, n] int32, all random choices: equal rows, equal trials


class Outcome(NamedTuple):
    """Hold the result of a step."""

    observation: tf.Tensor  # [T] int32, or [T, size] float32: after the last step of an episode, the first of the next
    reward: tf.Tensor  # [T] float32
    terminal: tf.Tensor  # [T] bool, whether this step ended an episode
    gap: Any  # [T] float32, V*(s) - Q*(s, a): what the action costs in expectation against the best one; () if unknown


class TrialSource(Protocol):
    """Define a distribution over environments; a source of your own is a subclass.

    `sample` is a pure function of (seed, split, index). `first` and `step` are pure functions of their arguments.
    TensorFlow can trace all of them. The random outcome of step `number` depends only on the trial's key and on that
    number, not on earlier actions. So policies compared on the same trials get the same random outcomes. (Not so in
    Gymnasium, whose generators advance with each draw.)
    """

    name: str  # for messages
    trial: str  # what a trial is, for tables: "5 arms, 10 pulls"
    observations: Space
    actions: Space
    episodes: int  # in a trial
    horizon: int  # steps of an episode
    content_digest: str  # as in `TaskSource`
    in_memory: bool  # always True
    compiles: bool  # whether `step` has TensorFlow operations only, so that XLA can compile a whole trial

    @abstractmethod
    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, seed: int) -> Trials:
        """Sample trials `index` to `index + tasks - 1` of the stream (seed, split), see `TaskSource`."""
        ...

    def stream(self, split: Split, shape: Shape, seed: int) -> TrialStream:
        """Return the numbered trials of one split and seed; a trial has no `shape`."""
        return TrialStream(self, split, seed)

    @abstractmethod
    def first(self, trials: Trials) -> tuple[Any, tf.Tensor]:
        """Return the state of the environments, a structure of tensors `[T, ...]`, and the first observation."""
        ...

    @abstractmethod
    def step(self, trials: Trials, state: Any, action: tf.Tensor, number: tf.Tensor) -> tuple[Any, Outcome]:
        """Take one step in each trial.

        Args:
            trials: A batch of T trials.
            state: The state before the step.
            action: `[T]` int32, or `[T, size]` float32.
            number: The number of the step in its trial, from 0, int32 scalar.

        Returns:
            The next state, and the outcome.
        """
        ...


@dataclass(frozen=True)
class TrialStream:
    """Draw the numbered trials of one split of a source. Each of many workers draws all of a batch and plays a part."""

    source: TrialSource
    split: Split
    seed: int
    drawn_in_parts = False

    def sample(self, index: tf.Tensor | int, tasks: int) -> Trials:
        """Draw trials number `index` to `index + tasks - 1`."""
        return self.source.sample(self.split, index, tasks, self.seed)

    @property
    def examples(self) -> int:
        """Return the steps of a trial."""
        return self.source.episodes * self.source.horizon

    @property
    def columns(self) -> dict[str, Any]:
        """Return what a row says of the trials."""
        return {"trial": self.source.trial}

    def at_once(self, most: int, beside_supports: bool = False) -> int:
        """Return the trials of one evaluation call, at most `most`."""
        return min(most, TRIALS_AT_ONCE)
