"""Tasks whose images are stored features: the tasks of an `ImageSource` without its images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..tasks import Split
from .source import ImageSource


class FeatureSource(ImageSource):
    """Sample the tasks that an image source samples, with a feature in place of each image.

    An input has the shape (1, 1, D): that of an image of one pixel with D channels.
    """

    def __init__(self, source: ImageSource, split: Split, features: tf.Tensor):
        """Keep the features of one split.

        Args:
            source: The source of the images.
            split: The split of the features.
            features: The features of its images, `[N, D]`, in the order of `ImageSource.labelled`.
        """
        vars(self).update(vars(source))
        self.pools = {split: source.pools[split]}
        self.features, self.input_shape, self.in_memory = features, (1, 1, features.shape[1]), True

    def _turned(self, split: Split, rows: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
        """Return the features of images `[T, way, n]`, turned as often as `turns`, `[T, way, n, D]`."""
        unturned = len(self.pools[split].images)
        return tf.gather(self.features, rows + unturned * turns[..., None])

    def _as_input(self, images: Any, tasks: int, each: int) -> tf.Tensor:
        return tf.reshape(images, (tasks, each, *self.input_shape))
