"""The one training loop: a spec and a seed in, a run directory with its row out.

A run is a pure function of its spec and seed. It can be stopped at any moment: what is on the disk is the newest
checkpoint and the metrics up to it, and the same call goes on from there to the same result, bit for bit.
"""

from __future__ import annotations

from ...algorithms.workers import ALONE, Workers
from ..model import build
from ..runs.continuation import go_on_from_shorter
from ..runs.rows import Row, published_columns, read_row
from ..runs.run import Run
from ..system import provenance
from ..system.atomic import write_json_atomic
from ..system.failures import noted
from ..system.signals import StopSignal
from .loop import Training


def train(run: Run, fresh: bool = False, workers: Workers = ALONE) -> Row:
    """Train and test a run, and return its row.

    Resumes where an earlier call stopped, or where a shorter training beside it has got to. A finished run returns at
    once. Of several workers this is what the chief does; the others `follow`.

    Args:
        run: what to train, and where.
        fresh: start again; what the folder holds is renamed, never lost.
        workers: the processes that share the training.

    Raises:
        RunError, DataError: the run cannot be trained, in one line with the way out.
        Interrupted: it was stopped, after a checkpoint.
        tf.errors.OpError: another worker is lost.
    """
    directory = run.directory
    built = (
        build(run.experiment, run.seed, workers=workers) if fresh else None
    )  # what cannot train must not displace what is there
    if fresh and directory.path.exists():
        with directory.locked():
            directory.set_aside()
    elif workers.count == 1 and directory.finished:
        run.refuse_another_spec()
        row, current = finished_row(run)
        if current == row:  # nothing to write, so it may be in use, or not ours
            return row
    with directory.locked():
        run.refuse_another_spec()
        if not workers.agree(not directory.finished):
            row, current = finished_row(run)
            if current != row:
                run.write_spec()
                write_json_atomic(directory.result, current.as_json())
            return current
        with noted(directory.failure), StopSignal() as stop:
            if fresh:
                directory.afresh.touch()
            model = built or build(run.experiment, run.seed, workers=workers)
            run.write_spec()
            write_json_atomic(directory.environment, provenance.describe())
            go_on_from_shorter(run.experiment, directory, model.source.content_digest)
            training = Training(model, directory)
            training.train(stop)
            return training.test()


def finished_row(run: Run) -> tuple[Row, Row]:
    """Return the row of a finished run, and the same with the published number that the spec has now."""
    row = read_row(run.directory.result)
    return row, row.model_copy(update=published_columns(run.experiment.published))
