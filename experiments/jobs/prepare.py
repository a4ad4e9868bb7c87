"""Prepare the folders of runs for their jobs, and put them back if the jobs are refused. No TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..runs.continuation import label_checkpoints
from ..runs.directory import RunDirectory
from ..runs.run import Run, keep_validation
from ..system.atomic import write_bytes_atomic


@contextmanager
def prepared(runs: Sequence[Run], fresh: bool = False) -> Iterator[None]:
    """Write the spec of each run, and remove the notes about failures of earlier jobs; then submit in the block.

    If the block raises, all folders are as they were before.

    Args:
        runs: the runs that the block submits.
        fresh: set aside the folders that exist, so that the runs start again.

    Raises:
        InUse: a folder that is to be set aside is in use.
    """
    with ExitStack() as undo:
        for run in runs:
            run = run if fresh else keep_validation(run)
            directory = run.directory
            if directory.path.exists() and (fresh or run.replaces_failure()):
                with directory.locked():
                    undo.callback(_put_back, directory.set_aside(), directory.path)
            changed = (directory.spec, directory.search, directory.afresh, directory.failure, directory.restarts)
            before = {path: path.read_bytes() if path.is_file() else None for path in changed}
            undo.callback(_restore, before, directory.path)
            label_checkpoints(run)
            run.write_spec()
            run.write_search()
            if fresh:
                directory.afresh.touch()
            for path in (directory.failure, directory.restarts):
                path.unlink(missing_ok=True)
        yield
        undo.pop_all()


@contextmanager
def forgotten(directories: Iterable[RunDirectory]) -> Iterator[None]:
    """Remove the notes about failures and restarts of earlier jobs; put them back if the block raises.

    Args:
        directories: the folders of runs that a job of the block may take up again.
    """
    with ExitStack() as undo:
        for directory in directories:
            notes = [path for path in (directory.failure, directory.restarts) if path.is_file()]
            undo.callback(_restore, {path: path.read_bytes() for path in notes}, directory.path)
            for path in notes:
                path.unlink()
        yield
        undo.pop_all()


def _put_back(aside: Path, path: Path) -> None:
    if not path.exists():
        aside.rename(path)


def _restore(before: Mapping[Path, bytes | None], folder: Path) -> None:
    """Write files of a run's folder back, and remove the folder if there was none before."""
    for path, content in before.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes_atomic(path, content)
    with suppress(OSError):  # it has other files
        folder.rmdir()
        folder.parent.rmdir()
