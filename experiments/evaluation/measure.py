"""Measure a learner on fixed tasks: one value of each metric per task, and their means and intervals."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...algorithms.embedding import FeatureLearner
from ...algorithms.heads.learner import (
    HeadLearner,
    HeadOnFeatures,
    Kept,
    OnStoredFeatures,
    features_of,
    stored,
    storing,
    with_head,
)
from ...algorithms.learner import Learner, Metrics
from ...algorithms.memory import peak_bytes
from ...algorithms.programs import program, untouched
from ...algorithms.workers import ALONE, Workers
from ...datasets.images.features import FeatureSource
from ...datasets.tasks import EpisodeStream, Split, task_number
from ..errors import Interrupted
from ..model import Model, Stream
from ..runs.rows import METRICS, Metric
from ..stats import ci95_of_columns, exact_sum, expected_calibration_error, mean_and_ci95
from ..system import signals
from ..system.atomic import write_text_atomic
from ..system.cgroups import available_bytes
from ..system.processors import threads
from ..system.progress import Progress
from .partial import PartialTest

FIRST_UNSEEN_TASK = 2**62  # of a test on the training split: a number that no training reaches, so its tasks are unseen


class Judge(NamedTuple):
    """Hold a measurement of a learner on a batch of tasks, and the columns that its row has for it."""

    metrics: Callable[[Any, Any], Metrics]  # of a learner and a batch; one value per task
    columns: Mapping[str, Any] = {}


ANSWERS = Judge(lambda learner, batch: learner.evaluate(batch))  # the test of a run


class Measurement(NamedTuple):
    """Hold the values of E tasks."""

    values: dict[str, np.ndarray]  # [E] float64 each
    calibration: np.ndarray | None  # [3, 15] sums over tasks, of classifiers: queries, confidence, right answers
    curves: dict[str, np.ndarray]  # [E, N] each, of trials: one value per step
    episodes_digest: str  # of the random draws of all tasks: equal digests mean identical tasks
    uncalibrated: np.ndarray | None = None  # as `calibration`, before the logits were divided by a temperature

    @property
    def metric(self) -> Metric:
        """Return the name of the main metric."""
        return main_metric(self.values)

    @property
    def diverged(self) -> int:
        """Return the number of tasks with an output that is not finite, which `algorithms/metrics.py` counts as wrong.

        Their negative log-likelihood, mean squared error or total reward is infinite, or they tell it by `not_finite`.
        """
        told = [self.values[name] for name in (self.metric, "negative_log_likelihood") if name in self.values]
        return int(((~np.isfinite(told)).any(axis=0) | (self.values.get("not_finite", np.zeros(1)) > 0)).sum())

    def summary(self) -> dict[str, float]:
        """Return the mean of every metric over all tasks, the main metric's ci95, and the number of diverged tasks.

        Of a classifier also the expected calibration error. A mean is infinite if a value is.
        """
        means = {name: exact_sum(values) / len(values) for name, values in self.values.items()}
        summary = means | {"ci95": mean_and_ci95(self.values[self.metric].tolist())[1], "diverged": self.diverged}
        if self.calibration is not None:
            summary["expected_calibration_error"] = expected_calibration_error(*self.calibration.tolist())
        if self.uncalibrated is not None:
            before = expected_calibration_error(*self.uncalibrated.tolist())
            summary["expected_calibration_error_uncalibrated"] = before
        return summary

    def write_csv(self, path: Path) -> None:
        """Write a CSV file with one line per task: its number, then its values."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["episode", *self.values])
        for episode, row in enumerate(zip(*self.values.values(), strict=True)):
            writer.writerow([episode, *(f"{value:.9g}" for value in row)])
        write_text_atomic(path, text.getvalue())

    def write_calibration(self, path: Path) -> None:
        """Write a CSV file with one line per bin of confidence: queries, sum of their confidences, right answers."""
        assert self.calibration is not None
        lines = ["bin,queries,confidence,right"]
        for number, (count, confidence, right) in enumerate(self.calibration.T.tolist()):
            lines.append(f"{number},{count:.0f},{confidence:.9g},{right:.0f}")
        write_text_atomic(path, "\n".join(lines) + "\n")

    def write_curves(self, path: Path) -> None:
        """Write a CSV file with one line per step, from 1: the mean over tasks of each curve, and its 95% interval."""
        columns = {}
        for name, curve in self.curves.items():
            columns[name] = curve.mean(axis=0)
            columns[f"{name}_ci95"] = ci95_of_columns(curve)
        lines = [",".join(["step", *columns])]
        for step, row in enumerate(zip(*columns.values(), strict=True), start=1):
            lines.append(",".join([str(step), *(f"{value:.9g}" for value in row)]))
        write_text_atomic(path, "\n".join(lines) + "\n")


class Evaluation:
    """Evaluate a learner on the first tasks of a stream. It is traced once, however often it is measured.

    Tasks are drawn in batches whose size depends on the spec alone, so that a result never depends on the machine. The
    last batch may draw tasks that are ignored. Several workers take the batches in turn. One batch keeps little more
    than one core busy, so several are computed at once where the machine has cores and memory for them.
    """

    def __init__(
        self, learner: Learner, stream: Stream, episodes: int, workers: Workers = ALONE, judge: Judge = ANSWERS
    ):
        """Prepare an evaluation; nothing is computed yet.

        Args:
            learner: the learner that is measured, with the weights that it has at each measurement.
            stream: the stream of tasks.
            episodes: number of tasks.
            workers: the processes that measure together.
            judge: what is measured.
        """
        self.learner, self.judge = learner, judge
        source, self.stream, self.episodes, self.workers = stream.source, stream, episodes, workers
        self.batch = stream.at_once(episodes, queries_beside_supports(learner))
        first = FIRST_UNSEEN_TASK if stream.split == "train" else 0

        def sample(number: tf.Tensor):
            return stream.sample(first + number * self.batch, self.batch)

        def evaluate(task: Any) -> tuple[Metrics, tf.Tensor]:
            batch = sample(task) if source.in_memory else task
            return judge.metrics(learner, batch), batch.drawn

        self.step = program(evaluate)
        self.calls = -(-episodes // self.batch)  # batches that hold all tasks
        self.own = range(workers.index, self.calls, workers.count)  # numbers of this worker's batches
        if source.in_memory:
            self.batches: Callable[[range], Any] = lambda numbers: map(task_number, numbers)
            self._example: Any = task_number(0)
        else:
            sampled = untouched(sample)

            def read(numbers: range) -> tf.data.Dataset:
                each = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
                return each.map(sampled, 2, deterministic=True).prefetch(2)

            own = read(self.own)  # traced once for all validations
            self.batches = lambda numbers: own if numbers == self.own else read(numbers)
            self._example = own.element_spec

    def ready(self, training: Any, kept: Kept | None = None) -> Evaluation:
        """Return an evaluation of the same tasks after what is computed once: the features of all images, for a head.

        Args:
            training: the source of the training images, whose mean a head may need.
            kept: where features of an earlier test are taken from, or these are kept.
        """
        learner, stream = self.learner, self.stream
        if isinstance(learner, HeadOnFeatures):
            learner.centre(training)
        found = stored(learner, stream.source, stream.split, kept)
        if found is None:
            return self
        return self._on(*found)

    def _on(self, learner: HeadLearner, source: FeatureSource) -> Evaluation:
        stream = dataclasses.replace(self.stream, source=source)
        return Evaluation(learner, stream, self.episodes, self.workers, self.judge)

    def names(self) -> list[str]:
        """Return the names in the `summary` of a measurement, without measuring."""
        metrics, _ = self._outputs()
        calibrated = ["expected_calibration_error"] if "calibration" in metrics else []
        return [*(name for name, value in metrics.items() if value.shape.rank == 1), "ci95", "diverged", *calibrated]

    def measure(self, label: str, partial: PartialTest | None = None, first: int | None = None) -> Measurement:
        """Measure all tasks, with a progress bar, and return their values. Every worker gets the values of all tasks.

        Args:
            label: text in front of the progress bar.
            partial: the file of a test by one worker. Tasks that it holds are not measured again.
            first: measure the first tasks only, in the batches of all, so that their values are the same.

        Raises:
            Interrupted: a signal came between two batches. The tasks so far are in `partial`.
        """
        metrics, drawn = self._outputs()
        episodes = min(first or self.episodes, self.episodes)
        needed = -(-episodes // self.batch)
        values = {name: np.zeros((needed, *value.shape)) for name, value in metrics.items()}
        chosen = np.zeros((needed, *drawn.shape))
        arrays = [*values.values(), chosen]
        calls = partial.restore(arrays) if partial else 0
        left = range(self.workers.index, needed, self.workers.count)[calls:]
        try:
            with Progress(label, episodes, min(calls * self.batch, episodes), unit="episode") as progress:
                for number, (metrics, drawn) in zip(left, self._measured(left), strict=True):
                    for name, value in metrics.items():
                        values[name][number] = value
                    chosen[number] = drawn
                    calls = number + 1
                    progress.advance(min((number + self.workers.count) * self.batch, episodes) - progress.done)
                    if partial:
                        partial.keep(arrays, calls)
        except (Interrupted, KeyboardInterrupt):
            if partial and calls:
                partial.save(arrays, calls)
            raise
        joined = self.workers.total((values, chosen))
        values, chosen = tf.nest.map_structure(lambda each: self._joined(each, episodes), joined)
        calibrations = [values.pop(name, None) for name in ("calibration", "calibration_uncalibrated")]
        calibration, uncalibrated = (None if each is None else each.sum(axis=0) for each in calibrations)
        curves = {name: values.pop(name) for name, value in list(values.items()) if value.ndim == 2}
        return Measurement(
            values,
            calibration,
            curves,
            hashlib.sha256(chosen.astype("<i4").tobytes()).hexdigest()[:16],
            uncalibrated,
        )

    def _measured(self, numbers: range) -> Iterator[tuple[Metrics, tf.Tensor]]:
        """Measure batches, and yield the outputs of `step` for each, in order."""
        if min(self.at_once, len(numbers)) < 2:
            for task in self.batches(numbers):
                signals.check()
                yield self.step(task)
            return
        waiting: deque[Future[tuple[Metrics, tf.Tensor]]] = deque()
        with ThreadPoolExecutor(self.at_once) as pool:
            for task in self.batches(numbers):
                signals.check()
                waiting.append(pool.submit(self.step, task))
                if len(waiting) > self.at_once:  # one more, so that no thread waits for this one
                    yield waiting.popleft().result()
            while waiting:
                signals.check()
                yield waiting.popleft().result()

    @functools.cached_property
    def at_once(self) -> int:
        """Return how many batches are computed at once: one for each core, as far as half of the memory suffices.

        One on a GPU, and of trials, whose environments have a state.
        """
        if not isinstance(self.stream, EpisodeStream) or tf.config.list_physical_devices("GPU"):
            return 1
        available = available_bytes()
        fitting = available // (2 * max(1, peak_bytes(self.traced()))) if available else 1
        return max(1, min(threads(), fitting))

    def _joined(self, values: np.ndarray | tf.Tensor, episodes: int) -> np.ndarray:
        """Join the batches: `[calls, batch, ...]` -> `[episodes, ...]`."""
        values = np.asarray(values)
        return values.reshape(-1, *values.shape[2:])[:episodes]

    def traced(self) -> Any:
        """Return `step`, which measures one batch of tasks, as a concrete function."""
        return self.step.get_concrete_function(self._example)

    def _outputs(self) -> tuple[Metrics, tf.Tensor]:
        """Return the symbolic outputs of `step`, without running it."""
        return self.traced().structured_outputs

    def seconds_per_episode(self) -> float:
        """Return the seconds per task, timed on one call after a first one that compiles it."""
        first, seconds = next(iter(self.batches(self.own))), 0.0
        for _ in range(2):
            signals.check()
            started = time.perf_counter()
            metrics, _ = self.step(first)
            next(iter(metrics.values())).numpy()
            seconds = time.perf_counter() - started
        return seconds / self.batch

    def seconds_when_ready(self, training: Any) -> tuple[float, float] | None:
        """Return the seconds that `ready` takes for its features, and those per task after it; None without features.

        Timed on two batches of images, and on tasks of features that are zeros.

        Args:
            training: the source of the training images, as in `ready`.
        """
        asked: Any = self.learner
        source: Any = self.stream.source
        split = self.stream.split
        learner = storing(asked, source, split)
        if learner is None:
            return None
        seconds, sizes, batches = 0.0, [], features_of(learner, source, split)
        for _ in range(2):  # the first one is compiled; there may be no second
            started = time.perf_counter()
            if (batch := next(batches, None)) is not None:
                batch[:1].numpy()
                sizes.append(batch.shape[0])
                seconds = time.perf_counter() - started
        size = source.size(split)
        count = -(-size // sizes[0])  # the last batch takes as long as the others
        if isinstance(asked, HeadOnFeatures) and asked.lacks_mean:
            count += -(-training.size("train") // sizes[0])
        zeros = tf.zeros((size, learner.network.features), learner.network.dtype)
        each = self._on(OnStoredFeatures(asked), FeatureSource(source, split, zeros)).seconds_per_episode()
        return seconds * count, each


def main_metric(names: Iterable[str]) -> Metric:
    """Return the metric that a table shows: the first of `METRICS` among the names, total_reward without one."""
    names = set(names)
    for metric in METRICS:
        if metric in names:
            return metric
    return "total_reward"


def queries_beside_supports(learner: Learner) -> bool:
    """Return whether each query passes the network in a batch of its own, together with the whole support set.

    This is the inductive protocol of gradient-based learners. Learners that compare embeddings use running averages.
    """
    learner = getattr(learner, "learner", learner)  # below a head
    problem = getattr(learner, "problem", None)
    embeds = isinstance(learner, FeatureLearner | OnStoredFeatures)
    return problem is not None and problem.protocol == "inductive" and not embeds


def validation_of(model: Model) -> Evaluation | None:
    """Return the evaluation on the validation tasks of a model, or None without one."""
    section = model.experiment.validation
    if section is None or not model.experiment.kind.is_trained:
        return None
    return Evaluation(model.learner, model.validation_stream(), section.episodes, model.workers)


def test_of(model: Model, split: Split = "test", judge: Judge = ANSWERS) -> Evaluation:
    """Return the evaluation on the test tasks of a model, drawn from `split`; `judge` says what is measured."""
    test = model.experiment.test
    return Evaluation(
        with_head(model.learner, test.head), model.test_stream(split), test.episodes, model.workers, judge
    )
