"""R2D2, ridge regression differentiable discriminator (Bertinetto, Henriques, Torr and Vedaldi 2019,
https://arxiv.org/abs/1805.08136).

    W(Z) = Z' (Z Z' + lambda I)^-1 Y           ridge regression on the support features Z, in closed form (equation 4)
    L = cross-entropy of alpha Z_q W + beta    on the queries, differentiated through W                  (equation 6)

alpha and beta are learned, and with `learn_penalty` so is lambda, as its logarithm; weight decay reaches all three. As
in the authors' code Z has a column of ones, the penalty is lambda times the number of support images, and lambda is 50.
Deviation: tasks have one number of shots, where the authors draw it from 1 to 9; the network is conv4 or another one of
the spec, where theirs joins the last two blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from .embedding import EmbeddingLearner
from .heads.closed import ridge, with_ones
from .networks.feedforward import Parameters
from .options import R2D2Options
from .programs import sizes


class R2D2(EmbeddingLearner):
    """Classify queries by ridge regression on the support set of their task."""

    options: R2D2Options

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return alpha, beta and, if it is learned, log lambda."""
        dtype, options = self.network.dtype, self.options
        values = {"ridge/scale": options.scale, "ridge/offset": 0.0}
        if options.learn_penalty:
            values["ridge/log_penalty"] = math.log(options.penalty)
        return {name: tf.Variable(tf.constant(value, dtype), name=name) for name, value in values.items()}

    def summary(
        self, own: Parameters, supports: tf.Tensor, members: tf.Tensor | None, way: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the weights W `[T, D + 1, way]` (equation 4), see `EmbeddingLearner`."""
        if members is None:
            tasks, examples = sizes(supports)[:2]
            labels = tf.one_hot(tf.range(examples) // (examples // way), way, dtype=supports.dtype)
            labels = tf.broadcast_to(labels, (tasks, *labels.shape))
        else:
            labels = tf.cast(members > 0, supports.dtype)
        penalty = tf.constant(self.options.penalty, supports.dtype)
        if self.options.learn_penalty:
            penalty = tf.exp(own["ridge/log_penalty"])
        return {"weights": ridge(supports, labels, members, penalty)}

    def compare(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, way: int | tf.Tensor
    ) -> tf.Tensor:
        """Return alpha Z_q W + beta `[T, Q, way]` from `[T, Q, D]`."""
        return own["ridge/scale"] * tf.matmul(with_ones(queries), known["weights"]) + own["ridge/offset"]

    def comparison(self, way: int, supports: int, queries: int) -> int:
        """Return the multiply-adds of `logits` for one task: products with the features."""
        width = self.network.features + 1
        return width * (min(supports, width) * supports + (supports + queries) * way)
