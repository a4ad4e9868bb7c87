"""Find the runs that have no row, and say why: a mean over the other seeds must not look like one over all.

What is left out of a mean is one text, `seed 1 failed: the loss is nan; seed 4 not finished`. It stands in results.csv
beside each row of the other seeds. No TensorFlow.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config.load import load
from ..errors import SpecError
from .directory import RunDirectory, runs_below, unreadable

Rows = Mapping[Path, tuple[int, str]]  # the file of each row -> its seed and the digest of its spec


class LeftOut(NamedTuple):
    """Hold the runs that means do not have."""

    beside: dict[Path, str]  # the file of each row -> the other seeds that have no row of this test, and why
    alone: dict[Path, str]  # the folder of each experiment without a row -> its seeds, and why


def run_of(row: Path) -> RunDirectory:
    """Return the folder of the run that a row, result.json or a file in evaluations/, belongs to."""
    return RunDirectory(row.parent if row.name == "result.json" else row.parent.parent)


def reason_of(run: RunDirectory) -> str | None:
    """Return why a run has no row, such as `failed: the loss is nan`; None if it has one."""
    if why := unreadable(run.path):
        return f"not readable: {why}"
    try:
        return None if run.finished else _failure(run) or "not finished"
    except OSError as error:
        return f"not readable: {error.strerror}"


def reason_untested(run: RunDirectory) -> str:
    """Return why a finished run has no row of a further test."""
    try:
        return _failure(run) or "not tested so"
    except OSError as error:
        return f"not readable: {error.strerror}"


def _failure(run: RunDirectory) -> str | None:
    if not run.failure.is_file():
        return None
    return f"failed: {' '.join(run.failure.read_text(encoding='utf-8', errors='replace').split())}"


def unfinished(folders: Sequence[Path]) -> dict[Path, str]:
    """Return why each run below the folders that has no row has none, by the folder of the run.

    Runs of a search by validation, whose tests are withheld, are left out.
    """
    reasons = {run.path: reason_of(run) for run in runs_below(folders) if not _withheld(run)}
    return {path: reason for path, reason in reasons.items() if reason}


def left_out(rows: Rows, folders: Sequence[Path]) -> LeftOut:
    """Return which runs below the folders have no row.

    The runs of one experiment are those beside each other, `seed-0`, `seed-1` and so on, whose specs are equal. Those
    of a search by validation, whose tests are withheld, are none of them.

    Args:
        rows: the rows below the folders that can be read, by their files.
        folders: where the runs are.
    """
    experiments: defaultdict[Path, dict[int, RunDirectory]] = defaultdict(dict)
    for run in runs_below(folders):
        if not _withheld(run):
            experiments[run.path.parent][_seed(run)] = run
    tests: defaultdict[tuple[Path, Path, str], list[Path]] = defaultdict(list)  # the seeds of one test
    for path, (_, digest) in rows.items():
        run = run_of(path)
        tests[run.path.parent, path.relative_to(run.path), digest].append(path)
    beside, counted = {}, set()
    for (folder, _, digest), paths in tests.items():
        seeds = {rows[path][0] for path in paths}
        reasons = {}
        for seed, run in experiments[folder].items():
            if seed not in seeds and _has_spec(run, rows, digest, run_of(paths[0])):
                reasons[seed] = _why_absent(run, rows)
                counted.add(run.path)
        beside |= dict.fromkeys(paths, as_text(reasons))
    alone = {}
    for folder, runs in experiments.items():
        others = {seed: run for seed, run in runs.items() if run.path not in counted and run.result not in rows}
        if others:
            alone[folder] = as_text({seed: _why_absent(run, rows) for seed, run in others.items()})
    return LeftOut(beside, alone)


def as_text(reasons: Mapping[int, str]) -> str:
    """Return seeds and why they are left out as one text, see `reasons_in`; "" for none."""
    return "; ".join(f"seed {seed} {reasons[seed].replace('; ', ', ')}" for seed in sorted(reasons))


def reasons_in(text: str) -> dict[int, str]:
    """Return the seeds in a text of `as_text`, and why they are left out."""
    found = [re.fullmatch(r"seed (\d+) (.*)", part) for part in re.split(r"; (?=seed \d+ )", text)]
    return {int(match[1]): match[2] for match in found if match}


def _withheld(run: RunDirectory) -> bool:
    """Return whether a search by validation has the run, and withholds its test."""
    return run.until is not None and not run.finished


def _seed(run: RunDirectory) -> int:
    return int(run.path.name.removeprefix("seed-"))


def _why_absent(run: RunDirectory, rows: Rows) -> str:
    """Return why a run has no row of a test: no row at all, or one of other tests only."""
    if run.result in rows:
        return reason_untested(run)
    if reason := reason_of(run):
        return reason
    try:
        run.result.open("rb").close()
    except OSError as error:
        return f"not readable: {error.strerror}"
    return "with a result.json that is damaged"


def _has_spec(run: RunDirectory, rows: Rows, digest: str, other: RunDirectory) -> bool:
    """Return whether a run has the spec with this digest, which `other` has; True if its spec cannot be read."""
    if run.result in rows:
        return rows[run.result][1] == digest
    try:
        if _without_seeds(run) == _without_seeds(other):
            return True
        return load(run.spec).experiment.digest == digest
    except (OSError, SpecError):
        return True


def _without_seeds(run: RunDirectory) -> str:
    """Return the text of spec.yaml without its seeds, which differ between the runs of one spec."""
    return re.sub(r"^seeds:\n(- .*\n)*", "", run.spec.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)
