"""The table of a search: the validation of each configuration with its interval, the chosen one marked, no test."""

from __future__ import annotations

from collections.abc import Sequence

from ..reports.formats import digits_of, number, render_cells, scale_of, unit_of
from ..runs.run import Run
from .results import Result

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
    path = str(run.directory.path)
    return f"{'' if path in reason else f'{path}: '}{reason}; it counts as the worst"
