"""Fill a paper's table: train each model once, test it for every cell that it fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import Interrupted
from ..evaluation.retest import evaluate
from ..runs.rows import merge
from ..system.signals import StopSignal
from ..training.train import train
from .plan import Planned, by_model


def reproduce(planned: Sequence[Planned], out: Path, failed: Callable[[str, Exception], object]) -> None:
    """Train and test missing cells, and resume interrupted ones.

    Args:
        planned: the cells and their seeds.
        out: the folder of all runs.
        failed: is called with the names of cells that cannot be filled, and the error. The others continue.

    Raises:
        Interrupted: the process was stopped, after a checkpoint. Finished cells keep their rows.
    """
    with StopSignal() as stop:
        for cells in by_model(planned).values():
            stop.check()
            first = cells[0]
            if all(one.finished for one in cells):
                continue
            try:
                train(first.run)
                merge(out)  # now: the tests that follow may be stopped
            except Interrupted:
                raise
            except Exception as error:
                failed(", ".join(one.cell.name for one in cells) + f", seed {first.seed}", error)
                with suppress(OSError):  # results.csv says of the other seeds that this one failed
                    merge(out)
                continue
            _test([one for one in cells if not one.finished], out, failed)


def _test(cells: Sequence[Planned], out: Path, failed: Callable[[str, Exception], object]) -> None:
    """Test a trained model for the cells, and rebuild results.csv, also if a signal stops this."""
    try:
        with StopSignal("with the tasks that are left") as stop:
            for one in cells:
                stop.check()
                try:
                    evaluate(one.directory.path, one.cell.split, one.cell.changes)
                except Interrupted:
                    raise
                except Exception as error:
                    failed(f"{one.cell.name}, seed {one.seed}", error)
    finally:
        merge(out)
