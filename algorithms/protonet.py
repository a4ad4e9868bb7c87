"""Prototypical Networks (Snell, Swersky and Zemel 2017, https://arxiv.org/abs/1703.05175).

    c_k = mean of f_phi(x) over the support images x of class k              (equation 1)
    p(y = k | x) = softmax_k(-d(f_phi(x), c_k))                              (equation 2)
    J = mean over queries of -log p(y = k | x)                               (Algorithm 1)

d is the squared Euclidean distance; "cosine" is 1 - cosine similarity (the paper's section 3.1 compares both).

Batch norm as in the paper's code: in training support and queries are one batch; at test the running averages are
used (inductive). `transductive` tests with the batch statistics of support and queries together.
Deviation: by default the convolutions start from Glorot's uniform distribution, the scales of batch norm from 1, and
its epsilon is 1e-3. The paper's code had PyTorch's; so have the paper's specs (`network.initializer: pytorch`).
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from .embedding import EmbeddingLearner, cosine_similarities, squared_distances
from .networks.feedforward import Parameters
from .options import PrototypicalNetworkOptions


class PrototypicalNetwork(EmbeddingLearner):
    """Classify a query by its distance from the mean embedding of each class."""

    options: PrototypicalNetworkOptions

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return the factor of the distances, if it is learned."""
        if not self.options.learn_scale:
            return {}
        return {"distance/scale": tf.Variable(tf.ones((), self.network.dtype), name="distance/scale")}

    def summary(
        self, own: Parameters, supports: tf.Tensor, members: tf.Tensor | None, way: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the prototypes c_k `[T, way, D]` (equation 1), see `EmbeddingLearner`."""
        if members is not None:
            return {"prototypes": tf.matmul(members, supports, transpose_a=True)}
        tasks, examples, dimensions = supports.shape
        by_class = tf.reshape(supports, (tasks, way, examples // way, dimensions))
        return {"prototypes": tf.reduce_mean(by_class, axis=2)}

    def compare(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, way: int | tf.Tensor
    ) -> tf.Tensor:
        """Return -d(f(x), c_k) `[T, Q, way]` (equation 2) from `[T, Q, D]`."""
        if self.options.distance == "cosine":
            scores = cosine_similarities(queries, known["prototypes"]) - 1.0
        else:
            scores = -squared_distances(queries, known["prototypes"])
        return scores * own["distance/scale"] / self.network.features if self.options.learn_scale else scores

    def comparison(self, way: int, supports: int, queries: int) -> int:
        """Return the multiply-adds of `logits` for one task."""
        return queries * way * self.network.features
