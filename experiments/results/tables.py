"""`make tables`: the tables of this folder and of the project's README, from files that runs have written.

    python experiments/results/tables.py [RUNS...]

RUNS are folders of `metarun reproduce`: their TABLE.csv and TABLE.md and the rows of their results.csv are taken over
first. Then the text between `<!-- table NAME -->` and `<!-- end -->` is written anew, in both READMEs, from NAME.md;
where NAME is `all`, from all TABLE.csv: one line a trained cell that the paper has a number for; where it is `others`,
from the rows of those specs that belong to no paper's table.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from pathlib import Path

from metarun.experiments.atomic import write_text_atomic
from metarun.experiments.papers import shipped_tables
from metarun.experiments.results import COLUMNS, Row
from metarun.experiments.table import render, render_cells, tabulate

HERE = Path(__file__).parent
ROWS = HERE / "results.csv"
CELLS = ("table", "column", "method", "published", "result", "ci95", "verdict", "budget", "seeds")
OTHERS = ("omniglot-", "miniimagenet-")
KEY = ("experiment", "seed", "split", "way", "shot", "query", "protocol", "inner_steps", "checkpoint", "precision")


def take_over(runs: Path) -> None:
    """Tables and rows of a folder of runs; a row replaces that of the same test of the same run."""
    if not (runs / "results.csv").is_file():
        sys.exit(f"{runs} is no folder of finished runs: it has no results.csv")
    for name in shipped_tables():
        for ending in (".csv", ".md"):
            if (runs / f"{name}{ending}").is_file():
                shutil.copyfile(runs / f"{name}{ending}", HERE / f"{name}{ending}")
    rows = {tuple(row[key] for key in KEY): row for path in (ROWS, runs / "results.csv") for row in read(path)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    write_text_atomic(ROWS, text.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def written(name: str) -> str:
    """The Markdown of a table."""
    if name == "others":
        rows = (row for row in read(ROWS) if row["experiment"].startswith(OTHERS))
        alone = [Row.model_validate({key: value for key, value in row.items() if value}) for row in rows]
        return render(tabulate(alone), "markdown")
    if name != "all":
        path = HERE / f"{name}.md"
        return path.read_text().strip() if path.is_file() else "Not run yet."
    lines = []
    for table in shipped_tables():
        if (HERE / f"{table}.csv").is_file():
            rows = read(HERE / f"{table}.csv")
            lines += [cells_of(row | {"table": table}) for row in rows if row["published"] and row["budget"]]
    return render_cells(CELLS, lines, "markdown")


def cells_of(row: dict[str, str]) -> list[str]:
    """One line: the number with its interval over episodes, and how much of the paper's budget it had."""
    digits = 3 if row["metric"] == "mse" else 2
    numbers = {name: f"{float(row[name]):.{digits}f}" for name in ("published", "result", "ci95") if row[name]}
    return [(row | numbers | {"budget": f"{100 * float(row['budget']):.3g} %"})[name] for name in CELLS]


def filled(text: str) -> str:
    """The text of a README with its tables written anew."""
    block = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{written(found[2])}\n{found[3]}", text)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        take_over(Path(folder))
    for readme in (HERE / "README.md", HERE.parents[1] / "README.md"):
        write_text_atomic(readme, filled(readme.read_text()))
