"""What a task of reinforcement learning is. The letters of all shapes are defined here, once:

T trials in a batch. A trial is one environment, met for `episodes` episodes of at most `horizon` steps each, N =
episodes x horizon steps in all; what a policy remembers lasts for a trial (Duan et al. 2016, section 2.2).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from .streams import TrialStream
from .tasks import Shape, Split


class Space(NamedTuple):
    """What observations or actions are: whole numbers 0 .. size - 1, or vectors of `size` numbers."""

    size: int
    discrete: bool = True


class Trials(NamedTuple):
    """A batch of T trials."""

    parameters: dict[str, tf.Tensor]  # [T, ...], what tells one environment from another
    keys: tf.Tensor  # [T, 2] uint32, of each trial's own random numbers (`TaskKeys.of_trials`)
    drawn: tf.Tensor  # [T, n] int32, all that chance decided: equal rows, equal trials


class Outcome(NamedTuple):
    """What a step brings."""

    observation: tf.Tensor  # [T] int32, or [T, size] float32: after the last step of an episode, the first of the next
    reward: tf.Tensor  # [T] float32
    terminal: tf.Tensor  # [T] bool, whether this step ended an episode
    gap: Any  # [T] float32, V*(s) - Q*(s, a): what the action costs in expectation against the best one; () if unknown


class TrialSource(Protocol):
    """A distribution over environments; a source of your own is a subclass.

    `sample` is a pure function of (seed, split, index), `first` and `step` are pure functions of their arguments, all
    of which TensorFlow can trace; the chance in step `number` of a trial is a function of the trial's key and of that
    number, whatever was done before, so that policies compared on the same trials have the same luck (not so in
    gymnasium, whose generators go on from draw to draw).
    """

    name: str  # for messages
    trial: str  # what a trial is, for tables: "5 arms, 10 pulls"
    observations: Space
    actions: Space
    episodes: int  # in a trial
    horizon: int  # steps of an episode
    content_digest: str  # as in `TaskSource`
    in_memory: bool  # True
    compiles: bool  # whether `step` is of TensorFlow's operations alone, so that XLA may compile a whole trial

    @abstractmethod
    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, seed: int) -> Trials:
        """Trials number `index` to `index + tasks - 1` of the stream (seed, split)."""
        ...

    def stream(self, split: Split, shape: Shape, seed: int) -> TrialStream:
        """Return the numbered trials of one split and seed; a trial has no `shape`."""
        return TrialStream(self, split, seed)

    @abstractmethod
    def first(self, trials: Trials) -> tuple[Any, tf.Tensor]:
        """State of the environments, a structure of tensors `[T, ...]`, and the first observation."""
        ...

    @abstractmethod
    def step(self, trials: Trials, state: Any, action: tf.Tensor, number: tf.Tensor) -> tuple[Any, Outcome]:
        """Step `number` (int32 scalar, from 0, of the trial) with `action` `[T]` int32 or `[T, size]` float32."""
        ...
