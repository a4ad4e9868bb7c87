"""Figures drawn from the files of finished runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..stats import expected_calibration_error
from .finished import Run
from .style import axes_of, band, finished, look_of

BINS = ("queries", "confidence", "right")  # columns of calibration.csv
MAIN = {"accuracy": "accuracy", "mse": "mean squared error", "total_reward": "total reward of a trial"}


def learning(runs: Sequence[Run]) -> Any | None:
    """Validation over training, with the interval over its tasks; the tests of methods that are not trained as level
    lines."""
    curves = [(run, _validations(run)) for run in runs]
    trained = [(run, rows) for run, rows in curves if rows is not None]
    if not trained:
        return None
    metric = trained[0][0].row.metric
    figure, axes = axes_of("training step", f"{MAIN[metric]} in validation")
    for place, (run, rows) in enumerate(curves):
        if rows is None:
            if run.row.metric == metric and run.row.mean is not None and not run.row.train_steps:
                axes.axhline(run.row.mean, **look_of(place, f"{run.label} (test)") | {"marker": ""}, linewidth=1)
        elif run.row.metric == metric:
            band(axes, rows["step"], rows[metric], rows["ci95"], place, run.label)
    return finished(figure, axes)


def adaptation(runs: Sequence[Run]) -> Any | None:
    """The main metric after 0, 1, 2, ... inner steps on the test tasks, with its interval over them."""
    adapted = [(run, values) for run in runs if (values := _by_inner_step(run))]
    if not adapted:
        return None
    metric = adapted[0][0].row.metric
    figure, axes = axes_of("inner step", f"{MAIN[metric]} in the test")
    for place, (run, by_step) in enumerate(adapted):
        if run.row.metric == metric:
            values = np.stack(list(by_step.values()))
            ci95 = 1.96 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
            band(axes, np.array(list(by_step)), values.mean(axis=1), ci95, place, run.label)
    return finished(figure, axes)


def reliability(runs: Sequence[Run]) -> Any | None:
    """Accuracy over confidence, in bins of confidence, and how many test predictions each bin has (Guo et al. 2017)."""
    from matplotlib import pyplot

    calibrated = [
        (run, _columns(run.directory.calibration, BINS)) for run in runs if run.directory.calibration.is_file()
    ]
    if not calibrated:
        return None
    figure, (axes, below) = pyplot.subplots(
        2, figsize=(5, 5.5), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    for place, (run, rows) in enumerate(calibrated):
        counts, look = rows["queries"], look_of(place, "")
        some = counts > 0
        error = expected_calibration_error(*(rows[name].tolist() for name in BINS))
        axes.plot(
            rows["confidence"][some] / counts[some],
            rows["right"][some] / counts[some],
            **look | {"label": f"{run.label}, ECE {100 * error:.1f}%", "markersize": 4},
        )
        edges = np.linspace(0, 1, len(counts) + 1)
        below.stairs(counts / counts.sum(), edges, color=look["color"], linestyle=look["linestyle"])
    axes.set_ylabel("accuracy")
    below.set_ylabel("share of queries")
    below.set_xlabel("confidence of a prediction")
    for each in (axes, below):
        each.grid(alpha=0.3)
    return finished(figure, axes)


def regret(runs: Sequence[Run]) -> Any | None:
    """What the actions cost against the best ones, up to each step of the test trials."""
    return _by_step(runs, "regret_by_step", "regret")


def optimal(runs: Sequence[Run]) -> Any | None:
    """The share of best actions in each step of the test trials."""
    return _by_step(runs, "optimal_by_step", "share of best actions")


def _by_step(runs: Sequence[Run], column: str, label: str) -> Any | None:
    needed = ("step", column, f"{column}_ci95")
    played = [(run, _columns(run.directory.curves, needed)) for run in runs if run.directory.curves.is_file()]
    if not played:
        return None
    figure, axes = axes_of("step of a trial", label)
    for place, (run, rows) in enumerate(played):
        band(axes, rows["step"], rows[column], rows[f"{column}_ci95"], place, run.label)
    return finished(figure, axes)


def _validations(run: Run) -> dict[str, np.ndarray] | None:
    """Step, main metric and its interval of each validation; None where there is none."""
    if not run.directory.metrics.is_file():
        return None
    names = ("step", run.row.metric, "ci95")
    with _lines(run.directory.metrics) as lines:
        rows = [row for row in lines if row["split"] == "val"]
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names} if rows else None


def _by_inner_step(run: Run) -> dict[int, np.ndarray]:
    """The main metric of each test task `[E]` by the number of inner steps, in order; empty where there are none."""
    columns = _columns(run.directory.episodes) if run.directory.episodes.is_file() else {}
    numbers = range(run.row.inner_steps + 1)
    return {number: columns[name] for number in numbers if (name := f"{run.row.metric}_{number}") in columns}


def _columns(path: Path, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    with _lines(path) as lines:
        return {name: np.array([float(row[name]) for row in lines]) for name in {**lines[0], **dict.fromkeys(needed)}}


@contextmanager
def _lines(path: Path) -> Iterator[list[dict[str, str]]]:
    """The lines of a CSV; what cannot be read of them is a RunError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield list(csv.DictReader(file))
    except (OSError, LookupError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error!r}): move it away, or train the run again") from None
