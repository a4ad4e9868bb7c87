"""Tasks that are written down: their images are given, and nothing is drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ..errors import DataError
from ..tasks import Episode, Shape, Split, TaskSource
from .preprocessing import Preprocessing


class FixedTasks(TaskSource):
    """Sample N given tasks, which are one split, as a `TaskSource`. Task number i is the task i modulo N for every
    seed.

    Images are returned as (x / 255 - mean) / std.
    """

    regression = False
    target_shape: tuple[int, ...] = ()
    content_digest = ""
    in_memory = True

    def __init__(
        self,
        name: str,
        split: Split,
        images: np.ndarray,
        shot: int,
        groups: Sequence[str],
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        dtype: str = "float32",
    ):
        """Keep the tasks.

        Args:
            name: The name of the source, for messages.
            split: The name of its split.
            images: uint8 [N, way, shot + query, H, W, C], the support images of each class first.
            shot: Support images per class.
            groups: The group of each task in a report of errors, such as an alphabet.
            mean: The mean of each channel, or one for all, of pixels from 0 to 1.
            std: The standard deviation, likewise.
            dtype: The dtype of the inputs.
        """
        self.name, self.split, self.images, self.groups = name, split, images, tuple(groups)
        self.shape = Shape(images.shape[1], shot, images.shape[2] - shot)
        self.input_shape: tuple[int, ...] = images.shape[3:]
        self.dtype = tf.as_dtype(dtype)
        height, width, channels = self.input_shape
        self.preprocessing = Preprocessing(
            height=height, width=width, channels=channels, mean=tuple(map(float, mean)), std=tuple(map(float, std))
        )

    def check(self, split: Split, shape: Shape) -> None:
        """Raise DataError unless the tasks are of this split and shape."""
        if (split, shape) != (self.split, self.shape):
            raise DataError(f"{self.name} has tasks of {self.split}, {self.shape}, and none of {split}, {shape}")

    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, shape: Shape, seed: int) -> Episode:
        """Return tasks `index` to `index + tasks - 1`, see `TaskSource`."""
        way, shot, query = self.shape
        number = tf.cast((tf.cast(index, tf.int64) + tf.range(tasks, dtype=tf.int64)) % len(self.images), tf.int32)
        images = tf.gather(tf.constant(self.images), number)  # [T, way, shot + query, H, W, C]
        classes = number[:, None] * way + tf.range(way)  # [T, way]
        return Episode(
            self._as_input(images[:, :, :shot], tasks),
            tf.tile(tf.repeat(tf.range(way), shot)[None], (tasks, 1)),
            self._as_input(images[:, :, shot:], tasks),
            tf.tile(tf.repeat(tf.range(way), query)[None], (tasks, 1)),
            classes,
            classes,
        )

    def pixels(self, x: tf.Tensor) -> np.ndarray:
        """Return the images of inputs, from 0 to 1."""
        return self.preprocessing.pixels(x)

    def _as_input(self, images: tf.Tensor, tasks: int) -> tf.Tensor:
        return self.preprocessing.as_input(tf.reshape(images, (tasks, -1, *self.input_shape)), self.dtype)
