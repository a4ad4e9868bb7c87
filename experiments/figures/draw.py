"""Figures of runs, drawn from their files: learning curves, accuracy over adaptation steps, reliability, and of trials
the regret and the best actions step by step. `single_tasks.py` has those that need the trained weights.

All are legible in print and to the colour-blind: whatever a colour says, a line style, a letter or a frame says too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..system.atomic import naming
from .curves import adaptation, learning, optimal, regret, reliability
from .finished import FinishedRun
from .style import own_style


def draw_all(
    runs: Sequence[FinishedRun], out: Path, form: str, kinds: Sequence[str] = (), episode: int = 0
) -> Iterator[Path]:
    """Write the figures of these kinds, or all that the runs' files have the numbers for, and yield their paths.

    Raises RunError for a kind that no run has the numbers for. `episode` is the task of those that show one.
    """
    out.mkdir(parents=True, exist_ok=True)
    with own_style():
        yield from _from_files(runs, out, form, kinds)
        yield from _from_weights(runs, out, form, [kind for kind in kinds if kind in FROM_WEIGHTS], episode)


def _from_files(runs: Sequence[FinishedRun], out: Path, form: str, kinds: Sequence[str]) -> Iterator[Path]:
    for kind in [kind for kind in kinds or FROM_FILES if kind in FROM_FILES]:
        figure = FROM_FILES[kind](runs)
        if figure is not None:
            yield _written(figure, out / f"{kind}.{form}")
        elif kinds:
            raise RunError(f"--kind {kind}: no run here has {NUMBERS[kind]}")


def _from_weights(
    runs: Sequence[FinishedRun], out: Path, form: str, kinds: Sequence[str], episode: int
) -> Iterator[Path]:
    if not kinds:
        return
    from .single_tasks import figures

    drawn = set()
    for run in runs:
        prefix = f"{run.name}-" if len(runs) > 1 else ""
        for kind, figure in figures(run, kinds, episode):
            drawn.add(kind)
            yield _written(figure, out / f"{prefix}{kind}.{form}")
    if missing := [kind for kind in kinds if kind not in drawn]:
        raise RunError(f"--kind {missing[0]}: it is for {NUMBERS[missing[0]]}, and no run here is one")


FROM_FILES: dict[str, Callable[[Sequence[FinishedRun]], Any | None]] = {
    "learning": learning,
    "adaptation": adaptation,
    "reliability": reliability,
    "regret": regret,
    "optimal": optimal,
}
FROM_WEIGHTS = ("fits", "episode", "training", "embedding", "attention")  # in single_tasks.py
NUMBERS = {
    "learning": "validations",
    "adaptation": "inner steps in its episodes.csv",
    "reliability": "a calibration.csv, which the test of a classifier writes; those of old versions did not",
    "regret": "a curves.csv, which runs on trials have",
    "optimal": "a curves.csv, which runs on trials have",
    "fits": "regression on sinusoids",
    "episode": "classifiers of images",
    "training": "learners trained on tasks of images",
    "embedding": "protonet",
    "attention": "matchingnet",
}


def _written(figure: Any, path: Path) -> Path:
    with naming(path):
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
