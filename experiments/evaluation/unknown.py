"""Measure whether the scores of queries tell classes of a task from other classes (Snell and Zemel 2021, section 5.4).

A task has twice its classes: the first half is the task, with support and queries; of the others there are only
queries. The area under the ROC curve is the share of pairs, a query inside and one outside, of which the one inside has
the higher score; equal scores count half.
"""

from __future__ import annotations

import math

import tensorflow as tf

from ...algorithms.learner import FewShotLearner, Metrics, Support, classify_with_scores
from ...algorithms.metrics import are_finite
from ...datasets.errors import DataError
from ...datasets.tasks import Episode, EpisodeStream, Split
from ..model import Model, shape_of
from .measure import Evaluation, Judge


class TwiceTheClasses(EpisodeStream):
    """Tasks with as many classes outside, whose shape in a row is that of the classes inside."""

    @property
    def columns(self) -> dict[str, int]:
        """Return what a row says of the tasks."""
        return self.shape._replace(way=self.shape.way // 2)._asdict()


def unknown_of(model: Model, split: Split) -> Evaluation:
    """Return the evaluation of a model on test tasks drawn from `split`, with as many classes outside.

    Raises DataError if the split has fewer than twice the classes of a task.
    """
    test, source = model.experiment.test, model.test_source
    shape = shape_of(test)
    shape = shape._replace(way=2 * shape.way)
    try:
        source.check(split, shape)
    except DataError as error:
        raise DataError(f"--unknown draws {test.way} classes inside and {test.way} outside the task: {error}") from None
    stream = TwiceTheClasses(source, split, shape, test.episode_seed)
    return Evaluation(model.learner, stream, test.episodes, model.workers, UNKNOWN)


def unknown_metrics(learner: FewShotLearner, batch: Episode) -> Metrics:
    """Return auroc_unknown `[T]`, and the number of queries whose outputs are not finite, not_finite `[T]`.

    Args:
        learner: a learner with `fit` and `classify`.
        batch: tasks with 2 x way classes, class after class.
    """
    way, supports, queries = (each.shape[1] // 2 for each in (batch.classes, batch.support_y, batch.query_y))
    support = Support(batch.support_x[:, :supports], batch.support_y[:, :supports], way, batch.drawn, True)
    logits, scores = classify_with_scores(learner, learner.fit(support), batch.query_x, way)
    finite = are_finite(logits) & tf.math.is_finite(scores)
    scores = tf.where(finite, scores, tf.constant(math.nan, scores.dtype))
    lost = tf.reduce_sum(tf.cast(~finite, tf.float64), axis=1)
    return {"auroc_unknown": auroc(scores[:, :queries], scores[:, queries:]), "not_finite": lost}


UNKNOWN = Judge(unknown_metrics, {"judged": "unknown"})


def auroc(inside: tf.Tensor, outside: tf.Tensor) -> tf.Tensor:
    """Return the area under the ROC curve of each task, float64 `[T]`, as the statistic of Mann and Whitney.

    A score that is not a number loses each of its pairs.

    Args:
        inside: scores that should be high, `[T, N]`.
        outside: scores that should be low, `[T, M]`.
    """
    higher = tf.cast(inside[:, :, None] > outside[:, None], tf.float64)
    equal = tf.cast(tf.equal(inside[:, :, None], outside[:, None]), tf.float64)
    return tf.reduce_mean(higher + equal / 2, axis=[1, 2])
