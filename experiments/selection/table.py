"""The table of a search: the validation of each configuration with its interval, the chosen one marked, no test."""

from __future__ import annotations

from collections.abc import Sequence

from ..reports.formats import digits_of, number, render_cells, scale_of, unit_of
from ..runs.run import Run
from ..system import lock
from .results import Result, diverged, failure_of

RIGHT = ("validation", "ci95", "at step", "steps")


def table(results: Sequence[Result]) -> str:
    """Return the results as a table, accuracies in percent, and below it which was chosen and why."""
    from pandas import DataFrame

    cells = DataFrame([_cells(each) for each in results], dtype=object)
    lines = [render_cells(cells, "text", RIGHT), ""]
    lines += [f"chosen of {len(results)}: {each.settings}, {each.why}" for each in results if each.chosen]
    return "\n".join(lines)


def _cells(result: Result) -> dict[str, str]:
    scale, digits = scale_of(result.metric), digits_of(result.metric)
    value, ci95 = (number(None if each is None else scale * each, digits) for each in (result.validation, result.ci95))
    return {
        "configuration": result.settings,
        "metric": unit_of(result.metric),
        "validation": value,
        "ci95": ci95,
        "at step": "" if result.step is None else str(result.step),
        "steps": str(result.steps),
        "outcome": "chosen" if result.chosen else result.why.partition(":")[0],
    }


def failed(run: Run, reason: str) -> str:
    """Return the line about a configuration that failed."""
    return f"{_placed(run, reason)}{'; it counts as the worst' if diverged(reason) else ''}"


def why_unknown(run: Run) -> str:
    """Return why nothing is known of a run of a search, and what to do, in one line."""
    if holder := lock.holder(run.directory.lock):
        return f"{run.directory.path} is in use by {holder}: wait for it, then give the same command"
    reason = failure_of(run.directory)
    return stopping(run, reason or f"its process was stopped or killed before step {run.until}")


def stopping(run: Run, reason: str) -> str:
    """Return the line about a failure that says nothing of the settings, so that a search does not choose."""
    return (
        f"{_placed(run, reason)}; nothing is chosen meanwhile: mend that and give the same command, which goes on, or "
        "leave this configuration out"
    )


def _placed(run: Run, reason: str) -> str:
    path = str(run.directory.path)
    return reason if path in reason else f"{path}: {reason}"
