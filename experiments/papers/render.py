"""A paper's table, reproduced: the paper's number and ours, a verdict, and the best of each column in bold. No
TensorFlow.

Two cells of a column are compared on identical episodes by a paired t-test of the values of each episode, averaged
over seeds; the best one is bold, and so are those that the test does not separate from it. The test accounts for the
spread over episodes, not for that over trainings, which `seed std` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import warn
from ..reports.compare import LEVEL
from ..reports.formats import records, render_cells, results, unit_of, with_notes
from ..reports.notes import notes_of, notes_on_seeds, seeds_text
from ..system.atomic import write_text_atomic
from .filled import collect, table_as_csv
from .plan import Planned

if TYPE_CHECKING:
    from pandas import DataFrame


def write(planned: Sequence[Planned], path: Path, form: str = "text", below: Sequence[str] = ()) -> str:
    """Write the table to PATH.csv, .md and .tex, and return it in another form; "" where no cell is filled.

    Warns of cells that do not have all their seeds. `below` has further notes, those of the table's file.
    """
    filled, notes = collect(planned)
    notes = [*notes, *below]
    if filled.empty:
        return ""
    for note in notes_on_seeds(filled, "cell"):
        warn(note)
    for ending, kind in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        write_text_atomic(Path(f"{path}.{ending}"), render(filled, notes, kind) + "\n")
    return render(filled, notes, form)


def render(filled: DataFrame, notes: Sequence[str], form: str) -> str:
    """Return the table as text, csv, markdown or latex (booktabs), without a final newline."""
    if form == "csv":
        return table_as_csv(filled).rstrip("\n")
    cells, best = cells_of(filled, form), filled.loc[:, "best"]
    shown = render_cells(cells.loc[:, (cells != "").any()], form, bold=best)
    mark = {"text": "*", "markdown": "bold", "latex": "bold"}[form]
    below = [*notes_of(filled, "cell"), *notes]
    if best.any():
        below.insert(
            0,
            f"{mark}: the best of its column, and those that a paired t-test on the identical episodes (mean over "
            f"seeds) does not separate from it (p > {LEVEL})",
        )
    return with_notes(shown, below, form)


def cells_of(filled: DataFrame, form: str) -> DataFrame:
    """Return all columns that the table may have, as texts under their headings."""
    from pandas import DataFrame

    cells = []
    for line in records(filled):
        shown = results(line, form)
        cells.append(
            {
                "column": line["column"],
                "method": line["method"],
                "published": shown["published"],
                "result": shown["result"],
                "ci95": shown["ci95"],
                "seed std": shown["seed std"],
                "difference": shown["difference"],
                "verdict": line["verdict"] or "",
                "metric": unit_of(line["metric"]),
                "episodes": str(line["episodes"]),
                "seeds": seeds_text(line["seeds"], line["left_out"]),
                "steps": line["steps"] or "",
                "budget": "" if line["budget"] is None else f"{100 * line['budget']:.3g} %",
                "precision": line["precision"] or "",
                "protocol": line["protocol"] or "",
            }
        )
    return DataFrame(cells, dtype=object)
