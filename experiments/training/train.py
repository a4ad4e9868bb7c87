"""Train and test a run: a spec and a seed go in, a run directory with its row comes out.

A run is a pure function of its spec and seed. It can be stopped at any moment. The disk holds the newest checkpoint and
the metrics up to it. The same call resumes from there and reaches the same result, bit for bit.
"""

from __future__ import annotations

from contextlib import suppress

from ...algorithms.workers import ALONE, Workers
from ...datasets.images.source import ImageSource
from ..errors import InUse, warn
from ..evaluation.independence import refuse_dependent
from ..evaluation.inputs import Inputs
from ..evaluation.repeatable import refuse_unrepeatable
from ..model import Model, build, refuse_other_tested_images
from ..runs.continuation import continue_shorter_run, label_checkpoints
from ..runs.rows import Row, published_columns, read_row
from ..runs.run import Run, keep_validation
from ..system.atomic import write_json_atomic
from ..system.failures import noted
from ..system.signals import StopSignal
from .initial import initialise
from .loop import Training
from .memory import fitted


def train(run: Run, fresh: bool = False, workers: Workers = ALONE) -> Row:
    """Train and test a run, and return its row.

    Resumes where an earlier call stopped, or continues a shorter training beside it. A finished run returns its row at
    once. Of several workers the chief calls this function, the others `follow`.

    Args:
        run: the run.
        fresh: start again. An existing folder of the run is renamed, never lost.
        workers: the processes that share the training.

    Raises:
        RunError, DataError: the run cannot be trained. The message is one line with the way out.
        Interrupted: the run was stopped. Its checkpoint is written.
        tf.errors.OpError: another worker is lost.
    """
    directory = run.directory
    # Build first: a spec that cannot be trained must not displace an existing run.
    built = _built(run, workers) if fresh else None
    if built:
        initialise(built)
    run = run if fresh else keep_validation(run)
    if not _set_aside(run, fresh) and workers.count == 1 and directory.finished:
        run.refuse_another_spec()
        if not run.is_moved:  # those that are were compared now
            run.refuse_other_data()
        tested = read_row(directory.result).test_content_digest
        refuse_other_tested_images(run.experiment, "test", tested, directory.result)
        row, current = finished_row(run)
        if current == row:  # nothing that must be written, so another process or user may hold the folder
            with suppress(InUse, OSError):
                _tell_place(run)
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
            training = _training(run, built or _built(run, workers))
            training.train(stop)
            return training.test()


def train_until(run: Run) -> None:
    """Train a run of a search up to the step `run.until`, with its validations, and withhold its test.

    Resumes and continues as `train` does. A later call with a larger `until`, or `train`, goes on from there and ends
    as one that was never stopped, bit for bit, if a validation follows that step.

    Raises:
        RunError, DataError: the run cannot be trained. The message is one line with the way out.
        Interrupted: the run was stopped. Its checkpoint is written.
    """
    run = keep_validation(run)
    _set_aside(run)
    with run.directory.locked():
        run.refuse_another_spec()
        if not run.finished:
            with noted(run.directory.failure), StopSignal() as stop:
                run.write_search()  # first: tables leave it out even if it cannot be built
                _training(run, _built(run, ALONE)).train(stop, run.until)


def _set_aside(run: Run, fresh: bool = False) -> bool:
    """Rename the folder of a run that starts again, or whose attempt failed at once; return whether it did."""
    directory = run.directory
    if not (directory.path.exists() and (fresh or run.replaces_failure())):
        return False
    with directory.locked():
        aside = directory.set_aside()
    if not fresh:
        warn(f"{aside} is an attempt of another spec, which failed before its first checkpoint")
    return True


def _training(run: Run, model: Model) -> Training:
    """Write the files with which a training begins, and return it, before its first step."""
    directory = run.directory
    label_checkpoints(run)
    run.write_spec()
    run.write_search()
    if isinstance(model.source, ImageSource):
        Inputs.of_source(model.source, model.experiment.kind.trains_on_images).write(directory)
    continue_shorter_run(run.experiment, directory, model.source.content_digest)
    return Training(model, directory)


def _built(run: Run, workers: Workers) -> Model:
    model = build(run.experiment, run.seed, workers=workers)
    refuse_unrepeatable(model)
    refuse_dependent(model)
    return fitted(model)


def _tell_place(run: Run) -> None:
    """Write into the spec of a finished run where its data are now, for `metarun evaluate`.

    The spec of an older version's run stays as it is: the digest of its row has the former place.
    """
    if run.is_moved and read_row(run.directory.result).spec_digest == run.experiment.digest:
        with run.directory.locked():
            run.write_spec()


def finished_row(run: Run) -> tuple[Row, Row]:
    """Return the row of a finished run, and the same row with the published number of the current spec.

    Of a run that validation has chosen since, the second row says so.
    """
    row, chosen = read_row(run.directory.result), {"selected_of": run.selected_of} if run.selected_of else {}
    return row, row.model_copy(update=published_columns(run.experiment.published) | chosen)
