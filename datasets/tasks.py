"""Tasks of supervised learning. The letters of all shapes are defined here, once.

T tasks in a batch, W ways (classes per task), K shots (support images per class), S = W x K support images, Q query
images per task (W x query-per-class), H x W x C an image. Rows are class-major: all of the first class, then all of the
second.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import tensorflow as tf

Split = Literal["train", "val", "test", "within-alphabet", "lake-one-shot"]  # the last two: further tests of omniglot
PIXELS_AT_ONCE = 1_000_000  # numbers that enter a network in one evaluation call; bounds its memory
CHANNELS_OF_PIXEL = 16  # channels that count as one pixel: images have at most 4, stored features thousands
EPISODES_AT_ONCE = 100  # tasks of one evaluation call, at most


class Episode(NamedTuple):
    """Hold a batch of T tasks."""

    support_x: tf.Tensor  # [T, S, *x] float
    support_y: tf.Tensor  # [T, S] int32 labels 0..way-1, or [T, S, *y] float targets
    query_x: tf.Tensor  # [T, Q, *x] float
    query_y: tf.Tensor  # [T, Q] or [T, Q, *y]
    classes: tf.Tensor  # [T, way] int32, the class behind each label; [T, 0] in regression
    drawn: tf.Tensor  # [T, n] int32, all random choices: equal rows, equal tasks


class LabelledImages(NamedTuple):
    """Hold a batch of N images with the numbers of their classes, on which a classifier of all classes is trained."""

    x: tf.Tensor  # [N, *x] float
    y: tf.Tensor  # [N] int32
    drawn: tf.Tensor  # [N, n] int32, all random choices


class Shape(NamedTuple):
    """Hold the size of a task, which has way x (shot + query) images."""

    way: int
    shot: int
    query: int  # per class; in regression: points per task, and way is 1


class TaskSource(Protocol):
    """Define a distribution over tasks; a source of your own is a subclass.

    `sample` is a pure function of (seed, split, index) that TensorFlow can trace. Task number i is the same whether it
    is drawn alone, in a batch, or by another process.
    """

    name: str  # for messages
    input_shape: tuple[int, ...]  # one x
    target_shape: tuple[int, ...]  # one y in regression; () in classification
    regression: bool
    content_digest: str  # of data that the spec does not determine, such as a user's folder; "" if there are none
    in_memory: bool  # False: `sample` reads files; draw through tf.data, so that reading overlaps

    @abstractmethod
    def check(self, split: Split, shape: Shape) -> None:
        """Raise DataError, one clear line, unless `split` can give tasks of this shape."""
        ...

    @abstractmethod
    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, shape: Shape, seed: int) -> Episode:
        """Sample tasks `index` to `index + tasks - 1` of the stream (seed, split).

        Args:
            split: "train", "val" or "test".
            index: The number of the first task, from 0; an int or an integer scalar tensor.
            tasks: The number T of tasks.
            shape: The size of each task.
            seed: The seed of the stream.
        """
        ...

    def stream(self, split: Split, shape: Shape, seed: int) -> EpisodeStream:
        """Return the numbered tasks of one split, shape and seed."""
        return EpisodeStream(self, split, shape, seed)


@dataclass(frozen=True)
class EpisodeStream:
    """Draw the numbered tasks of one split of a source, with all that decides them.

    Task number i is the same whether it is drawn alone, in a batch, or by another process. Of many workers each draws a
    part of a batch, since drawing takes time.
    """

    source: TaskSource
    split: Split
    shape: Shape
    seed: int
    augment: Any = None  # an `Augment`: random changes of training images, which not every source can make
    drawn_in_parts = True

    def sample(self, index: tf.Tensor | int, tasks: int) -> Episode:
        """Draw tasks number `index` to `index + tasks - 1`."""
        if self.augment is None:
            return self.source.sample(self.split, index, tasks, self.shape, self.seed)
        source: Any = self.source
        return source.sample(self.split, index, tasks, self.shape, self.seed, augment=self.augment)

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
        shape = self.source.input_shape
        pixels = math.prod(shape[:2]) * math.ceil(math.prod(shape[2:]) / CHANNELS_OF_PIXEL)
        fitting = PIXELS_AT_ONCE // (images * pixels)
        return max(1, min(most, EPISODES_AT_ONCE, fitting))


@dataclass(frozen=True)
class ImageStream:
    """Draw the numbered images of one split of a source, epoch after epoch, each in a new random order.

    Number i is place i % N of epoch i // N, where the split has N images: each epoch holds each image once. A batch
    may end one epoch and begin the next.
    """

    source: Any  # an ImageSource
    split: Split
    seed: int
    augment: Any = None  # an `Augment`: random changes of the images
    drawn_in_parts = True
    examples = 1  # of what is drawn at once

    def sample(self, index: tf.Tensor | int, images: int) -> LabelledImages:
        """Draw the images with numbers `index` to `index + images - 1`."""
        return self.source.shuffled(self.split, index, images, self.seed, self.augment)


def task_number(number: int) -> tf.Tensor:
    """Return the number of a task, or of a batch of tasks, as a scalar that programs take: int64."""
    return tf.constant(number, tf.int64)
