"""Tell where a mean is over seeds of different versions, commits or devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .formats import records

if TYPE_CHECKING:
    from pandas import DataFrame

ORIGINS = {  # columns of rows, and words for them
    "version": "versions",
    "git_commit": "commits",
    "device": "devices",
    "plugins": "other packages",
}


def origins_of(rows: DataFrame) -> str | None:
    """Return in what the origins of the rows of one mean differ, `devices CPU and NVIDIA H200`, or None if in nothing.

    Origins that a row does not know, such as those of older versions, do not count.
    """
    if len(rows) < 2:
        return None
    found = {words: list(rows[name].dropna().unique()) for name, words in ORIGINS.items() if name in rows}
    return "; ".join(f"{words} {' and '.join(each)}" for words, each in found.items() if len(each) > 1) or None


def notes_on_origins(lines: DataFrame, name: str = "experiment") -> list[str]:
    """Return a note for each line, named by the column `name`, whose seeds have different origins.

    Args:
        lines: lines of `averaged`, with the column `mixed`.
        name: the column with the name of a line.
    """
    told = lines.loc[lines["mixed"].notna()] if "mixed" in lines else lines.iloc[:0]
    return list(dict.fromkeys(f"{line[name]}: its seeds are of {line['mixed']}" for line in records(told)))
