"""The costs of submitting: a run in a job against a plain one, and 1,000 runs planned, submitted, looked at and merged.

python benchmarks/submit.py            # the plan, status and merge of 1,000 runs, local files
python benchmarks/submit.py --slurm    # also on a real Slurm that is started on this machine
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))
import slurm_cluster

from metarun.experiments.config.load import load
from metarun.experiments.jobs.submit import prepare
from metarun.experiments.runs.sweep import grid

SPEC = """
name: tiny
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 4, steps: 400}
validation: {episodes: 20, every: 200}
test: {way: 1, shot: 5, query: 5, episodes: 30}
jit: off
"""
RATES = ",".join(str(number / 1000) for number in range(1, 41))
SWEEP = ["submit", "tiny.yaml", "-s", f"algorithm.inner_lr={RATES}", "--seeds", "0-24"]  # 40 x 25 runs


def metarun(folder: Path, *arguments: str) -> float:
    """Run a command and return its seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "metarun.cli.main", *arguments]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - started


def finish(folder: Path) -> None:
    """Give every run the row of the one that was trained, with its own name and seed, and 30 test episodes."""
    trained = folder / "plain/tiny/seed-0"
    row = json.loads((trained / "result.json").read_text())
    episodes = (trained / "episodes.csv").read_text()
    for spec in (folder / "runs").glob("*/*/spec.yaml"):
        told = {"experiment": spec.parent.parent.name, "seed": int(spec.parent.name.partition("-")[2])}
        row |= told | {"spec_digest": load(spec).experiment.digest}
        (spec.parent / "episodes.csv").write_text(episodes)
        (spec.parent / "result.json").write_text(json.dumps(row))


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slurm", action="store_true")
    on_slurm = parser.parse_args().slurm
    with tempfile.TemporaryDirectory() as name, slurm_cluster.cluster() if on_slurm else nullcontext() as configuration:
        folder = Path(name)
        (folder / "tiny.yaml").write_text(SPEC)
        print(f"a plain run: {metarun(folder, 'train', 'tiny.yaml', '--out', 'plain'):.1f} s")
        print(f"plan of 1,000 runs: {metarun(folder, *SWEEP, '--dry-run'):.1f} s")
        if on_slurm:
            os.environ["SLURM_CONF"] = str(configuration)
            _on_slurm(folder)
        else:
            _prepare(folder)
        print(f"status of 1,000 runs that are to do: {metarun(folder, 'status', 'runs'):.1f} s")
        finish(folder)
        print(f"status of 1,000 finished runs: {metarun(folder, 'status', 'runs'):.1f} s")
        print(f"merge of 1,000 runs and their table: {metarun(folder, *SWEEP, '--executor', 'local'):.1f} s")


def _prepare(folder: Path) -> None:
    """Write the folders of the runs, without a scheduler."""
    runs = grid([str(folder / "tiny.yaml")], [SWEEP[3]], range(25), folder / "runs")
    started = time.perf_counter()
    prepare(runs)
    print(f"folders of 1,000 runs: {time.perf_counter() - started:.1f} s")


def _on_slurm(folder: Path) -> None:
    started = time.perf_counter()
    metarun(folder, "submit", "tiny.yaml", "--out", "submitted")
    while not (folder / "submitted/tiny/seed-0/result.json").exists():
        time.sleep(0.05)
    print(f"a submitted run, from the command to its result: {time.perf_counter() - started:.1f} s")
    print(f"submit 1,000 runs: {metarun(folder, *SWEEP):.1f} s")
    print(f"status of 1,000 runs in the queue: {metarun(folder, 'status', 'runs'):.1f} s")
    print(f"cancel 1,000 runs: {metarun(folder, 'cancel', 'runs'):.1f} s")
    while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
