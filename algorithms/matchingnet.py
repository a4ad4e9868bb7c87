"""Matching Networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016, https://arxiv.org/abs/1606.04080).

    p(y | x, S) = sum_i a(x, x_i) y_i                                        (equation 1)
    a(x, x_i) = softmax_i(cosine(f(x), g(x_i)) / temperature)                (section 2.1.1)

Full context embeddings (appendix A), with f' and g' the same network and D its dimensions:

    g(x_i, S) = h_i(forward LSTM) + h_i(backward LSTM) + g'(x_i)             (A.2)
    h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1})                     (equation 3)
    h_k = h^_k + f'(x)                                                       (equation 4)
    r_{k-1} = sum_i softmax_i(h_{k-1} . g(x_i)) g(x_i)                       (equations 5 and 6)
    f(x, S) = h_K, h_0 = c_0 = 0

The paper gives no optimizer, no K and no temperature. (Its equation has temperature 1, which learns slowly because the
attention can be at most e^2 times stronger for one image than another.) Batch norm as in protonet.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from ..datasets.tasks import Episode
from .embedding import MEMBERS, EmbeddingLearner, cosine_similarities
from .networks.feedforward import Parameters
from .options import MatchingNetworkOptions

DEFAULT_ATTENTION_STEPS = 5
TINY = 1e-37  # least attention to a class, whose logarithm is finite


class MatchingNetwork(EmbeddingLearner):
    """Classify a query by its attention to the support images."""

    options: MatchingNetworkOptions

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return the parameters of the three LSTMs of full context embeddings; none without these."""
        if not self.options.full_context_embeddings:
            return {}
        width, dtype = self.network.features, self.network.dtype
        return {
            **lstm_parameters("context/forward", width, width, dtype, self.network.seed + 1),
            **lstm_parameters("context/backward", width, width, dtype, self.network.seed + 2),
            **lstm_parameters("context/attention", width, 2 * width, dtype, self.network.seed + 3),
        }

    def summary(
        self, own: Parameters, supports: tf.Tensor, members: tf.Tensor | None, way: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return g(x_i, S) `[T, S, D]`, and which image is of which class, see `EmbeddingLearner`."""
        if self.options.full_context_embeddings:
            supports = self.embed_supports(own, supports)
        return {"supports": supports} | ({} if members is None else {MEMBERS: members})

    def compare(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, way: int | tf.Tensor
    ) -> tf.Tensor:
        """Return log p(y | x, S) `[T, Q, way]` from `[T, Q, D]`.

        The attention that a class of few images gets is not smaller for it: that of its images is averaged. Where all
        have equally many, this is the sum of equation 1.
        """
        log_attention = self.log_attention(own, known["supports"], queries)
        if MEMBERS in known:
            most = tf.reduce_max(log_attention, axis=-1, keepdims=True)
            masses = tf.matmul(tf.exp(log_attention - most), known[MEMBERS])  # [T, Q, way]
            return tf.nn.log_softmax(tf.math.log(tf.maximum(masses, masses.dtype.as_numpy_dtype(TINY))), axis=-1)
        tasks, count, examples = log_attention.shape
        by_class = tf.reshape(log_attention, (tasks, count, way, examples // way))
        return tf.reduce_logsumexp(by_class, axis=-1)

    def log_attention(self, own: Parameters, supports: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Return log a(x, x_i) `[T, Q, S]` from g(x_i, S) `[T, S, D]` and `[T, Q, D]`."""
        return tf.nn.log_softmax(self.cosines(own, supports, queries) / self.options.temperature, axis=-1)

    def cosines(self, own: Parameters, supports: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Return cosine(f(x), g(x_i)) `[T, Q, S]` from g(x_i, S) `[T, S, D]` and `[T, Q, D]`."""
        if self.options.full_context_embeddings:
            queries = self.embed_queries(own, queries, supports)
        return cosine_similarities(queries, supports)

    def score(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, logits: tf.Tensor
    ) -> tf.Tensor:
        """Return the largest cosine of each query with a support image, `[T, Q]`; the logits are normalised."""
        return tf.reduce_max(self.cosines(own, known["supports"], queries), axis=-1)

    def attention(self, batch: Episode) -> tf.Tensor:
        """Return a(x, x_i) of each query over the support images of its task, `[T, Q, S]`."""
        supports, queries = self.embed(batch)
        known = self.summary(self.own, supports, None, batch.classes.shape[1])
        return tf.exp(self.log_attention(self.own, known["supports"], queries))

    def comparison(self, way: int, supports: int, queries: int) -> int:
        """Return the multiply-adds of `logits` for one task."""
        width, cosines = self.network.features, queries * supports * self.network.features
        if not self.options.full_context_embeddings:
            return cosines
        read = 2 * supports * 4 * width * (width + width)  # two directions; kernel and recurrent weights of four gates
        attend = queries * 4 * width * (width + 2 * width) + 2 * cosines
        return cosines + read + (self.options.attention_steps or DEFAULT_ATTENTION_STEPS) * attend

    def embed_supports(self, own: Parameters, supports: tf.Tensor) -> tf.Tensor:
        """Return g(x_i, S) for each support image (A.2), `[T, S, D]` -> `[T, S, D]`."""
        forward = self._read(own, "context/forward", supports)
        backward = tf.reverse(self._read(own, "context/backward", tf.reverse(supports, [1])), [1])
        return forward + backward + supports

    def embed_queries(self, own: Parameters, queries: tf.Tensor, supports: tf.Tensor) -> tf.Tensor:
        """Return f(x, S) for each query `[T, Q, D]` (equations 3 to 6), from `[T, Q, D]` and g(x_i, S) `[T, S, D]`."""
        hidden = cell = tf.zeros_like(queries)
        for _ in range(self.options.attention_steps or DEFAULT_ATTENTION_STEPS):
            attention = tf.nn.softmax(tf.matmul(hidden, supports, transpose_b=True))  # [T, Q, S]
            read = tf.matmul(attention, supports)  # [T, Q, D]
            context = tf.concat([hidden, read], axis=-1)
            hidden, cell = self._lstm(own, "context/attention", queries, context, cell)
            hidden += queries
        return hidden

    def _read(self, own: Parameters, name: str, sequence: tf.Tensor) -> tf.Tensor:
        """Return the hidden states of an LSTM along axis 1, `[T, S, D]` -> `[T, S, D]`."""
        zeros = tf.zeros_like(sequence[:, 0])

        def step(state: tuple[tf.Tensor, tf.Tensor], x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._lstm(own, name, x, *state)

        hidden, _ = tf.scan(step, tf.transpose(sequence, (1, 0, 2)), (zeros, zeros))  # [S, T, D]
        return tf.transpose(hidden, (1, 0, 2))

    def _lstm(
        self, own: Parameters, name: str, x: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute one LSTM step (Hochreiter and Schmidhuber 1997); gate order: input, forget, candidate, output."""
        weights = {part: own[f"{name}/{part}"] for part in ("kernel", "recurrent", "bias")}
        gates = tf.matmul(x, weights["kernel"]) + tf.matmul(hidden, weights["recurrent"]) + weights["bias"]
        enter, forget, candidate, leave = tf.split(gates, 4, axis=-1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(candidate)
        return tf.sigmoid(leave) * tf.tanh(cell), cell


def lstm_parameters(name: str, width: int, hidden: int, dtype: tf.DType, seed: int) -> dict[str, tf.Variable]:
    """Return the parameters of an LSTM: a Glorot kernel, an orthogonal recurrent matrix, and a bias.

    Args:
        name: The prefix of the parameters' names.
        width: The width of inputs and outputs; the kernel is `[width, 4 width]`.
        hidden: The width of the recurrent input; the recurrent matrix is `[hidden, 4 width]`.
        dtype: The dtype of the parameters.
        seed: The seed of both initializers. The bias is 0, and 1 for the forget gate.
    """
    kernel = keras.initializers.GlorotUniform(seed)((width, 4 * width), dtype=dtype.name)
    recurrent = keras.initializers.Orthogonal(seed=seed)((hidden, 4 * width), dtype=dtype.name)
    bias = tf.concat([tf.zeros(width, dtype), tf.ones(width, dtype), tf.zeros(2 * width, dtype)], axis=0)
    parts = {"kernel": kernel, "recurrent": recurrent, "bias": bias}
    return {f"{name}/{part}": tf.Variable(value, name=f"{name}/{part}") for part, value in parts.items()}
