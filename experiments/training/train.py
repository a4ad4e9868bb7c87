"""The one training loop: a spec and a seed in, a run directory with its row out.

A run is a pure function of its spec and seed. It can be stopped at any moment: what is on the disk is the newest
checkpoint and the metrics up to it, and the same call goes on from there to the same result, bit for bit.
"""

from __future__ import annotations

from ...algorithms.workers import ALONE, Workers
from ..config.experiment import Experiment
from ..model import build
from ..runs.continuation import go_on_from_shorter
from ..runs.directory import RunDirectory
from ..runs.rows import Row, published_columns, read_row
from ..runs.run import refuse_another_spec, write_spec
from ..system import provenance
from ..system.atomic import write_json_atomic
from ..system.failures import noted
from ..system.signals import StopSignal
from .loop import Training


def run(
    experiment: Experiment, seed: int, directory: RunDirectory, fresh: bool = False, workers: Workers = ALONE
) -> Row:
    """Train and test; go on where an earlier call stopped, or a shorter training beside this one; return at once if it
    finished. Of many workers this is the chief's part; the others' is `follow`.

    Raises RunError, DataError, or Interrupted after a checkpoint; tf.errors.OpError where another worker is lost.
    """
    built = build(experiment, seed) if fresh else None  # what cannot train must not displace what is there
    if fresh and directory.path.exists():
        with directory.locked():
            directory.set_aside()
    elif workers.count == 1 and directory.finished:
        refuse_another_spec(experiment, seed, directory)
        row, current = finished_row(experiment, directory)
        if current == row:  # nothing to write, so it may be in use, or not ours
            return row
    with directory.locked():
        refuse_another_spec(experiment, seed, directory)
        if not workers.agree(not directory.finished):
            row, current = finished_row(experiment, directory)
            if current != row:
                write_spec(experiment, seed, directory)
                write_json_atomic(directory.result, current.as_json())
            return current
        with noted(directory.failure), StopSignal() as stop:
            if fresh:
                directory.afresh.touch()
            source, learner = built or build(experiment, seed)
            write_spec(experiment, seed, directory)
            write_json_atomic(directory.environment, provenance.describe())
            go_on_from_shorter(experiment, directory, source.content_digest)
            training = Training(experiment, seed, directory, source, learner, workers)
            training.train(stop)
            return training.test()


def finished_row(experiment: Experiment, directory: RunDirectory) -> tuple[Row, Row]:
    """The row of a finished run, and the same with the published number that the spec has now."""
    row = read_row(directory.result)
    return row, row.model_copy(update=published_columns(experiment.published))
