"""Heads in closed form: nearest centroids, ridge regression, and similarities without training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..learner import Support
from ..programs import sizes
from .options import CentroidHeadOptions, RidgeHeadOptions, SimilarityHeadOptions

ROUNDING = 16  # roundings of the trace of a matrix, the least that is added to its diagonal: no pivot is then negative


class CentroidHead:
    """Find the nearest class mean (SimpleShot, Wang et al. 2019, section 2.1).

        UN    f
        L2N   f / |f|
        CL2N  (f - m) / |f - m|                    m is the mean feature of all training images
        p(y = k | x) = softmax_k(-|f(x) - c_k|^2)  c_k is the mean of the transformed support features of class k

    The class means are not normalised again.
    """

    def __init__(self, options: CentroidHeadOptions):
        self.options = options

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return the class means, and the mean that queries are centred by, see `Head`."""
        known = {}
        if self.options.features == "CL2N":
            assert mean is not None
            known["mean"] = tf.broadcast_to(mean, (sizes(features)[0], *mean.shape))
        transformed = self._transformed(features, known)
        return known | {"centroids": tf.matmul(support.members(features.dtype), transformed, transpose_a=True)}

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return minus the squared distances from the class means, see `Head`."""
        return -distances(self._transformed(queries, fitted), fitted["centroids"])

    def _transformed(self, features: tf.Tensor, known: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self.options.features == "UN":
            return features
        if "mean" in known:
            features = features - known["mean"][:, None]
        return tf.math.l2_normalize(features, axis=-1)


def distances(queries: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
    """Return squared distances `[T, Q, way]` of queries `[T, Q, D]` from class means `[T, way, D]`.

    One class after another: the differences from all need `way` times the memory of the queries. Products of queries
    and means, which need no differences, would lose the digits that large features have in common.
    """

    def of_class(centroid: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.math.squared_difference(queries, centroid[:, None]), axis=-1)

    by_class = tf.map_fn(of_class, tf.transpose(centroids, (1, 0, 2)), parallel_iterations=1)  # [way, T, Q]
    return tf.transpose(by_class, (1, 2, 0))


class RidgeHead:
    """Compute ridge regression from features to one-hot labels (R2D2, Bertinetto et al. 2019, equations 4 to 6).

        X = support features with a column of ones `[S, D + 1]`, Y = one-hot labels `[S, way]`
        W = X' (X X' + S lambda I)^-1 Y            where S <= D + 1, otherwise
        W = (X' X + S lambda I)^-1 X' Y
        logits = alpha X_q W + beta

    The penalty grows with the number of support images S, and the bias is penalised, as in the authors' code. Where
    classes have different numbers of images, each class counts alike. S lambda is at least 16 roundings of the trace of
    X X' (1 / 524,288 of it in float32): below that a support set with two equal images has no solution.
    """

    def __init__(self, options: RidgeHeadOptions):
        self.options = options

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return the weights W `[T, D + 1, way]`, see `Head`."""
        members = None if support.balanced else support.members(features.dtype)
        labels = tf.one_hot(support.y, support.way, dtype=features.dtype)
        return {"weights": ridge(features, labels, members, tf.constant(self.options.penalty, features.dtype))}

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return alpha X_q W, see `Head`."""
        return self.options.scale * tf.matmul(with_ones(queries), fitted["weights"])


def ridge(features: tf.Tensor, labels: tf.Tensor, members: tf.Tensor | None, penalty: tf.Tensor) -> tf.Tensor:
    """Return the weights of ridge regression for each task, `[T, D + 1, way]`, with derivatives; see `RidgeHead`.

    Args:
        features: Features of the support images, `[T, S, D]`.
        labels: Their one-hot labels, `[T, S, way]`.
        members: 1 / (images of the class) for the class of an image, otherwise 0, `[T, S, way]`. None: classes have
            equally many images.
        penalty: Lambda, a scalar.
    """
    x, y = with_ones(features), labels
    examples, dimensions = sizes(x)[1:]
    if members is not None:
        way = tf.cast(sizes(members)[2], x.dtype)
        root = tf.sqrt(tf.reduce_sum(members, axis=2, keepdims=True) * tf.cast(examples, x.dtype) / way)
        x, y = root * x, root * y
    diagonal = penalty * tf.cast(examples, x.dtype)
    if x.shape[1] is None or x.shape[1] <= dimensions:
        return tf.matmul(x, _solved(tf.matmul(x, x, transpose_b=True), y, diagonal), transpose_a=True)
    return _solved(tf.matmul(x, x, transpose_a=True), tf.matmul(x, y, transpose_a=True), diagonal)


def _solved(kernel: tf.Tensor, right: tf.Tensor, diagonal: tf.Tensor) -> tf.Tensor:
    """Return (kernel + diagonal I)^-1 right for each task; the diagonal is at least what `RidgeHead` says."""
    least = ROUNDING * np.finfo(kernel.dtype.as_numpy_dtype).eps * tf.linalg.trace(kernel)  # [T]
    diagonal = tf.maximum(diagonal, least)[:, None, None]
    kernel += diagonal * tf.eye(sizes(kernel)[1], dtype=kernel.dtype)
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(kernel), right)


def with_ones(features: tf.Tensor) -> tf.Tensor:
    """Return features with a last column of ones, `[T, N, D + 1]`."""
    return tf.concat([features, tf.ones_like(features[..., :1])], axis=-1)


class SimilarityHead:
    """Compare a query with support images by cosine similarity, which weights their labels (NIL, Raghu et al. 2020).

        logit_k = scale * mean over the support images x of class k of cos(f(x_q), f(x))

    The paper does not state a scale, nor what follows the weighting: here the mean of a class is its logit.
    """

    def __init__(self, options: SimilarityHeadOptions):
        self.options = options

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return the mean direction of each class `[T, way, D]`, see `Head`."""
        units = tf.math.l2_normalize(features, axis=-1)
        return {"directions": tf.matmul(support.members(features.dtype), units, transpose_a=True)}

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return the scaled mean similarities, see `Head`."""
        units = tf.math.l2_normalize(queries, axis=-1)
        return self.options.scale * tf.matmul(units, fitted["directions"], transpose_b=True)
