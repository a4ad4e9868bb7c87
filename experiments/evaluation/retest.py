"""Testing a trained run in another way: another row, beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...algorithms.learner import Learner
from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Source, build, refuse_other_images, shape_of
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import Row, published_columns, read_row
from ..runs.run import retest
from ..system.atomic import write_json_atomic
from .measure import Evaluation
from .partial import PartialTest
from .record import make_row


def evaluate(run: Path, split: Split, changes: Mapping[str, Any]) -> tuple[Row, Path, bool]:
    """Measure the run at `run` with `changes` (way, shot, query, episodes, episode_seed, inner_steps, protocol,
    checkpoint); the row, its file, and whether it was there before. RunError for a run that is not trained, SpecError
    for changes that do not fit it."""
    directory, trained, spec, experiment, path = retest(run, split, changes)
    chosen = experiment.test.checkpoint
    if path == directory.result:
        return trained, path, True
    with directory.locked():
        if path.exists():
            return read_row(path), path, True
        source, learner = restored(directory, experiment, trained.seed, chosen, split)
        evaluation = Evaluation(
            learner, source, split, shape_of(experiment.test), experiment.test.episodes, experiment.test.episode_seed
        )
        partial = PartialTest(path.with_suffix(".npz"), experiment, learner.variables, source.content_digest)
        measurement = evaluation.measure(f"{experiment.name} seed {trained.seed} {split}", partial)
        row = make_row(
            experiment,
            trained.seed,
            source,
            learner,
            measurement,
            split=split,
            checkpoint=chosen,
            step=trained.train_steps,
            seconds=trained.seconds,
        ).model_copy(
            update={"spec_digest": trained.spec_digest} | published_columns(None)
        )  # that is for the paper's test
        measurement.write_csv(path.with_suffix(".csv"))
        write_json_atomic(path, row.as_json())
        partial.drop()
        directory.failure.unlink(missing_ok=True)  # of an earlier attempt
    return row, path, False


def restored(
    directory: RunDirectory, experiment: Experiment, seed: int, chosen: str, split: Split = "test"
) -> tuple[Source, Learner]:
    """The task distribution, for a test on `split`, and the learner with the weights of a run's checkpoint, best or
    last; RunError where the data are not those it was trained on."""
    source, learner = build(experiment, seed, split)
    refuse_other_images(checkpoint.restore(_weights(directory, chosen), learner.variables), source, directory)
    return source, learner


def _weights(directory: RunDirectory, chosen: str) -> Path:
    if chosen == "best":
        return directory.best
    last = directory.checkpoint(read_row(directory.result).train_steps)
    if not last.is_file():
        raise RunError(f"{last} is missing, the weights after the last step: train again with --fresh")
    return last
