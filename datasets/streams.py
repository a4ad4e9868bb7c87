"""Streams of numbered tasks: few-shot episodes and trials of reinforcement learning, drawn, counted and named alike.

A stream is one split of a source with all that decides its tasks: their shape, where they have one, and a seed. Task
number i of it is the same whether it is drawn alone, in a batch, or by another process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

    from .tasks import Episode, Shape, Split, TaskSource
    from .trials import Trials, TrialSource

PIXELS_AT_ONCE = 1_000_000  # numbers that enter a network in one evaluation call; bounds its memory
EPISODES_AT_ONCE = 100
TRIALS_AT_ONCE = 1000


@dataclass(frozen=True)
class EpisodeStream:
    """Numbered few-shot tasks. Many workers draw each a part of a batch, since drawing them takes time."""

    source: TaskSource
    split: Split
    shape: Shape
    seed: int
    drawn_in_parts = True

    def sample(self, index: tf.Tensor | int, tasks: int) -> Episode:
        """Draw tasks number `index` to `index + tasks - 1`."""
        return self.source.sample(self.split, index, tasks, self.shape, self.seed)

    @property
    def examples(self) -> int:
        """Return the images or points of a task, support and queries."""
        return self.shape.way * (self.shape.shot + self.shape.query)

    @property
    def columns(self) -> dict[str, Any]:
        """Return what a row says of the tasks."""
        return self.shape._asdict()

    def at_once(self, most: int, beside_supports: bool = False) -> int:
        """Return the tasks of one evaluation call, at most `most`, so that its inputs stay below `PIXELS_AT_ONCE`.

        Args:
            most: tasks that there are to evaluate.
            beside_supports: whether each query enters the network with a support set of its own.
        """
        supports, queries = self.shape.way * self.shape.shot, self.shape.way * self.shape.query
        images = supports + queries * (supports + 1 if beside_supports else 1)
        fitting = PIXELS_AT_ONCE // (images * math.prod(self.source.input_shape[:2]))
        return max(1, min(most, EPISODES_AT_ONCE, fitting))


@dataclass(frozen=True)
class TrialStream:
    """Numbered trials. Each of many workers draws all of a batch: they are nothing before they are played."""

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


Stream = EpisodeStream | TrialStream
