"""Compare metarun with PyTorch and JAX on few-shot learning (W1 to W5, W10 to W12) and RL^2 (W6 to W9).

    pip install -e ".[bench]"
    python benchmarks/compare.py [--works W1 W4] [--rounds 5] [--csv FILE] [--plot FILE] [--tables FILE]

Each round runs every side and variant of a work, one after the other, each in a new process (`side.py`). metarun starts
as `metarun train` starts it. PyTorch is measured twice: as its users start it (STARTED: the C library's allocator as it
is, the loop or the vmap that they write), and as fast as it can be made (TUNED: fused optimizers, an allocator that
keeps its memory, and each memory layout with and without torch.compile). Of each, the fastest variant counts. Inputs
are random images of the right shapes, first weights are the same, and in float64 the results of the first steps agree.
A time is the median over the rounds; smallest and largest round are its spread. `--csv`, written after each work, has
all variants, and keeps those of works that are not measured now. `--tables` writes the tables into a file, between
`<!-- compare -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas
from pandas import DataFrame, Series
from works import WORKS, ImageWork, TrialsWork, Work

from metarun.algorithms.options import MAMLOptions, ReptileOptions
from metarun.experiments.reports.formats import render_cells
from metarun.experiments.system.atomic import write_text_atomic

SIDE = Path(__file__).with_name("side.py")
SLOWER = 1.25  # a variant that takes so many times as long as the fastest of its column has no further rounds
TUNABLES = "mmap_threshold=4294967295 trim_threshold=4294967295 hugetlb=1"  # keep memory, in huge pages
KEEPS_MEMORY = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{each}" for each in TUNABLES.split())}
NEEDS = {("W2", "vmap"): 20}  # GiB
KEY = ["work", "side", "variant"]


class Failed(Exception):
    """Report a side that ended with an error; its last line."""


def variants(work: Work) -> tuple[list[str], list[str]]:
    """Return the variants of PyTorch: as users start it, and tuned."""
    if isinstance(work, TrialsWork):
        forms, layouts = (["by step"] if work.part == "play" else ["by step", "at once"]), [""]
        started = ["by step"]
    elif isinstance(work, ImageWork):
        is_maml, is_reptile = (isinstance(work.algorithm, kind) for kind in (MAMLOptions, ReptileOptions))
        forms, layouts = ["loop", "vmap"] if is_maml or is_reptile else ["plain"], ["", "channels last"]
        started = ["loop"] if is_reptile else forms
    else:
        forms, layouts, started = ["loop", "vmap"], ["", "one thread"], ["loop", "vmap"]
    words = itertools.product(forms, layouts, ["", "compiled"], ["tuned"])
    return started, [", ".join(word for word in each if word) for each in words]


def sides(work: Work) -> list[tuple[str, str]]:
    """Return all sides of a work and their variants, in the order in which they run."""
    started, tuned = variants(work)
    own = ["float32", "bfloat16"] if isinstance(work, ImageWork) else ["float32"]
    others = [] if isinstance(work, ImageWork) else [("jax", "jit")]
    return [("metarun", each) for each in own] + [("pytorch", each) for each in started + tuned] + others


def run(what: str, name: str, side: str, variant: str, given: Path) -> dict[str, Any]:
    """Return what `side.py` prints. Raises Failed with its last line."""
    paths = [str(SIDE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= KEEPS_MEMORY if "tuned" in variant else {}
    command = [sys.executable, str(SIDE), what, name, side, variant, str(given)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def lacks_memory(name: str, variant: str) -> str:
    """Return why a variant does not run: it needs more memory than is free. "" if it has enough."""
    meminfo, needed = Path("/proc/meminfo"), NEEDS.get((name, variant.split(",")[0]), 0)
    if not needed or not meminfo.exists():
        return ""
    free = int(re.search(r"MemAvailable: +(\d+)", meminfo.read_text())[1]) / 2**20
    return f"it needs {needed} GiB, and {free:.0f} are free" if free < needed else ""


def compare(name: str, rounds: int, folder: Path) -> DataFrame:
    """Check a work, run all its sides so many times, and return a line for each process."""
    running, given, lines = sides(WORKS[name]), folder / f"{name}.npz", []

    def leave_out(side: str, variant: str, reason: object) -> None:
        running.remove((side, variant))
        print(f"{name}: {side} ({variant}) is left out: {reason}", flush=True)

    for side, variant in list(running):
        if reason := lacks_memory(name, variant):
            leave_out(side, variant, reason)
    run("check", name, "metarun", "float64", given)
    for peer in dict.fromkeys(side for side, _ in running if side != "metarun"):
        of_peer = "; ".join(variant for side, variant in running if side == peer)
        for variant, reason in run("check", name, peer, of_peer, given).items():
            leave_out(peer, variant, reason)
    run("give", name, "metarun", "float32", given)
    for _ in range(rounds):
        for side, variant in list(running):
            try:
                result = run("time", name, side, variant, given)
            except Failed as failed:
                if side == "metarun":
                    raise
                leave_out(side, variant, failed)
                continue
            lines.append({"work": name, "side": side, "variant": variant, **result})
            print(
                f"{name}: {side} ({variant}) {milliseconds(result['seconds'])} ms a step, {result['faults']:.0f} page "
                f"faults, {result['memory']:.0f} MiB",
                flush=True,
            )
        running = [each for each in running if not is_slow(name, *each, DataFrame(lines))]
    return DataFrame(lines)


def is_slow(name: str, side: str, variant: str, lines: DataFrame) -> bool:
    """Return whether a variant of PyTorch cannot be the fastest of its column."""
    if side != "pytorch":
        return False
    medians = lines[lines["side"] == "pytorch"].groupby("variant")["seconds"].median()
    started = variants(WORKS[name])[0]
    rivals = medians[medians.index.isin(started)] if variant in started else medians
    return medians[variant] > SLOWER * rivals.min()


def summary(lines: DataFrame) -> DataFrame:
    """Return a line for each work, side and variant, and in `shown` the column of the tables where it stands."""
    groups = lines.groupby(KEY, sort=False)
    found = groups["seconds"].agg(rounds="count", seconds="median", smallest="min", largest="max").reset_index()
    medians = groups[[each for each in ("faults", "memory", "operations", "rate") if each in lines]].median()
    found = found.merge(medians.reset_index(), on=KEY)
    own = found[found["variant"] == "float32"].set_index("work")["seconds"]
    found["ratio"] = found["seconds"] / found["work"].map(own)
    found["shown"] = ""
    for name in found["work"].unique():
        theirs = found[(found["work"] == name) & (found["side"] == "pytorch")]
        theirs = theirs[theirs["rounds"] == theirs["rounds"].max()]
        started = theirs[theirs["variant"].isin(variants(WORKS[name])[0])]
        for column, candidates in (("as started", started), ("best", theirs)):
            if len(candidates):
                place = candidates["seconds"].idxmin()
                found.loc[place, "shown"] = f"{found.loc[place, 'shown']}, {column}".lstrip(", ")
    return found


def milliseconds(seconds: float) -> str:
    """Return milliseconds with three digits."""
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def tables(found: DataFrame) -> str:
    """Return the two tables in Markdown: PyTorch as its users start it, and the best of the peers."""
    first, second = [], []
    for name in found["work"].unique():
        of_work, title = found[found["work"] == name], f"{name} {WORKS[name].title}"
        own = of_work[of_work["variant"] == "float32"].iloc[0]
        started, best, jax, half = (
            of_work[mask].iloc[0] if mask.any() else None
            for mask in (
                of_work["shown"].str.contains("as started"),
                of_work["shown"].str.contains("best"),
                of_work["side"] == "jax",
                of_work["variant"] == "bfloat16",
            )
        )
        share = own["operations"] / own["seconds"] / 1e9 / own["rate"]
        first.append(
            {"work": title, "metarun, ms": spread(own), "faults": faults(own)}
            | {"PyTorch as started, ms": spread(started), "variant": variant(started), "faults ": faults(started)}
            | {"ratio": ratio(started), "of the machine": f"{share:.0%}", "bfloat16, ms": spread(half)}
        )
        second.append(
            {"work": title, "metarun, ms": spread(own), "PyTorch's best, ms": spread(best), "variant": variant(best)}
            | {"faults": faults(best), "ratio": ratio(best), "JAX, ms": spread(jax), "ratio ": ratio(jax)}
        )
    right = {"faults", "faults ", "ratio", "ratio ", "of the machine"}
    return "\n\n".join(render_cells(DataFrame(each), "markdown", right) for each in (first, second))


def spread(line: Series | None) -> str:
    """Return the median of the rounds, and their smallest and largest."""
    if line is None:
        return ""
    median, smallest, largest = (milliseconds(line[each]) for each in ("seconds", "smallest", "largest"))
    return f"{median} ({smallest} to {largest})"


def faults(line: Series | None) -> str:
    """Return the page faults of a step."""
    return "" if line is None else f"{line['faults']:,.0f}"


def variant(line: Series | None) -> str:
    """Return the words of a variant; the allocator and the optimizers of tuned ones are told once, above the table."""
    return "" if line is None else line["variant"].removesuffix(", tuned")


def ratio(line: Series | None) -> str:
    """Return how many times as long as metarun a side takes."""
    return "" if line is None else f"{line['ratio']:.2f}"


def plot(found: DataFrame, path: Path) -> None:
    """Plot the step times side by side, with their spread, and the ratios above."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    works = list(found["work"].unique())
    shown = {
        "metarun": found["variant"] == "float32",
        "PyTorch as started": found["shown"].str.contains("as started"),
        "PyTorch's best": found["shown"].str.contains("best"),
        "JAX": found["side"] == "jax",
    }
    figure, axes = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    for place, ((label, mask), color) in enumerate(
        zip(shown.items(), ("#0072b2", "#d55e00", "#e69f00", "#009e73"), strict=True)
    ):
        lines = found[mask]
        x = [works.index(name) + 0.2 * (place - 1.5) for name in lines["work"]]
        errors = [lines["seconds"] - lines["smallest"], lines["largest"] - lines["seconds"]]
        axes.bar(x, lines["seconds"], 0.2, yerr=errors, color=color, label=label, error_kw={"linewidth": 0.8})
        if place:
            for left, top, each in zip(x, lines["largest"], lines["ratio"], strict=True):
                axes.annotate(f"{each:.1f}", (left, top), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(works)), works)
    axes.set_yscale("log")
    axes.set_ylabel("seconds a training step")
    axes.legend(fontsize=8)
    figure.savefig(path)
    pyplot.close(figure)


def insert(text: str, path: Path) -> None:
    """Write the text into a file, between the two marks."""
    before, _, rest = path.read_text().partition("<!-- compare -->\n")
    _, mark, after = rest.partition("<!-- end -->")
    if not mark:
        raise SystemExit(f"{path} has no lines `<!-- compare -->` and `<!-- end -->`")
    write_text_atomic(path, f"{before}<!-- compare -->\n\n{text}\n\n{mark}{after}")


def save(found: DataFrame, options: argparse.Namespace) -> None:
    """Write what the options name."""
    if options.csv:
        digits = dict.fromkeys(("seconds", "smallest", "largest"), 6) | {
            "faults": 1,
            "memory": 0,
            "ratio": 3,
            "rate": 1,
        }
        numbers = found.round(digits)
        write_text_atomic(options.csv, numbers.to_csv(index=False, lineterminator="\n"))
    if options.plot:
        plot(found, options.plot)
    if options.tables:
        insert(tables(found), options.tables)


def with_others(found: DataFrame, options: argparse.Namespace) -> DataFrame:
    """Return the lines with those that `--csv` has of works that are not measured now, in the order of the works."""
    if not options.csv or not options.csv.exists():
        return found
    before = pandas.read_csv(options.csv, keep_default_na=False, na_values={"operations": "", "rate": ""})
    others = before[~before["work"].isin(options.works)]
    order = list(WORKS)
    return pandas.concat([found, others], ignore_index=True).sort_values(
        "work", key=lambda works: works.map(order.index), kind="stable", ignore_index=True
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--tables", type=Path)
    options = parser.parse_args(arguments)
    lines: list[DataFrame] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.works:
            try:
                lines.append(compare(name, options.rounds, Path(folder)))
            except Failed as failed:
                raise SystemExit(f"{name}: {failed}") from None
            found = with_others(summary(pandas.concat(lines, ignore_index=True)), options)
            save(found, options)
    print(tables(found))


if __name__ == "__main__":
    main()
