"""`make tables`: the tables of this folder and of the project's README, from files that runs have written.

    python experiments/results/tables.py [RUNS...]

RUNS are folders of `metarun reproduce`, on this machine or brought from others: the cells of their TABLE.csv and
TABLE-budget-*.csv and the rows of their results.csv are taken over first. Of a cell that is there already, the one with
the larger share of the paper's budget stays, and of equal ones that with more seeds. Then the text between
`<!-- table NAME -->` and `<!-- end -->` is written anew, in both READMEs, from NAME.csv; where NAME is `all`, from all
tables: one line per trained cell that the paper has a number for; where it is `main`, a few of these lines (`MAIN`);
where it is `others`, from the rows of those specs that belong to no paper's table.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from metarun.experiments.papers.definition import load_table, shipped_tables
from metarun.experiments.papers.filled import FilledCell, read_table
from metarun.experiments.papers.render import percent
from metarun.experiments.papers.render import render as render_table
from metarun.experiments.reports.formats import render_cells
from metarun.experiments.reports.table import numbers, render, tabulate
from metarun.experiments.runs.rows import COLUMNS, Row
from metarun.experiments.system.atomic import write_text_atomic

HERE = Path(__file__).parent
ROWS = HERE / "results.csv"
COLUMNS_OF_ALL = ("table", "column", "method", "published", "result", "ci95", "verdict", "budget", "seeds")
MAIN = {  # table -> cells that the project's README shows
    "duan2016-bandits-small": ("n10-k5-rl2",),
    "finn2017-omniglot": ("5way-1shot", "5way-5shot"),
    "finn2017-sinusoid": ("k5-10steps",),
    "nichol2018-omniglot": ("5way-1shot-inductive",),
    "snell2017-omniglot": ("5way-1shot", "20way-1shot"),
    "vinyals2016-omniglot": ("20way-1shot",),
}
OTHERS = ("omniglot-", "miniimagenet-")
KEY = ("experiment", "seed", "split", "way", "shot", "query", "protocol", "inner_steps", "checkpoint", "precision",
       "episodes", "episodes_digest")  # fmt: skip


def take_over(runs: Path) -> None:
    """Tables and rows of a folder of runs; a row replaces that of the same test of the same run."""
    if not (runs / "results.csv").is_file():
        sys.exit(f"{runs} is no folder of finished runs: it has no results.csv")
    for name in shipped_tables():
        for path in sorted(runs.glob(f"{name}.csv")) + sorted(runs.glob(f"{name}-budget-*.csv")):
            own = HERE / f"{name}.csv"
            cells = {cell.cell: cell for cell in merged(read_table(own) if own.is_file() else [], read_table(path))}
            in_order = [cells[cell.name] for cell in load_table(name).cells if cell.name in cells]
            write_text_atomic(own, render_table(in_order, [], "csv") + "\n")
    rows = {tuple(row[key] for key in KEY): row for path in (ROWS, runs / "results.csv") for row in read(path)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    write_text_atomic(ROWS, text.getvalue())


def merged(old: Sequence[FilledCell], new: Sequence[FilledCell]) -> list[FilledCell]:
    """Each cell once. A column with cells of both has those in bold that are sure to be: see `best_of_both`."""
    trained = {cell.cell: (cell.budget or 1, cell.seeds) for cell in old}
    taken = [cell for cell in new if (cell.budget or 1, cell.seeds) >= trained.get(cell.cell, (0, 0))]
    names = {cell.cell for cell in taken}
    kept = [cell for cell in old if cell.cell not in names]
    best = {cell.cell for cell in kept + taken if cell.best}
    for column in {cell.column for cell in kept} & {cell.column for cell in taken}:
        in_column = [[cell for cell in part if cell.column == column] for part in (kept, taken, old, new)]
        best -= {cell.cell for part in in_column for cell in part}
        best |= best_of_both(*in_column)
    return [cell.model_copy(update={"best": cell.cell in best}) for cell in kept + taken]


def best_of_both(
    kept: Sequence[FilledCell], taken: Sequence[FilledCell], old: Sequence[FilledCell], new: Sequence[FilledCell]
) -> set[str]:
    """Names of the best cells of a column that has kept cells of an old and taken ones of a new folder, whose episodes
    are not here to be paired.

    On the same tasks the standard error of a difference is at most the sum of both standard errors, whatever the two
    have in common (Cauchy and Schwarz): where intervals do not meet, a paired test tells the cells apart as well. So
    the best of the folder with the best cell of all stand, if all cells of the other are that far from it; else none.
    """
    cells = [*kept, *taken]
    if len({(cell.episodes_digest, cell.metric) for cell in cells}) > 1:
        return set()
    if any(cell.result is None or cell.ci95 is None for cell in [*old, *new]):
        return set()
    choose = min if cells[0].metric == "mse" else max
    top = choose(cells, key=lambda cell: cell.result)
    own, others, compared = (kept, taken, old) if top in kept else (taken, kept, new)
    if any(abs(top.result - cell.result) <= top.ci95 + cell.ci95 for cell in others):
        return set()
    if len(own) == 1:  # one that was alone was compared with none
        return {top.cell}
    return {cell.cell for cell in own if cell.best and choose(compared, key=lambda cell: cell.result) == top}


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def written(name: str) -> str:
    """The Markdown of a table."""
    if name == "others":
        rows = (row for row in read(ROWS) if row["experiment"].startswith(OTHERS))
        told = [{key: value or None for key, value in row.items() if value or key in ("mean", "ci95")} for row in rows]
        alone = [Row.model_validate(row) for row in told]
        return render(tabulate(alone), "markdown")
    if name not in ("all", "main"):
        path = HERE / f"{name}.csv"
        return render_table(read_table(path), [], "markdown") if path.is_file() else "Not run yet."
    lines = []
    for table in shipped_tables():
        if (HERE / f"{table}.csv").is_file():
            cells = [cell for cell in read_table(HERE / f"{table}.csv") if cell.published is not None and cell.budget]
            chosen = MAIN.get(table, ()) if name == "main" else [cell.cell for cell in cells]
            lines += [line_of(table, cell) for cell in cells if cell.cell in chosen]
    return render_cells(COLUMNS_OF_ALL, lines, "markdown")


def line_of(table: str, cell: FilledCell) -> list[str]:
    """One line: the number with its interval over episodes, and how much of the paper's budget it had."""
    told = numbers(cell.metric, cell.result, cell.ci95, None, cell.published, None)
    return [table, cell.column, cell.method, told["published"], told["result"], told["ci95"], cell.verdict,
            percent(cell.budget), str(cell.seeds)]  # fmt: skip


def filled(text: str) -> str:
    """The text of a README with its tables written anew."""
    block = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{written(found[2])}\n{found[3]}", text)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        take_over(Path(folder))
    for readme in (HERE / "README.md", HERE.parents[1] / "README.md"):
        write_text_atomic(readme, filled(readme.read_text()))
