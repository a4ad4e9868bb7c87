"""A learner: a query has the class of the support image that is most similar to it."""

from typing import Any, Literal

from metarun.algorithms import Algorithm
from metarun.datasets.options import Options


class NearestOptions(Options):
    """Nearest neighbours of embeddings, by cosine similarity."""

    name: Literal["nearest"] = "nearest"
    temperature: float = 0.1


def learner() -> Any:
    import tensorflow as tf

    from metarun.algorithms.embedding import EmbeddingLearner, cosine_similarities

    class Nearest(EmbeddingLearner):
        def logits(self, own, supports, queries, way):
            similarities = cosine_similarities(queries, supports)  # [T, Q, S], class by class
            by_class = tf.reshape(similarities, (*queries.shape[:2], way, supports.shape[1] // way))
            return tf.reduce_max(by_class, axis=-1) / self.options.temperature

    return Nearest


nearest = Algorithm(NearestOptions, learner, has_head=False)
