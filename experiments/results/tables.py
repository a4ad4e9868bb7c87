"""`make tables`: the tables of this folder and of the project's README, from files that runs have written.

    python experiments/results/tables.py [RUNS...]

RUNS are folders of `metarun reproduce`, on this machine or brought from others: the cells of their TABLE.csv,
TABLE-budget-*.csv and TABLE-bfloat16.csv and the rows of their results.csv are taken over first. Of a cell that is
there already, the one with the larger share of the paper's budget stays, of equal ones that in float32, then that with
more seeds; the column `precision` names any other. Then the text between `<!-- table NAME -->` and `<!-- end -->` is
written anew, in both READMEs, from NAME.csv; where NAME is `all`, from all tables: one line per trained cell that the
paper has a number for; where it is `main`, a few of these lines (`MAIN`); where it is `others`, from the rows of those
specs that belong to no paper's table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas
from pandas import DataFrame, Series

from metarun.experiments.papers.definition import load_table, shipped_tables
from metarun.experiments.papers.filled import CELLS, read_table, table_as_csv
from metarun.experiments.papers.render import cells_of
from metarun.experiments.papers.render import render as render_table
from metarun.experiments.reports.formats import render_cells
from metarun.experiments.reports.table import lines_of, render
from metarun.experiments.runs.rows import COLUMNS, DTYPES, read_frame
from metarun.experiments.system.atomic import write_text_atomic

HERE = Path(__file__).parent
ROWS = HERE / "results.csv"
COLUMNS_OF_ALL = ["table", "column", "method", "published", "result", "verdict", "budget", "seeds", "precision"]
MAIN = {  # table -> cells that the project's README shows
    "duan2016-bandits-small": ("n10-k5-rl2",),
    "finn2017-omniglot": ("5way-1shot", "5way-5shot"),
    "finn2017-sinusoid": ("k5-10steps",),
    "nichol2018-omniglot": ("5way-1shot-inductive",),
    "snell2017-omniglot": ("5way-1shot", "20way-1shot"),
    "vinyals2016-omniglot": ("20way-1shot",),
}
ENDINGS = ("", "-budget-*", "-bfloat16")  # of a table's file
OTHERS = ("omniglot-", "miniimagenet-")
KEY = ["experiment", "seed", "split", "way", "shot", "query", "protocol", "inner_steps", "checkpoint", "precision",
       "episodes", "episodes_digest", "head", "judged"]  # fmt: skip


def take_over(runs: Path) -> None:
    """Take over the tables and rows of a folder of runs; a row replaces that of the same test of the same run."""
    if not (runs / "results.csv").is_file():
        sys.exit(f"{runs} is no folder of finished runs: it has no results.csv")
    for name in shipped_tables():
        for path in sorted(path for ending in ENDINGS for path in runs.glob(f"{name}{ending}.csv")):
            own = HERE / f"{name}.csv"
            cells = merged(read_table(own), read_table(path)) if own.is_file() else read_table(path)
            cells = cells.set_index("cell", drop=False)
            in_order = [cell.name for cell in load_table(name).cells if cell.name in cells.index]
            write_text_atomic(own, table_as_csv(cells.loc[in_order]))
    rows = pandas.concat([read(ROWS), read(runs / "results.csv")])
    rows = rows.reindex(columns=COLUMNS).fillna("").drop_duplicates(KEY, keep="last")
    write_text_atomic(ROWS, rows.sort_values(KEY).to_csv(index=False, lineterminator="\n"))


def merged(old: DataFrame, new: DataFrame) -> DataFrame:
    """Return each cell once. A column with cells of both has those in bold that are sure to be: see `best_of_both`."""
    trained = pandas.concat([old.assign(taken=False), new.assign(taken=True)])
    trained["share"], trained["single"] = trained["budget"].fillna(1), trained["precision"].isna()
    cells = trained.sort_values(["share", "single", "seeds", "taken"], kind="stable").drop_duplicates(
        "cell", keep="last"
    )
    cells = cells.sort_index(kind="stable").sort_values("taken", kind="stable").reset_index(drop=True)
    for column, both in cells.groupby("column")["taken"].nunique().items():
        if both > 1:
            kept, taken, before, after = (
                part[part["column"] == column] for part in (cells[~cells["taken"]], cells[cells["taken"]], old, new)
            )
            best = cells["cell"].isin(best_of_both(kept, taken, before, after))
            cells["best"] = cells["best"].where(cells["column"] != column, best)
    return cells[list(CELLS)]


def best_of_both(kept: DataFrame, taken: DataFrame, old: DataFrame, new: DataFrame) -> set[str]:
    """Return the names of the best cells of a column that has kept cells of an old folder and taken ones of a new one.

    Their episodes are not here to be paired.
    On the same tasks the standard error of a difference is at most the sum of both standard errors, whatever the two
    have in common (Cauchy and Schwarz): where intervals do not meet, a paired test tells the cells apart as well. So
    the best of the folder with the best cell of all stand, if all cells of the other are that far from it; else none.
    """
    cells = pandas.concat([kept, taken], ignore_index=True)
    if len(cells[["episodes_digest", "metric"]].drop_duplicates()) > 1:
        return set()
    if pandas.concat([old, new])[["result", "ci95"]].isna().any(axis=None):
        return set()

    def top_of(cells: DataFrame) -> Series:
        results = cells["result"].reset_index(drop=True)
        return cells.iloc[results.idxmin() if cells["metric"].iloc[0] == "mse" else results.idxmax()]

    top = top_of(cells)
    own, others, compared = (kept, taken, old) if top["cell"] in set(kept["cell"]) else (taken, kept, new)
    if ((others["result"] - top["result"]).abs() <= others["ci95"] + top["ci95"]).any():
        return set()
    if len(own) == 1:  # one that was alone was compared with none
        return {top["cell"]}
    return set(own.loc[own["best"], "cell"]) if top_of(compared)["cell"] == top["cell"] else set()


def read(path: Path) -> DataFrame:
    """Return the cells of a results.csv as they stand there."""
    return pandas.read_csv(path, dtype=str, keep_default_na=False)


def written(name: str) -> str:
    """Return the Markdown of a table."""
    if name == "others":
        rows = read_frame(ROWS, DTYPES)
        return render(lines_of(rows[rows["experiment"].str.startswith(OTHERS)]), "markdown")
    if name not in ("all", "main"):
        path = HERE / f"{name}.csv"
        return render_table(read_table(path), load_table(name).notes, "markdown") if path.is_file() else "Not run yet."
    tables = {table: HERE / f"{table}.csv" for table in shipped_tables()}
    cells = pandas.concat([read_table(path).assign(table=table) for table, path in tables.items() if path.is_file()])
    cells = cells[cells["published"].notna() & cells["budget"].notna()].assign(published_ci95=None)
    if name == "main":
        chosen = [(table, cell) for table, names in MAIN.items() for cell in names]
        cells = cells[cells.set_index(["table", "cell"]).index.isin(chosen)]
    texts = cells_of(cells, "markdown").assign(table=list(cells["table"]))[COLUMNS_OF_ALL]
    return render_cells(texts.loc[:, (texts != "").any()], "markdown")


def filled(text: str) -> str:
    """Return the text of a README with its tables written anew."""
    block = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{written(found[2])}\n{found[3]}", text)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        take_over(Path(folder))
    for readme in (HERE / "README.md", HERE.parents[1] / "README.md"):
        write_text_atomic(readme, filled(readme.read_text()))
