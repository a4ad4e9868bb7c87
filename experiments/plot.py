"""Figures of runs: learning curves, and the regret of trials step by step. Legible in print and to the colour-blind."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import RunError
from .results import Row, find_rows, read_row
from .rundir import RunDirectory

# Okabe and Ito 2008; the line styles tell apart what is printed in grey
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
MAIN = {"accuracy": "accuracy", "mse": "mean squared error", "total_reward": "total reward of a trial"}


class Run(NamedTuple):
    """A finished run with its row."""

    directory: RunDirectory
    row: Row

    @property
    def label(self) -> str:
        """For the legend."""
        return self.row.algorithm if self.row.seed == 0 else f"{self.row.algorithm} seed {self.row.seed}"


def runs_below(folders: Sequence[Path]) -> list[Run]:
    """All finished runs in and below the folders; RunError where there is none."""
    found = [path for path in find_rows(folders) if path.name == "result.json"]
    if not found:
        raise RunError(f"no finished run in {', '.join(map(str, folders))}: give folders such as runs/NAME/seed-0")
    return [Run(RunDirectory(path.parent), read_row(path)) for path in found]


def draw_all(runs: Sequence[Run], out: Path, form: str) -> Iterator[Path]:
    """Write every figure that the runs have the numbers for; the paths."""
    import matplotlib

    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("learning", learning), ("regret", regret), ("optimal", optimal)):
        figure = draw(runs)
        if figure is not None:
            path = out / f"{name}.{form}"
            figure.savefig(path, dpi=200, metadata={"Date": None} if form == "svg" else None)
            yield path


def learning(runs: Sequence[Run]) -> Any | None:
    """Validation over training, with the interval over its tasks; methods that are not trained as level lines."""
    curves = [(run, _validations(run)) for run in runs]
    trained = [(run, rows) for run, rows in curves if rows is not None]
    if not trained:
        return None
    metric = trained[0][0].row.metric
    figure, axes = _axes("training step", MAIN[metric])
    for place, (run, rows) in enumerate(curves):
        if rows is None:
            if run.row.metric == metric and run.row.mean is not None and not run.row.train_steps:
                axes.axhline(run.row.mean, **_look(place, run.label), linewidth=1)
        elif run.row.metric == metric:
            _band(axes, rows["step"], rows[metric], rows["ci95"], place, run.label)
    return _finished(figure, axes)


def regret(runs: Sequence[Run]) -> Any | None:
    """What the actions cost against the best ones, up to each step of the test trials."""
    return _by_step(runs, "regret_by_step", "regret")


def optimal(runs: Sequence[Run]) -> Any | None:
    """The share of best actions in each step of the test trials."""
    return _by_step(runs, "optimal_by_step", "share of best actions")


def _by_step(runs: Sequence[Run], column: str, label: str) -> Any | None:
    played = [(run, _columns(run.directory.curves)) for run in runs if run.directory.curves.is_file()]
    if not played:
        return None
    figure, axes = _axes("step of a trial", label)
    for place, (run, rows) in enumerate(played):
        _band(axes, rows["step"], rows[column], rows[f"{column}_ci95"], place, run.label)
    return _finished(figure, axes)


def _validations(run: Run) -> dict[str, np.ndarray] | None:
    """Step, main metric and its interval of each validation; None where there is none."""
    if not run.directory.metrics.is_file():
        return None
    with run.directory.metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    names = ("step", run.row.metric, "ci95")
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names} if rows else None


def _columns(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _look(place: int, label: str) -> dict[str, Any]:
    return {"color": COLORS[place % len(COLORS)], "linestyle": STYLES[place % len(STYLES)], "label": label}


def _band(axes: Any, x: np.ndarray, y: np.ndarray, ci95: np.ndarray, place: int, label: str) -> None:
    axes.plot(x, y, **_look(place, label))
    axes.fill_between(x, y - ci95, y + ci95, color=COLORS[place % len(COLORS)], alpha=0.15, linewidth=0)


def _finished(figure: Any, axes: Any) -> Any:
    from matplotlib import pyplot

    axes.legend(fontsize="small")
    pyplot.close(figure)
    return figure
