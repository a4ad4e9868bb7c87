"""The choice among configurations by validation, and the file that says which was chosen and why. No TensorFlow.

The value of a configuration is that of the checkpoint that its test would use: its best validation, or with
`test.checkpoint: last` its last one. Let b be the best value, and h half the width of its 95% interval over the
validation tasks. Chosen is the first configuration, in the order of the command, whose value is within h of b. So a
user who puts the simplest or cheapest first gets the first of those that validation does not tell from the best.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import Diverged, RunError
from ..reports.sweep import deciding, is_lower_better, validations
from ..runs.directory import RunDirectory
from ..runs.run import Run
from ..system.atomic import write_text_atomic

BEHIND = "left behind"
COLUMNS = ("configuration", "settings", "metric", "validation", "ci95", "step", "steps", "chosen", "why")
COLUMNS += ("seed", "training_digest")  # so that the choice of another search is not taken for this one


class Result(NamedTuple):
    """Hold what a search found of a configuration."""

    configuration: str  # the name of its experiment
    settings: str
    steps: int  # trained
    metric: str = ""
    validation: float | None = None  # in the unit of a row; None: it failed
    ci95: float | None = None  # half-width; None where there is none
    step: int | None = None  # of the validation
    chosen: bool = False
    why: str = ""  # why it was chosen or left, or how it failed
    seed: int = 0
    training_digest: str = ""


def result_before(run: Run, settings: str) -> Result:
    """Return the result of a configuration of which nothing is known."""
    digest = run.as_trained().experiment.training_digest
    return Result(run.experiment.name, settings, 0, why="not trained yet", seed=run.seed, training_digest=digest)


def result_of(run: Run, settings: str) -> Result | None:
    """Return the result of a configuration that has trained up to `run.until`, or diverged; None for any other.

    Validations after that step do not count. Any other failure than a loss that is not finite is no result.
    """
    directory, until = run.directory, run.until or run.experiment.train.steps
    before = result_before(run, settings)
    if run.finished:
        found = [one for one in validations(directory) if one.step <= until]
        steps = min(until, directory.step or until)  # fewer where train.patience ended it
        best = deciding(found, run.experiment.test.checkpoint)
        if best is None:
            return before._replace(steps=steps, why="failed: it has no finite validation")
        known = {"metric": best.metric, "validation": best.value, "step": best.step}
        return before._replace(steps=steps, **known, ci95=best.ci95 if math.isfinite(best.ci95) else None, why="")
    reason = failure_of(directory)
    return before._replace(steps=directory.step, why=f"failed: {reason}") if diverged(reason) else None


def failure_of(directory: RunDirectory) -> str:
    """Return why the last attempt of a run failed, in one line; "" if it did not fail."""
    if not directory.failure.is_file():
        return ""
    return " ".join(directory.failure.read_text(encoding="utf-8", errors="replace").split())


def diverged(reason: str) -> bool:
    """Return whether a failure, in one line, is that of the settings: the loss was not finite.

    Others, of the disk, the memory, the data or a process that was killed, say nothing of how good the settings are.
    """
    return bool(Diverged.told.search(reason))


def half_of(count: int) -> int:
    """Return how many of so many configurations go on: the half, rounded up."""
    return count - count // 2


def better_half(results: Sequence[Result]) -> list[int]:
    """Return the numbers of the better half of the results, in their order: of 5 three, none of them failed.

    Of equal ones the first are better.
    """
    order = sorted(_known(results), key=lambda number: _loss(results[number]))
    return sorted(order[: half_of(len(results))])


def choose(results: Sequence[Result]) -> list[Result]:
    """Return the results with one of them chosen, see the top of this file. At least one must not have failed."""
    known = _known(results)
    best = results[min(known, key=lambda number: _loss(results[number]))]
    number = next(number for number in known if _loss(results[number]) - _loss(best) <= (best.ci95 or 0.0))
    within = f"within the 95% interval of the best ({best.settings}), and the first of these"
    chosen = results[number]._replace(chosen=True, why="the best" if results[number] is best else within)
    return [chosen if n == number else each for n, each in enumerate(results)]


def _known(results: Sequence[Result]) -> list[int]:
    return [number for number, each in enumerate(results) if each.validation is not None]


def _loss(result: Result) -> float:
    """Return the validation value, negative where a larger one is better."""
    assert result.validation is not None
    return result.validation if is_lower_better(result.metric) else -result.validation


def write(path: Path, results: Sequence[Result]) -> None:
    """Write the results to selection.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in results:
        numbers = ["" if number is None else repr(number) for number in (each.validation, each.ci95, each.step)]
        outcome = ["yes" if each.chosen else "", each.why, each.seed, each.training_digest]
        writer.writerow([each.configuration, each.settings, each.metric, *numbers, each.steps, *outcome])
    write_text_atomic(path, text.getvalue())


def read(path: Path) -> list[Result]:
    """Return the results in selection.csv; none without a file. Raises RunError for a file that is damaged."""
    if not path.exists():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        return [
            Result(
                line["configuration"],
                line["settings"],
                int(line["steps"]),
                line["metric"],
                float(line["validation"]) if line["validation"] else None,
                float(line["ci95"]) if line["ci95"] else None,
                int(line["step"]) if line["step"] else None,
                line["chosen"] == "yes",
                line["why"],
                int(line["seed"]),
                line["training_digest"],
            )
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is not the record of a search ({error}): restore it, or move it away") from None
