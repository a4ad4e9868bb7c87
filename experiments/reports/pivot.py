"""A table of a paper: one column of the results down, another across, `98.58 ± 0.16` in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SpecError
from .formats import records, render_cells, results, unit_of, with_notes
from .mixed import notes_on_origins
from .table import GROUPED, HEADINGS, column_of, keys_of, text_of

if TYPE_CHECKING:
    from pandas import DataFrame


def render_pivot(lines: DataFrame, down: str, across: str, form: str) -> str:
    """Return the results of `lines` as text, csv, markdown or latex, without a final newline.

    `down` and `across` are headings or columns of the table. Raises SpecError for one that is not there, for
    measurements of several metrics, and for several measurements of one cell, with the columns that tell them apart.
    """
    from pandas import Categorical
    from pandas.api.types import is_numeric_dtype

    names = column_of(lines, down), column_of(lines, across)
    if names[0] == names[1]:
        raise SpecError([f"--pivot {down},{across}: give two different columns"])
    if "seed" in names:
        raise SpecError([f"--pivot {down},{across}: seeds are averaged; results.csv has the results of each"])
    metrics = list(lines["metric"].unique())
    if len(metrics) > 1:
        raise SpecError([f"--pivot: the runs are measured by {' and '.join(metrics)}: give folders of one of them"])
    _refuse_several(lines, {down: names[0], across: names[1]})
    cells = [results(line, "markdown")["result"] for line in records(lines)]
    labels = {}
    for heading, name in ((down, names[0]), (across, names[1])):
        prefix = f"{heading} " if heading == across and is_numeric_dtype(lines[name]) else ""
        known = [prefix + text_of(value) for value in lines.drop_duplicates([name]).sort_values(name)[name]]
        labels[heading] = Categorical([prefix + text_of(value) for value in lines[name]], known)
    table = lines[[]].assign(**labels, cell=cells).pivot(index=down, columns=across, values="cell")
    table = table.astype(object).where(table.notna(), "").rename_axis(columns=None)
    table.columns = table.columns.astype(object)
    shown = render_cells(table.reset_index().astype(str), form, right=list(table))
    unit = f"{unit_of(metrics[0])}, with its 95% interval over the test episodes"
    return with_notes(shown, [unit, *notes_on_origins(lines)], form)


def _refuse_several(lines: DataFrame, names: dict[str, str]) -> None:
    """Raise SpecError with the columns that tell measurements apart where several belong to one cell."""
    cell = lines.groupby(list(names.values()), sort=False, dropna=False).ngroup()
    if not cell.duplicated().any():
        return
    several = lines.loc[cell == cell[cell.duplicated()].iloc[0]]
    headings = {name: heading for heading, name in HEADINGS.items()}
    columns = keys_of(lines) | {headings.get(name, name): name for name in (*GROUPED[1:], "experiment")}
    apart = [heading for heading, name in columns.items() if several[name].nunique(dropna=False) > 1]
    telling = [heading for heading in apart if not columns[heading].endswith("digest")] or apart
    which = ", ".join(f"{heading} {text_of(several.iloc[0][name])}" for heading, name in names.items())
    given = ",".join(names)
    raise SpecError([f"--pivot {given}: {len(several)} measurements of {which}; they differ in {', '.join(telling)}"])
