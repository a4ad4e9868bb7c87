"""Measure a test and write its files: the values of each task and, last, its row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from ...algorithms.heads.learner import Kept
from ...datasets.tasks import Split
from ..errors import RunError, warn
from ..model import Model
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import ARROW, Row, published_columns
from ..runs.trained import TrainedRun
from ..system import gpus, provenance
from ..system.atomic import write_json_atomic
from ..system.failures import OF_THE_DISK
from .errors_by_group import errors_path, write_errors
from .measure import Evaluation, Measurement, test_of
from .partial import PartialTest
from .tuning import chosen_value


class Files(NamedTuple):
    """Hold the files of a test, or None for a file that it does not write."""

    row: Path
    episodes: Path
    partial: Path  # the finished part, until the test is done
    calibration: Path | None = None
    curves: Path | None = None

    @classmethod
    def of_run(cls, directory: RunDirectory) -> Files:
        """Return the files of a run's own test."""
        return cls(
            directory.result, directory.episodes, directory.partial_test, directory.calibration, directory.curves
        )

    @classmethod
    def of_retest(cls, row: Path) -> Files:
        """Return the files of another test of a run: `row` in its folder evaluations/, the others beside it."""
        return cls(row, row.with_suffix(".csv"), row.with_suffix(".npz"))


def record(
    model: Model,
    trained: TrainedRun,
    chosen: Literal["best", "last"],
    files: Files,
    split: Split = "test",
    evaluation: Evaluation | None = None,
    kept: Kept | None = None,
) -> Row:
    """Measure the test of a model, write its files, the row last, and return the row.

    A test by one worker that was stopped resumes with the tasks that are left.

    Args:
        model: the model, with the weights to test.
        trained: the training behind these weights.
        chosen: the checkpoint that has them.
        files: the files to write.
        split: the split whose classes are drawn.
        evaluation: the evaluation on that split, if it is there already.
        kept: where the features of all images are kept for further tests, if they are.
    """
    experiment, label = model.experiment, f"{model.experiment.name} seed {model.seed}"
    evaluation, partial = (evaluation or test_of(model, split)).ready(model.training_source, kept), None
    if model.workers.count == 1:
        partial = PartialTest(files.partial, experiment, model.learner.variables, model.content_digest)
    measurement = evaluation.measure(f"{label} {split}", partial)
    if measurement.diverged:
        warn(
            f"{label}: {measurement.diverged} of {evaluation.episodes} {split} tasks diverged: their outputs are not "
            "finite and count as wrong answers"
        )
    measurement.write_csv(files.episodes)
    write_errors(errors_path(files.row), evaluation, measurement)
    if files.calibration and measurement.calibration is not None:
        measurement.write_calibration(files.calibration)
    if files.curves and measurement.curves:
        measurement.write_curves(files.curves)
    row = row_of(model, trained, chosen, evaluation, measurement)
    write_json_atomic(files.row, row.as_json())
    if partial:
        partial.drop()
    return row


@contextmanager
def advised(way_out: str) -> Iterator[None]:
    """Raise RunError with a way out if the memory does not suffice for a test: its training is done and kept.

    Args:
        way_out: what to do instead.
    """
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if OF_THE_DISK.search(str(error)):
            raise
        where = f"out of memory in the test{gpus.occupants()}"
        raise RunError(f"{where}; the training is done and kept: {way_out}") from error


def row_of(
    model: Model,
    trained: TrainedRun,
    chosen: Literal["best", "last"],
    evaluation: Evaluation,
    measurement: Measurement,
) -> Row:
    """Return the row of one measurement; the arguments are those of `record`."""
    experiment, learner, workers = model.experiment, model.learner, model.workers.count
    summary, seconds = measurement.summary(), trained.seconds
    tasks = trained.step * experiment.train.meta_batch
    measured = ("expected_calibration_error", "expected_calibration_error_uncalibrated", "negative_log_likelihood",
                "regret", "optimal_actions", "diverged")  # fmt: skip
    columns: dict[str, Any] = {
        "experiment": experiment.name,
        "algorithm": experiment.algorithm.name,
        "dataset": experiment.dataset.name + (f"{ARROW}{experiment.tested.name}" if model.tested else ""),
        "split": evaluation.stream.split,
        **evaluation.stream.columns,
        "protocol": experiment.protocol,
        "metric": measurement.metric,
        "mean": summary[measurement.metric],
        "ci95": summary["ci95"],
        "episodes": evaluation.episodes,
        "seed": trained.seed,
        "checkpoint": chosen,
        "train_steps": trained.step,
        "stopped_early": trained.step < experiment.train.steps if experiment.train.patience else None,
        "inner_steps": getattr(evaluation.learner, "recorded", [0])[-1],  # none by a head
        "head": experiment.head_values,
        "tuned": chosen_value(learner, experiment),
        "selected_of": trained.selected_of,
        "parameters": sum(math.prod(value.shape) for value in learner.parameters.values()),
        **{name: summary.get(name) for name in measured},
        **evaluation.judge.columns,
        "precision": experiment.precision,
        "device": f"{workers} x {provenance.device_name()}" if workers > 1 else provenance.device_name(),
        "seconds": round(seconds, 1),
        "tasks_per_second": round(tasks / seconds, 1) if seconds else None,
        "version": version("metarun"),
        "git_commit": provenance.git_commit(),
        "spec_digest": trained.spec_digest,
        "episodes_digest": measurement.episodes_digest,
        "content_digest": model.source.content_digest[:16],
        "weights_digest": checkpoint.digest_of(learner.variables),
        "init": getattr(experiment.network, "init_digest", None) or "",
        "test_options": json.dumps(tested, sort_keys=True) if (tested := experiment.tested_values) else "",
        "test_content_digest": model.tested.content_digest[:16] if model.tested else "",
        "plugins": experiment.test_plugins,
        **published_columns(experiment.published),
    }
    return Row(**columns)
