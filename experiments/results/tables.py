"""`make tables`: the tables of this folder and of the project's README, from files that runs have written.

    python experiments/results/tables.py [RUNS...]

RUNS are folders of `metarun reproduce`: their TABLE.csv and TABLE.md and the rows of their results.csv are taken over
first. Then the text between `<!-- table NAME -->` and `<!-- end -->` is written anew, in both READMEs, from NAME.md,
or, where NAME is `all`, from all TABLE.csv: one line a cell that the paper has a number for.
"""

from __future__ import annotations

import csv
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
TABLES = sorted(path.stem for path in (HERE.parent / "tables").glob("*.yaml"))
ROWS = HERE / "results.csv"
KEY = ("experiment", "seed", "split", "way", "shot", "query", "protocol", "inner_steps", "checkpoint", "precision")


def take_over(runs: Path) -> None:
    """Tables and rows of a folder of runs; a row replaces that of the same test of the same run."""
    for name in TABLES:
        for ending in (".csv", ".md"):
            if (runs / f"{name}{ending}").is_file():
                shutil.copyfile(runs / f"{name}{ending}", HERE / f"{name}{ending}")
    rows = {tuple(row[key] for key in KEY): row for path in (ROWS, runs / "results.csv") for row in read(path)}
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(read(runs / "results.csv")[0]), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def written(name: str) -> str:
    """The Markdown of a table."""
    if name != "all":
        path = HERE / f"{name}.md"
        return path.read_text().strip() if path.is_file() else "Not run yet."
    lines = ["| table | cell | method | published | reproduced | verdict | budget | seeds |", "|---" * 8 + "|"]
    for table in TABLES:
        if (HERE / f"{table}.csv").is_file():
            lines += [line_of(table, row) for row in read(HERE / f"{table}.csv") if row["published"]]
    return "\n".join(lines)


def line_of(table: str, row: dict[str, str]) -> str:
    """One cell: its number with the interval over episodes, and how much of the paper's budget it had."""
    digits = 3 if row["metric"] == "mse" else 2
    published, result, within = (
        row[key] and f"{float(row[key]):.{digits}f}" for key in ("published", "result", "ci95")
    )
    budget = row["budget"] and f"{100 * float(row['budget']):.3g}%"
    cells = [
        table,
        row["column"],
        row["method"],
        published,
        f"{result} ± {within}",
        row["verdict"],
        budget,
        row["seeds"],
    ]
    return "| " + " | ".join(cells) + " |"


def filled(text: str) -> str:
    """The text of a README with its tables written anew."""
    block = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{written(found[2])}\n{found[3]}", text)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        take_over(Path(folder))
    for readme in (HERE / "README.md", HERE.parents[1] / "README.md"):
        readme.write_text(filled(readme.read_text()))
