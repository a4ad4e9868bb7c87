"""Kill commands at random moments, give them again, and compare all files with those of an undisturbed run.

python benchmarks/kills.py                               # 100 times kill -9 of each work, in an hour or two
python benchmarks/kills.py --kills 5 --works train test  # a few of some
python benchmarks/kills.py --signals KILL TERM INT HUP   # one of these each time

A work is started, killed with all its processes after a random share of the time that it takes undisturbed, and
started again in the same folder, --each times; then it runs to its end. Times, and what is written for people alone
(logs, progress), are not compared. A process that is stopped by another signal than KILL has to end by itself,
with exit code 130. The last line of the output counts kills and differences; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FEW_SHOT = """
name: tiny
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 5, shot: 1, query: 5, steps: 4000, log_every: 100}
validation: {episodes: 50, every: 500}
test: {way: 5, shot: 1, query: 5, episodes: 200}
jit: off
"""
SINES = """
name: tiny
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 4, steps: 2}
validation: {episodes: 20, every: 2}
test: {way: 1, shot: 5, query: 5, episodes: 60000}
jit: off
"""
BANDITS = """
name: tiny
algorithm: {name: ucb1, tuned_on: validation}
dataset: {name: bandits, arms: 5, pulls: 20}
validation: {episodes: 40000}
test: {episodes: 20000, checkpoint: last}
"""
WORKS = {  # name -> spec, command
    "train": (FEW_SHOT, ["train", "tiny.yaml"]),
    "test": (SINES, ["train", "tiny.yaml"]),
    "tune": (BANDITS, ["train", "tiny.yaml"]),
    "submit": (FEW_SHOT, ["submit", "tiny.yaml", "--seeds", "0-2", "--executor", "local", "--max-parallel", "2"]),
}
# a checkpoint, or a part of a test, is written as often as it may be, where users have one every two minutes
COMMAND = [
    sys.executable,
    "-c",
    "from metarun.experiments.runs import checkpoint; from metarun.cli.__main__ import main;"
    "checkpoint.SECONDS_BETWEEN = 0.1; main()",
]
TIMES = {"seconds", "tasks_per_second", "window_seconds", "started", "minutes"}
FOR_PEOPLE = {"job.log", "progress.json", "restarts.json", ".jobs", ".lock", "tensorboard"}
PATIENCE = 300  # seconds for a command that was asked to stop


class Killed(NamedTuple):
    """Hold the outcome of a work that was killed."""

    kills: int
    problems: list[str]


def killed(name: str, kills: int, each: int, signals: Sequence[str], draw: random.Random, scratch: Path) -> Killed:
    """Stop a work at random moments, and compare the files that it leaves in the end.

    Args:
        name: the work.
        kills: number of kills that hit a running process.
        each: kills of one folder, before its work runs to the end.
        signals: names of signals without SIG, one of which is drawn each time.
        draw: the source of random moments.
        scratch: an empty folder.
    """
    started = time.monotonic()
    _finish(name, _folder(name, scratch / "undisturbed"))
    seconds = time.monotonic() - started
    expected = files_of(scratch / "undisturbed/runs")
    hits, rounds, problems, told = 0, 0, [], 0
    while hits < kills:
        rounds += 1
        folder = _folder(name, scratch / f"round-{rounds}")
        for _ in range(min(each, kills - hits)):
            number = signal.Signals[f"SIG{draw.choice(signals)}"]
            hit, problem = _disturb(name, folder, draw.uniform(0, seconds), number)
            hits += hit
            problems += [problem] if problem else []
        if problem := _finish(name, folder):
            problems.append(problem)
        found = files_of(folder / "runs")
        problems += [f"{folder.name}: {path} differs" for path in expected.keys() | found if
                     expected.get(path) != found.get(path)]  # fmt: skip
        print(f"{name}: {hits} of {kills} kills, {len(problems)} problems", *problems[told:], sep="\n", file=sys.stderr)
        told = len(problems)
    return Killed(hits, problems)


def _folder(name: str, folder: Path) -> Path:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(WORKS[name][0])
    return folder


def _start(name: str, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *WORKS[name][1]], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _disturb(name: str, folder: Path, after: float, number: signal.Signals) -> tuple[bool, str]:
    """Start the work and send a signal after some seconds; return whether it came in time, and what went wrong."""
    process = _start(name, folder)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    hit = process.poll() is None
    begun = _notes_signals(process.pid)
    if hit:
        os.killpg(process.pid, number)
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return hit, f"{folder.name}: {number.name} after {after:.2f} s was lost: {process.communicate()[0]}"
    good = (0,) if not hit else (-number,) if number == signal.SIGKILL or not begun else (130,)
    if process.returncode not in good or "Traceback" in printed and begun:
        return hit, f"{folder.name}: {number.name} after {after:.2f} s: exit code {process.returncode}: {printed}"
    return hit, ""


def _notes_signals(process: int) -> bool:
    """Return whether the command has come so far that it handles signals; Python itself does not handle SIGTERM."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return True
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _finish(name: str, folder: Path) -> str:
    """Run the work to its end; return what went wrong."""
    process = _start(name, folder)
    printed, _ = process.communicate()
    return "" if process.returncode == 0 else f"{folder.name}: exit code {process.returncode}: {printed}"


def files_of(folder: Path) -> dict[str, Any]:
    """Return the contents of all files below a folder, by their path in it, without times.

    Of the checkpoints of steps there is the last; when the others are written depends on the time.
    """
    found = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        inside = path.relative_to(folder)
        steps = [int(each.stem.removeprefix("step-")) for each in path.parent.glob("step-*.npz")]
        if not FOR_PEOPLE & {*inside.parts} and not (
            path.stem.startswith("step-") and path.stem != f"step-{max(steps)}"
        ):
            found[str(inside)] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = {name: (file[name].dtype.str, file[name].shape, file[name].tobytes()) for name in file.files}
            return arrays | {"state": _timeless(json.loads(str(file["state"])))}
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    lines = path.read_text().splitlines()
    return [*_rows(lines)] if path.suffix == ".csv" else [] if path.name.startswith("table.") else lines


def _timeless(value: Any) -> Any:
    """Return the content of a JSON file without times."""
    if isinstance(value, list):
        return [_timeless(each) for each in value]
    return {name: each for name, each in value.items() if name not in TIMES} if isinstance(value, dict) else value


def _rows(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cells of a CSV file, without the columns of times."""
    columns = [number for number, name in enumerate(lines[0].split(",")) if name not in TIMES] if lines else []
    for line in lines:
        cells = line.split(",")
        yield [cells[number] for number in columns if number < len(cells)]


def main() -> None:
    """Run the works of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--kills", type=int, default=100, help="of each work; default: 100")
    parser.add_argument("--each", type=int, default=3, help="kills of one folder before its work ends; default: 3")
    parser.add_argument("--signals", nargs="+", choices=("KILL", "TERM", "INT", "HUP", "USR2"), default=["KILL"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    told = parser.parse_args()
    kills, problems = 0, []
    for name in told.works:
        with tempfile.TemporaryDirectory(prefix="metarun-kills-") as scratch:
            draw = random.Random(f"{told.seed} {name}")
            done = killed(name, told.kills, told.each, told.signals, draw, Path(scratch))
        kills, problems = kills + done.kills, problems + [f"{name}: {problem}" for problem in done.problems]
    print("\n".join([*problems, f"{kills} kills, {len(problems)} problems"]))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
