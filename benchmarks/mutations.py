"""Mutated specs, tables and cluster files: each is accepted, or refused with clear lines, in a short time.

python benchmarks/mutations.py --count 10000         # counts, the slowest, the first failures; exit code 1 if any
python benchmarks/mutations.py --seed 7 --only 123   # print the files of one case, and what became of it

Each case is a pure function of seed and number. It takes a file that ships, or one of the few below, changes it in one
to four places (keys, types, values, nesting, YAML's syntax, anchors, tags, huge numbers, other alphabets, duplicate
keys, `extends`, bytes), and passes it to the functions behind `metarun validate`, `show`, `submit --dry-run` and
`reproduce --dry-run`, all in this process. A spec that is accepted must also resolve to a spec with the same digest.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mutated_files import Case, case

from metarun.cli.validate import check
from metarun.datasets.errors import KnownError
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import SpecError
from metarun.experiments.jobs.settings import settled
from metarun.experiments.jobs.submit import preview
from metarun.experiments.papers.dry_run import listing
from metarun.experiments.papers.plan import plan_of
from metarun.experiments.runs.sweep import grid

LIMIT = 10.0  # seconds of processor time of a case
FIRST = 5  # failures that are printed
LINES = 7  # of a traceback that are printed
LONGEST = 3000  # characters of a line of a message


def outcome(one: Case, folder: Path) -> str:
    """Pass the files of a case to metarun, and return "accepted", "refused" or what is wrong with the refusal."""
    path = folder / "file.yaml"
    path.write_bytes(one.content)
    for name, text in one.beside.items():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    refused = []
    for use in USES[one.kind]:
        try:
            use(path, one.overrides, folder / "runs")
        except KnownError as error:
            refused += error.problems if isinstance(error, SpecError) else [str(error)]
    for line in refused:
        if not 8 < len(line) <= LONGEST or not line.isprintable() or "Traceback" in line:
            return f"an unclear line: {line[:300]!r}"
    return "refused" if refused else "accepted"


def _validate(path: Path, overrides: tuple[str, ...], out: Path) -> None:
    check(str(path), overrides)


def _show(path: Path, overrides: tuple[str, ...], out: Path) -> None:
    experiment = load(path, overrides).experiment
    resolved = path.with_name("resolved.yaml")
    resolved.write_text(resolved_yaml(experiment), encoding="utf-8")
    again = load(resolved).experiment
    assert again.digest == experiment.digest, "the resolved spec has another digest"


def _submit(path: Path, overrides: tuple[str, ...], out: Path) -> None:
    runs = grid([str(path)], overrides, [], out)
    preview(runs[:100], out, "local", {})
    settled(runs[0].experiment.cluster, {})


def _reproduce(path: Path, overrides: tuple[str, ...], out: Path) -> None:
    for budget in (1.0, 0.01):
        list(listing(plan_of(str(path), out, [], budget), lambda experiment, trained: (1.0, 1.0)))


def _settle(path: Path, overrides: tuple[str, ...], out: Path) -> None:
    os.environ["METARUN_CLUSTER"] = str(path)
    try:
        settled(None, {})
    finally:
        del os.environ["METARUN_CLUSTER"]


USES = {
    "spec": (_validate, _show, _submit),
    "table": (_validate, _reproduce),
    "cluster": (_validate, _settle),
}


def campaign(numbers: range, seed: int, limit: float = LIMIT, report: Callable[[str], object] = print) -> Counter[str]:
    """Try cases, report each failure, and return how many were accepted, refused and failed, by kind."""
    counts = Counter[str]()
    os.environ.pop("METARUN_CLUSTER", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder  # no settings of this user
        for number in numbers:
            one, begin = case(seed, number), time.process_time()
            try:
                word = outcome(one, Path(folder))
            except Exception:
                word = "\n".join(traceback.format_exc().splitlines()[-LINES:])
            took = time.process_time() - begin
            if word in ("accepted", "refused") and took > limit:
                word = f"{took:.1f} s"
            counts[f"{one.kind} {word if word in ('accepted', 'refused') else 'failed'}"] += 1
            counts["milliseconds of the slowest"] = max(counts["milliseconds of the slowest"], round(1000 * took))
            if word not in ("accepted", "refused"):
                report(f"case {number} ({one.kind}): {word}")
    return counts


def main() -> None:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT, help="Seconds of processor time of a case.")
    parser.add_argument("--only", type=int, help="Print this case alone.")
    given = parser.parse_args()
    numbers = range(given.count) if given.only is None else range(given.only, given.only + 1)
    if given.only is not None:
        one = case(given.seed, given.only)
        print(f"{one.kind}, overrides {one.overrides}\n{one.content.decode('utf-8', 'backslashreplace')}")
    failures: list[str] = []

    def report(failure: str) -> None:
        failures.append(failure)
        if len(failures) <= FIRST:
            print(f"{failure}\n", flush=True)

    counts = campaign(numbers, given.seed, given.limit, report)
    for word, number in sorted(counts.items()):
        print(f"{word}: {number}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
