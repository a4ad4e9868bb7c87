"""Figures of runs, drawn from their files: learning curves, accuracy over adaptation steps, reliability, and of trials
the regret and the best actions step by step. `plot_model.py` has those that need the trained weights.

All are legible in print and to the colour-blind: whatever a colour says, a line style, a letter or a frame says too.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import RunError
from .results import Row, expected_calibration_error, find_rows, read_row
from .rundir import RunDirectory

# Okabe and Ito 2008; the line styles tell apart what is printed in grey
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
MARKERS = "os^Dv<>"  # as many as colours and styles: the eighth curve has the first colour with the second of these
FEW = 40  # points of a curve that are marked, so that one alone is seen
MOST_INSIDE = 10  # lines of a legend inside the axes
BINS = ("queries", "confidence", "right")  # columns of calibration.csv
MAIN = {"accuracy": "accuracy", "mse": "mean squared error", "total_reward": "total reward of a trial"}


class Run(NamedTuple):
    """A finished run with its row."""

    directory: RunDirectory
    row: Row
    label: str  # for the legend
    name: str  # for the file of a figure of this run alone


def runs_below(folders: Sequence[Path]) -> list[Run]:
    """All finished runs in and below the folders; RunError where there is none."""
    found = [path for path in find_rows(folders) if path.name == "result.json"]
    if not found:
        raise RunError(f"no finished run in {', '.join(map(str, folders))}: give folders such as runs/NAME/seed-0")
    rows = [read_row(path) for path in found]
    alone = len({row.algorithm for row in rows}) == len({row.experiment for row in rows})
    same = Counter((row.experiment, row.seed) for row in rows)
    runs, names = [], Counter[str]()
    for path, row in zip(found, rows, strict=True):
        label = row.algorithm if alone else row.experiment  # where the algorithm says which experiment is meant
        name = f"{row.experiment}-seed-{row.seed}"
        if same[row.experiment, row.seed] > 1:  # of several folders
            label = str(path.parent)
            name = re.sub(r"[^\w.~]+", "-", label).strip("-")
        elif row.seed:
            label += f" seed {row.seed}"
        names[name] += 1
        name += f"~{names[name]}" * (names[name] > 1)
        runs.append(Run(RunDirectory(path.parent), row, plain(label), name))
    return runs


def plain(label: str) -> str:
    """A text that matplotlib shows as it is: dollars are no formulas, a first _ does not hide it from the legend."""
    return f"{' ' * label.startswith('_')}{label}".replace("$", r"\$")


def draw_all(runs: Sequence[Run], out: Path, form: str, kinds: Sequence[str] = (), episode: int = 0) -> Iterator[Path]:
    """Write the figures of these kinds, or all that the runs' files have the numbers for; the paths.

    RunError for a kind that no run has the numbers for. `episode` is the test task of those that show one.
    """
    import matplotlib

    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    for kind in [kind for kind in kinds or FROM_FILES if kind in FROM_FILES]:
        figure = FROM_FILES[kind](runs)
        if figure is not None:
            yield _written(figure, out / f"{kind}.{form}")
        elif kinds:
            raise RunError(f"--kind {kind}: no run here has {NUMBERS[kind]}")
    if of_models := [kind for kind in kinds if kind in FROM_WEIGHTS]:
        from .plot_model import figures

        drawn = set()
        for run in runs:
            prefix = f"{run.name}-" if len(runs) > 1 else ""
            for kind, figure in figures(run, of_models, episode):
                drawn.add(kind)
                yield _written(figure, out / f"{prefix}{kind}.{form}")
        if missing := [kind for kind in of_models if kind not in drawn]:
            raise RunError(f"--kind {missing[0]}: it is for {NUMBERS[missing[0]]}, and no run here is one")


def learning(runs: Sequence[Run]) -> Any | None:
    """Validation over training, with the interval over its tasks; the tests of methods that are not trained as level
    lines."""
    curves = [(run, _validations(run)) for run in runs]
    trained = [(run, rows) for run, rows in curves if rows is not None]
    if not trained:
        return None
    metric = trained[0][0].row.metric
    figure, axes = _axes("training step", f"{MAIN[metric]} in validation")
    for place, (run, rows) in enumerate(curves):
        if rows is None:
            if run.row.metric == metric and run.row.mean is not None and not run.row.train_steps:
                axes.axhline(run.row.mean, **_look(place, f"{run.label} (test)") | {"marker": ""}, linewidth=1)
        elif run.row.metric == metric:
            _band(axes, rows["step"], rows[metric], rows["ci95"], place, run.label)
    return _finished(figure, axes)


def adaptation(runs: Sequence[Run]) -> Any | None:
    """The main metric after 0, 1, 2, ... inner steps on the test tasks, with its interval over them."""
    adapted = [(run, values) for run in runs if (values := _by_inner_step(run))]
    if not adapted:
        return None
    metric = adapted[0][0].row.metric
    figure, axes = _axes("inner step", f"{MAIN[metric]} in the test")
    for place, (run, by_step) in enumerate(adapted):
        if run.row.metric == metric:
            values = np.stack(list(by_step.values()))
            ci95 = 1.96 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
            _band(axes, np.array(list(by_step)), values.mean(axis=1), ci95, place, run.label)
    return _finished(figure, axes)


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
        counts, look = rows["queries"], _look(place, "")
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
    return _finished(figure, axes)


def regret(runs: Sequence[Run]) -> Any | None:
    """What the actions cost against the best ones, up to each step of the test trials."""
    return _by_step(runs, "regret_by_step", "regret")


def optimal(runs: Sequence[Run]) -> Any | None:
    """The share of best actions in each step of the test trials."""
    return _by_step(runs, "optimal_by_step", "share of best actions")


FROM_FILES: dict[str, Callable[[Sequence[Run]], Any | None]] = {
    "learning": learning,
    "adaptation": adaptation,
    "reliability": reliability,
    "regret": regret,
    "optimal": optimal,
}
FROM_WEIGHTS = ("fits", "episode", "embedding", "attention")  # in plot_model.py
NUMBERS = {
    "learning": "validations",
    "adaptation": "inner steps in its episodes.csv",
    "reliability": "a calibration.csv, which the test of a classifier writes; those of old versions did not",
    "regret": "a curves.csv, which runs on trials have",
    "optimal": "a curves.csv, which runs on trials have",
    "fits": "regression on sinusoids",
    "episode": "classifiers of images",
    "embedding": "protonet",
    "attention": "matchingnet",
}


def _by_step(runs: Sequence[Run], column: str, label: str) -> Any | None:
    needed = ("step", column, f"{column}_ci95")
    played = [(run, _columns(run.directory.curves, needed)) for run in runs if run.directory.curves.is_file()]
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


def _written(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return figure, axes


def _look(place: int, label: str) -> dict[str, Any]:
    """No two of the first 49 places have the same."""
    turn = (place + place // len(COLORS)) % len(STYLES)
    return {
        "color": COLORS[place % len(COLORS)],
        "linestyle": STYLES[turn],
        "marker": MARKERS[turn],
        "markersize": 3,
        "label": label,
    }


def _band(axes: Any, x: np.ndarray, y: np.ndarray, ci95: np.ndarray, place: int, label: str) -> None:
    look = _look(place, label)
    axes.plot(x, y, **look | ({} if len(x) <= FEW else {"marker": ""}))
    if len(x) == 1:
        axes.errorbar(x, y, ci95, color=look["color"], capsize=3)
    else:
        axes.fill_between(x, y - ci95, y + ci95, color=look["color"], alpha=0.15, linewidth=0)


def _finished(figure: Any, axes: Any) -> Any:
    from matplotlib import pyplot

    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= MOST_INSIDE:
        axes.legend(fontsize="small")
    else:
        figure.set_figheight(figure.get_figheight() + 0.2 * len(labels))
        figure.legend(handles, labels, fontsize="small", loc="outside lower center")
    pyplot.close(figure)
    return figure
