"""The modified Hausdorff distance between drawings (Dubuisson and Jain 1994), the baseline of Lake's one-shot test.

The ink of a drawing is a set of points, (row, column), minus their mean. With

    d(A, B) = mean over a in A of  min over b in B of  |a - b|          the directed distance
    D(A, B) = max(d(A, B), d(B, A))                                     the modified Hausdorff distance

a query has the class of the support image at the smallest D, of the first one on ties. Nothing is learned, and each
query is judged alone. To subtract the mean is what the demonstration beside the data of Lake's test does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..datasets.tasks import Episode
from .options import HausdorffOptions


class ModifiedHausdorff:
    """Find the nearest support image by the modified Hausdorff distance, with the interface of a learner."""

    variables: list[tf.Variable] = []
    parameters: dict[str, tf.Variable] = {}

    def __init__(self, options: HausdorffOptions, source: Any):
        """Keep the source, whose `pixels` tells ink (1) from background (0)."""
        self.options, self.source = options, source

    def evaluate(self, batch: Episode) -> dict[str, tf.Tensor]:
        """Return the accuracy of each task, `[T]`. Distances are no probabilities, so there is no other metric."""
        scores = self.predict(batch)[0]
        answers = tf.numpy_function(_first_best, [scores], tf.int32, stateful=False)
        answers = tf.ensure_shape(answers, scores.shape[:2])
        return {"accuracy": tf.reduce_mean(tf.cast(tf.equal(answers, batch.query_y), tf.float64), axis=1)}

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return scores of the queries, minus the smallest distance to each class, float64 `[1, T, Q, way]`."""
        tasks, queries, way = batch.query_x.shape[0], batch.query_x.shape[1], batch.classes.shape[1]
        inputs = [batch.support_x, batch.query_x]
        distances = tf.numpy_function(self._distances, inputs, tf.float64, stateful=False)
        distances = tf.reshape(distances, (tasks, queries, way, -1))  # supports are class-major
        return -tf.reduce_min(distances, axis=-1)[None]

    def _distances(self, supports: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Return D of each query and each support image, float64 `[T, Q, S]`."""
        sets = [[[_points(image) for image in task] for task in self.source.pixels(x)] for x in (supports, queries)]
        return np.array(
            [
                [[distance(query, support) for support in task] for query in asked]
                for task, asked in zip(*sets, strict=True)
            ]
        )


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the modified Hausdorff distance of two sets of points, `[N, 2]` and `[M, 2]`; of an empty set infinity."""
    if not len(one) or not len(other):
        return np.inf
    squares = (one[:, None, 0] - other[None, :, 0]) ** 2 + (one[:, None, 1] - other[None, :, 1]) ** 2
    return max(np.sqrt(squares.min(axis=1)).mean(), np.sqrt(squares.min(axis=0)).mean())


def _points(image: np.ndarray) -> np.ndarray:
    """Return the places of the ink of an image `[H, W, 1]`, minus their mean, float64 `[N, 2]`."""
    points = np.argwhere(image[..., 0] > 0.5).astype(np.float64)
    return points - points.mean(axis=0) if len(points) else points


def _first_best(scores: np.ndarray) -> np.ndarray:
    """Return the class with the best score, the first one on ties, which TensorFlow does not promise; -1 if none is."""
    return np.where(np.isfinite(scores).any(axis=-1), scores.argmax(axis=-1), -1).astype(np.int32)
