"""The notes below a table: seeds that a mean does not have, and intervals that are rough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...datasets.errors import counted
from ..runs.sweep import format_seeds
from ..runs.unfinished import reasons_in
from ..stats import FEW
from .formats import records
from .mixed import notes_on_origins

if TYPE_CHECKING:
    from pandas import DataFrame


def seeds_text(count: int, left_out: str | None) -> str:
    """Return the number of seeds in a mean, as `3`, or as `2 of 3` if there are others, `left_out`."""
    return f"{count} of {count + len(reasons_in(left_out))}" if left_out else str(count)


def steps_text(steps: Iterable[int | None]) -> str:
    """Return the steps of several trainings as one text, `300 to 900`; "" if there were none."""
    known = sorted({each for each in steps if each})
    return f"{known[0]} to {known[-1]}" if len(known) > 1 else str(known[0]) if known else ""


def seeds_note(name: str, count: int, left_out: str) -> str:
    """Return a note on seeds that a mean does not have: `NAME: 2 of 3 seeds, seed 1 failed: the loss is nan`.

    Args:
        name: the experiment, or the cell of a paper.
        count: number of seeds in the mean.
        left_out: the others, as `unfinished.as_text` writes them.
    """
    seeds: dict[str, list[int]] = {}
    for seed, reason in reasons_in(left_out).items():
        seeds.setdefault(reason, []).append(seed)
    parts = [
        f"seed{'s' * (len(some) > 1)} {format_seeds(some)} {reason[:200]}" for reason, some in seeds.items()
    ]  # of runs that fail alike, one reason
    total = count + sum(map(len, seeds.values()))
    return f"{name}: {count} of {counted(total, 'seed')}, {'; '.join(parts)}"


def notes_on_seeds(lines: DataFrame, name: str = "experiment") -> list[str]:
    """Return a note for each line, named by the column `name`, whose mean does not have all seeds."""
    if "left_out" not in lines:
        return []
    told = lines.loc[lines["left_out"].notna(), [name, "seeds", "left_out"]]
    return list(dict.fromkeys(seeds_note(line[name], line["seeds"], line["left_out"]) for line in records(told)))


def notes_on_experiments(alone: Mapping[Path, str]) -> list[str]:
    """Return a note for each experiment without a line: its folder, and why its seeds have no row."""
    return [seeds_note(str(folder), 0, left_out) for folder, left_out in alone.items()]


def note_on_few(few: Iterable[str], all_of_them: bool) -> list[str]:
    """Return the note on intervals of fewer than `FEW` test episodes, if there are any.

    Args:
        few: names of the measurements with so few episodes.
        all_of_them: whether all measurements are such; then they are not named.
    """
    names = ", ".join(dict.fromkeys(few))
    if not names:
        return []
    which = "" if all_of_them else f" ({names})"
    return [f"fewer than {FEW} test episodes{which}: intervals are rough, and missing where all episodes are equal"]


def notes_on_diverged(lines: DataFrame) -> list[str]:
    """Return a note for each of the lines of `averaged` in which test tasks diverged."""
    if "diverged" not in lines:
        return []
    return [
        f"{line['experiment']}: {line['diverged']} of {line['seeds'] * line['episodes']} {line['split']} tasks "
        "diverged: their outputs are not finite and count as wrong answers"
        for line in records(lines)
        if line["diverged"]
    ]


def notes_on_stops(lines: DataFrame, name: str = "experiment") -> list[str]:
    """Return a note for each line, named by the column `name`, of trainings that ended early."""
    if "stopped_early" not in lines:
        return []
    return [
        f"{line[name]}: {line['stopped_early']} of {counted(line['seeds'], 'training')} ended early, by train.patience"
        for line in records(lines)
        if line["stopped_early"]
    ]


def notes_to_warn_of(lines: DataFrame, name: str = "experiment") -> list[str]:
    """Return the notes that are also printed on standard error: on seeds, and on their origins."""
    return notes_on_seeds(lines, name) + notes_on_origins(lines, name)


def notes_of(lines: DataFrame, name: str = "experiment") -> list[str]:
    """Return all notes on the lines of a table, which are named by the column `name`."""
    few = lines["episodes"].lt(FEW)
    rough = note_on_few(lines.loc[few, name], bool(few.all()))
    return notes_to_warn_of(lines, name) + notes_on_diverged(lines) + notes_on_stops(lines, name) + rough
