"""Figures drawn from the files of finished runs: a line for each experiment, with a band over its seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..reports.formats import scale_of
from ..stats import ci95_of_columns, expected_calibration_error
from .finished import FinishedRun
from .seeds import Curve, SeedGroup, over_seeds, seed_groups, with_interval
from .style import draw, look, new_axes, round_ticks, with_legend

BINS = ("queries", "confidence", "right")  # columns of calibration.csv
MAIN = {  # headings of METRICS
    "accuracy": "accuracy (%)",
    "mse": "mean squared error",
    "auroc_unknown": "area under the ROC curve of unknown classes",
    "total_reward": "total reward of a trial",
}
SEEDS, TASKS = "lowest to highest seed", "95% interval over tasks"  # what a band shows
CurveOf = Callable[[FinishedRun], Curve | None]


def learning(runs: Sequence[FinishedRun]) -> Any | None:
    """Draw the validation during training. Methods that are not trained have their test as a level line."""
    return _figure(runs, _validations, "training step", "validation {}", levels=True)


def adaptation(runs: Sequence[FinishedRun]) -> Any | None:
    """Draw the main metric on the test tasks after 0, 1, 2, ... inner steps."""
    return _figure(runs, _by_inner_step, "inner step", "test {}")


def regret(runs: Sequence[FinishedRun]) -> Any | None:
    """Draw what the actions lost against the best ones, up to each step of the test trials."""
    return _figure(runs, _by_step("regret_by_step"), "step of a trial", "regret")


def optimal(runs: Sequence[FinishedRun]) -> Any | None:
    """Draw the share of best actions in each step of the test trials."""
    return _figure(runs, _by_step("optimal_by_step", 100), "step of a trial", "best actions (%)")


def reliability(runs: Sequence[FinishedRun]) -> Any | None:
    """Draw accuracy over confidence, in bins of confidence, and the share of predictions in each bin (Guo et al. 2017).

    A line is over the predictions of all seeds together; the ECE is the mean of theirs.
    """
    from matplotlib import pyplot

    calibrated = _curves(runs, _bins)
    if not any(bins for _, bins in calibrated):
        return None
    figure, (axes, below) = pyplot.subplots(
        2, figsize=(5, 5.5), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=1, label="perfectly calibrated")
    for place, (group, bins) in enumerate(calibrated):
        if bins:
            _calibration(axes, below, bins, place, group.label)
    axes.set_ylabel("accuracy (%)")
    below.set_ylabel("queries (%)")
    below.set_xlabel("confidence of a prediction (%)")
    for each in (axes, below):
        round_ticks(each.xaxis)
        round_ticks(each.yaxis)
        each.grid(alpha=0.3)
    several = any(len(bins) > 1 for _, bins in calibrated)
    return with_legend(figure, f"band: {SEEDS}" if several else "")


def _calibration(axes: Any, below: Any, bins: Sequence[dict[str, np.ndarray]], place: int, label: str) -> None:
    """Draw one line of `reliability` from the bins of each seed."""
    error = np.mean([expected_calibration_error(*(rows[name].tolist() for name in BINS)) for rows in bins])
    shown = look(place, f"{label}: ECE {100 * error:.1f}%") | {"markersize": 4}
    counts, confidence, right = (np.sum([rows[name] for rows in bins], axis=0) for name in BINS)
    some = counts > 0
    x = 100 * confidence[some] / counts[some]
    axes.plot(x, 100 * right[some] / counts[some], **shown)
    if len(bins) > 1:
        with np.errstate(invalid="ignore"):  # bins that a seed has nothing in
            of_seeds = np.stack([100 * rows["right"] / rows["queries"] for rows in bins])[:, some]
        low, high = np.nanmin(of_seeds, axis=0), np.nanmax(of_seeds, axis=0)
        axes.fill_between(x, low, high, color=shown["color"], alpha=0.15, linewidth=0)
    edges = np.linspace(0, 100, len(counts) + 1)
    below.stairs(100 * counts / counts.sum(), edges, color=shown["color"], linestyle=shown["linestyle"])


def _figure(runs: Sequence[FinishedRun], curve_of: CurveOf, x: str, y: str, levels: bool = False) -> Any | None:
    """Draw a line for each experiment; None where no run has a curve.

    Each metric has axes of its own, and `y` has {} for its name. An experiment has the same colour in every figure.
    With `levels` a method without training has a level line, its test.
    """
    groups = _curves(runs, curve_of)
    metrics = list(dict.fromkeys(group.runs[0].row.metric for group, curves in groups if curves))
    if not metrics:
        return None
    figure, panels = new_axes(x, [y.format(MAIN[metric]) for metric in metrics])
    several = set()
    for place, (group, curves) in enumerate(groups):
        row = group.runs[0].row
        axes = panels[metrics.index(row.metric)] if row.metric in metrics else None
        if axes and curves:
            draw(axes, over_seeds(curves, group.label), place, group.label)
            several.add(len(curves) > 1)
        elif axes and levels and row.mean is not None and not row.train_steps:
            level = look(place, f"{group.label} (test)") | {"marker": "", "linewidth": 1}
            axes.axhline(scale_of(row.metric) * row.mean, **level)
    mixed = several == {True, False}
    meaning = f"{SEEDS}, or of one seed the {TASKS}" if mixed else SEEDS if True in several else TASKS
    return with_legend(figure, f"line: mean, band: {meaning}")


def _curves(runs: Sequence[FinishedRun], curve_of: Callable[[FinishedRun], Any]) -> list[tuple[SeedGroup, list[Any]]]:
    """Return the experiments, each with the runs that have a curve and their curves; with all runs where none has."""
    found = []
    for group in seed_groups(runs):
        having = {run: curve for run in group.runs if (curve := curve_of(run)) is not None}
        found.append((group._replace(runs=tuple(having)) if having else group, list(having.values())))
    return found


def _validations(run: FinishedRun) -> Curve | None:
    """Return the main metric of each validation; None where there are none."""
    if not run.directory.metrics.is_file():
        return None
    with _lines(run.directory.metrics) as lines:
        rows = [row for row in lines if row["split"] == "val"]
        step, values, ci95 = (
            np.array([float(row[name] or "nan") for row in rows]) for name in ("step", run.row.metric, "ci95")
        )
    unit = scale_of(run.row.metric)
    return with_interval(step, unit * values, unit * ci95) if rows else None


def _by_inner_step(run: FinishedRun) -> Curve | None:
    """Return the main metric over the test tasks by the number of inner steps; None where there are none."""
    columns = _columns(run.directory.episodes) if run.directory.episodes.is_file() else {}
    numbers = range(run.row.inner_steps + 1)
    values = {number: columns[name] for number in numbers if (name := f"{run.row.metric}_{number}") in columns}
    if not values:
        return None
    tasks = scale_of(run.row.metric) * np.stack(list(values.values()))  # [R, E]
    return with_interval(np.array(list(values)), tasks.mean(axis=1), ci95_of_columns(tasks.T))


def _by_step(column: str, unit: int = 1) -> Callable[[FinishedRun], Curve | None]:
    """Return a function that reads a column of a run's curves.csv, times `unit`; it returns None without that file."""

    def curve_of(run: FinishedRun) -> Curve | None:
        if not run.directory.curves.is_file():
            return None
        rows = _columns(run.directory.curves, ("step", column, f"{column}_ci95"))
        return with_interval(rows["step"], unit * rows[column], unit * rows[f"{column}_ci95"])

    return curve_of


def _bins(run: FinishedRun) -> dict[str, np.ndarray] | None:
    """Return the columns of calibration.csv, `[bins]` each; None without that file."""
    return _columns(run.directory.calibration, BINS) if run.directory.calibration.is_file() else None


def _columns(path: Path, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    with _lines(path) as lines:
        return {name: np.array([float(row[name]) for row in lines]) for name in {**lines[0], **dict.fromkeys(needed)}}


@contextmanager
def _lines(path: Path) -> Iterator[list[dict[str, str]]]:
    """Read the lines of a CSV; errors inside the block, which reads their values, become RunError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield list(csv.DictReader(file))
    except (OSError, LookupError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error!r}): move it away, or train the run again") from None
