import tensorflow as tf

from metarun.algorithms.embedding import EmbeddingLearner


class ScaledCosine(EmbeddingLearner):
    """Compute p(y = k | x) = softmax_k(scale * cosine(f(x), mean of f over the support images of class k))."""

    def own_parameters(self):
        return {"scale": tf.Variable(self.options.scale, dtype=self.network.dtype, name="scale")}

    def logits(self, own, supports, queries, way):
        tasks, examples, width = supports.shape
        means = tf.reduce_mean(tf.reshape(supports, (tasks, way, examples // way, width)), axis=2)  # [T, way, D]
        cosines = tf.einsum("tqd,twd->tqw", tf.nn.l2_normalize(queries, -1), tf.nn.l2_normalize(means, -1))
        return own["scale"] * cosines

    def comparison(self, way, supports, queries):
        return queries * way * self.network.features
