"""Measure a support set by itself: leave an image out, adapt to the rest, and classify it.

The answers say how well the classes can be told apart, and their scores what score an image of a known class has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...algorithms.embedding import EmbeddingLearner
from ...algorithms.learner import classify_with_scores
from ...algorithms.programs import program
from ...datasets.errors import counted
from ..stats import mean_and_ci95
from ..system import signals
from ..system.progress import Progress
from .classifier import Task, labels_of, takes_any_counts
from .files import SupportFiles, SupportImages
from .model import TrainedModel

MOST = 100  # images that are left out, by default: gradient-based learners adapt anew for each
SHOWN = 5  # pairs of classes that are confused


class LeftOut(NamedTuple):
    """Hold the answers for n images that were left out of the support set, each alone."""

    rows: np.ndarray  # [n] rows of the support set
    labels: np.ndarray  # [n] numbers of the classes that they are of
    answers: np.ndarray  # [n] numbers of the classes that were predicted; -1 where an output is not finite
    scores: np.ndarray  # [n] see `classify_with_scores`
    possible: int  # images that could have been left out
    why: str = ""  # why none could be; "" also where none was asked for


def leave_one_out(
    model: TrainedModel, support: SupportImages, most: int = MOST, drawn: np.ndarray | None = None
) -> LeftOut:
    """Classify images of a support set, one at a time, each by the rest of it.

    An image that is the only one of its class cannot be left out.

    Args:
        model: the trained learner.
        support: the support set.
        most: the largest number of images, spread evenly over the classes, chosen by their pixels.
        drawn: as in `Task`.
    """
    possible = sum(count for count in support.files.counts if count > 1)
    if not takes_any_counts(model):
        return _none(f"{model.experiment.algorithm.name} takes equally many images of each class")
    if not possible:
        return _none("every class has one image")
    if not most:
        return _none("")
    task, rows = Task(model, support, drawn), chosen(support, most)
    answer = _answering(model, task)
    found = []
    with Progress("leave-one-out", len(rows), unit="image") as progress:
        for row in rows:
            signals.check()
            found.append([each.numpy() for each in answer(tf.constant(row, tf.int32))])
            progress.advance()
    logits, scores = map(np.array, zip(*found, strict=True))
    return LeftOut(rows, support.labels[rows], labels_of(logits), scores, possible)


def _none(why: str) -> LeftOut:
    nothing = np.zeros(0, int)
    return LeftOut(nothing, nothing, nothing, np.zeros(0), 0, why)


def chosen(support: SupportImages, most: int) -> np.ndarray:
    """Return the rows of at most `most` images that can be left out, as many of each class as possible, sorted."""
    places = []
    first = 0
    for count in support.files.counts:
        rows = sorted(range(first, first + count), key=support.digests.__getitem__)
        places += [(place, support.digests[row], row) for place, row in enumerate(rows) if count > 1]
        first += count
    return np.array(sorted(row for *_, row in sorted(places)[:most]), np.int32)


def _answering(model: TrainedModel, task: Task) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return a program that maps the row of an image to its logits `[way]` and its score, without it in the support."""
    learner: Any = model.learner

    def adapted(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fitted = learner.fit(task.without(row))
        logits, scores = classify_with_scores(learner, fitted, tf.gather(task.x, row, axis=1)[:, None], task.way)
        return logits[0, 0], scores[0, 0]

    if not isinstance(learner, EmbeddingLearner) or learner.problem.protocol == "transductive":
        return program(adapted)
    embedded = program(lambda: learner.network(learner.network.parameters, task.x, running=True))()

    def compared(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:  # an embedding depends on no other image
        rest = task.without(row)
        supports = tf.gather(embedded, task.rest(row), axis=1)
        known = learner.summary(learner.own, supports, rest.members(embedded.dtype), task.way)
        query = tf.gather(embedded, row, axis=1)[:, None]
        logits = learner.compare(learner.own, known, query, task.way)
        return logits[0, 0], learner.score(learner.own, known, query, logits)[0, 0]

    return program(compared)


def told(files: SupportFiles, found: LeftOut) -> list[str]:
    """Return lines about a support set: its leave-one-out accuracy, and the classes that are confused."""
    alone = [name for name, count in zip(files.classes, files.counts, strict=True) if count == 1]
    lines = []
    if found.why:
        lines.append(f"leave-one-out: not possible, {found.why}")
    elif number := len(found.rows):
        right = found.answers == found.labels
        lines.append(f"leave-one-out: {_accuracy(right)}{_which(number, found.possible)}")
        if not right.all():
            lines.append(f"confused: {_confused(files.classes, found.labels[~right], found.answers[~right])}")
    if alone and not found.why:
        names = ", ".join(alone[:10]) + (", ..." if len(alone) > 10 else "")
        lines.append(f"{counted(len(alone), 'class has', 'classes have')} one image, which is not left out: {names}")
    return lines


def _accuracy(right: np.ndarray) -> str:
    words = f"{right.sum()} of {len(right)} right, {100 * right.mean():.1f} %"
    half = mean_and_ci95(right.astype(float).tolist())[1] if len(right) > 1 else math.nan
    return f"{words} ± {100 * half:.1f}" if math.isfinite(half) else f"{words} (too few images for an interval)"


def _which(number: int, possible: int) -> str:
    return f"; of {possible} images these were left out, as many of each class as possible" * (number < possible)


def _confused(classes: tuple[str, ...], labels: np.ndarray, answers: np.ndarray) -> str:
    """Return which classes were taken for which, the most frequent first."""
    pairs = Counter(zip(labels.tolist(), answers.tolist(), strict=True)).most_common()
    names = [f"{classes[own]} taken for {classes[other]} {times}" for (own, other), times in pairs if other >= 0]
    lost = sum(times for (_, other), times in pairs if other < 0)
    more = f" and {len(names) - SHOWN} more pairs" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more + (f"; {lost} with an output that is not finite" if lost else "")


def threshold(scores: np.ndarray, share: float) -> float:
    """Return the score below which a share of the images that were left out would be rejected.

    Args:
        scores: their scores `[n]`, n at least 1. Those that are not finite count as the lowest.
        share: from 0 to below 1. `int(share * n)` images are below the threshold, fewer where scores are equal.
    """
    ordered = np.sort(np.where(np.isfinite(scores), scores, -np.inf))
    return float(ordered[int(share * len(ordered) + 1e-9)])
