"""Print cells, a DataFrame of texts, as text, Markdown, LaTeX or CSV.

The numbers in the cells are texts already, so that no format changes a digit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..runs.rows import as_csv

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RIGHT = frozenset(
    {
        "validation", "result", "ci95", "seed std", "published", "difference", "ece", "ece before",
        "temperature", "nll", "episodes", "seeds", "selected of",
        "minutes", "budget", "p",
    }
)  # fmt: skip
ONE_CELL = ("markdown", "latex")  # formats with `result ± ci95` in one cell


def render_cells(cells: DataFrame, form: str, right: Collection[str] = RIGHT, bold: Series | None = None) -> str:
    """Return cells as text, markdown, latex (booktabs) or csv, without a final newline.

    Args:
        cells: texts under headings that differ
        right: headings of the columns that are aligned right
        bold: for each line, whether its `result` stands out: `x*` in text, bold in markdown and latex
    """
    cells = cells.reset_index(drop=True)
    best = [False] * len(cells) if bold is None else list(bold)
    if form == "csv":
        return as_csv(cells).rstrip("\n")
    if form == "latex":
        return _latex(cells, right, best)
    if any(best):
        mark, other = ("{}*", "{} ") if form == "text" else ("**{}**", "{}")
        marked = [(mark if one else other).format(cell) for one, cell in zip(best, cells["result"], strict=True)]
        cells = cells.assign(result=marked)
    if form == "markdown":
        cells = cells.map(lambda cell: cell.replace("|", "\\|"))
    import tabulate

    tabulate.MIN_PADDING = 0  # a column is as wide as its widest cell, not two letters wider than its heading
    align = ["right" if name in right else "left" for name in cells]
    look = {"disable_numparse": True, "preserve_whitespace": True, "colalign": align if len(cells) else None}
    return cells.to_markdown(index=False, tablefmt="simple" if form == "text" else "pipe", **look)


def with_notes(table: str, notes: Sequence[str], form: str) -> str:
    """Return a table with notes below it, which are comments in latex; csv has none."""
    if not notes or form == "csv":
        return table
    comment = "% " if form == "latex" else ""
    return "\n".join([table, "", *(comment + note for note in notes)])


def _latex(cells: DataFrame, right: Collection[str], best: Sequence[bool]) -> str:
    def emphasis(column: Series) -> list[str]:
        bold = ["boldmath:--wrap;textbf:--rwrap" if "±" in cell else "textbf:--rwrap" for cell in column]
        return [look if one else "" for one, look in zip(best, bold, strict=True)]

    style = cells.style.hide(axis="index")
    style.format(_mathematics, escape="latex")
    style.format_index(_mathematics, escape="latex", axis="columns")
    if any(best):
        style.apply(emphasis, subset=["result"])
    columns = "".join("r" if name in right else "l" for name in cells)
    return style.to_latex(hrules=True, column_format=columns).rstrip("\n")


def _mathematics(text: str) -> str:
    """Return text that is escaped for LaTeX with its ±, < and > in mathematics: `98.58 ± 0.16` as one formula."""
    text = re.sub(r"^(\S+) ± (\S+)$", r"$\1 \\pm \2$", text)
    return text.replace("±", r"$\pm$").replace("<", "$<$").replace(">", "$>$")


def records(frame: DataFrame) -> list[dict[str, Any]]:
    """Return the lines of a DataFrame as dictionaries, with None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def results(line: Mapping[str, Any], form: str = "text") -> dict[str, str]:
    """Return the cells of a measurement: result, its interval and spread, and the paper's number beside it.

    `line` has metric, result, ci95, seed_std, published, published_ci95 and difference, accuracies in percent.
    """
    digits = digits_of(line["metric"])
    result = number(line["result"], digits) or "not finite"
    ci95 = number(line["ci95"], digits)
    return {
        "result": interval(result, ci95) if form in ONE_CELL else result,
        "ci95": "" if form in ONE_CELL else ci95,
        "seed std": number(line["seed_std"], digits),
        "published": interval(number(line["published"], digits), number(line["published_ci95"], digits)),
        "difference": number(line["difference"], digits, "+"),
    }


def interval(value: str, ci95: str) -> str:
    """Return `value ± ci95`, or what there is of it."""
    return f"{value} ± {ci95}" if value and ci95 else value


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Return a number with so many decimals; nothing for None."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def unit_of(metric: str) -> str:
    """Return the metric, and percent where it is shown in percent."""
    return "accuracy %" if metric == "accuracy" else metric


def digits_of(metric: str) -> int:
    """Return the number of decimals that a metric is shown with."""
    return 3 if metric in ("mse", "auroc_unknown") else 2


def scale_of(metric: str) -> float:
    """Return the factor from the unit of a row to that of a table: accuracies are fractions there, percent here."""
    return 100.0 if metric == "accuracy" else 1.0
