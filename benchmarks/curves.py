"""Cost curves of second-order MAML: time a task and peak memory over four settings, each point in its own process.

    python benchmarks/curves.py [--csv FILE] [--plot FILE]      (about ten minutes)
    python benchmarks/curves.py --soak 2000                     (memory over many steps)

The point that all curves start from is W1 of `works.py` with 8 tasks: 5-way 1-shot, conv4-64 stride 2, 28x28, one
inner step; over inner steps there are 32 tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas

from metarun.experiments.system.startup import fast_kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels())

CURVES: dict[str, list[int]] = {
    "meta_batch": [1, 2, 4, 8, 16, 32, 64, 128],
    "inner_steps": [1, 2, 5, 10, 20],
    "inner_steps, recomputed": [1, 2, 5, 10, 20],
    "way": [5, 10, 20, 50],
    "image": [28, 42, 56, 84],
}
TASKS = {"inner_steps": 32, "inner_steps, recomputed": 32}  # so many that what is kept outweighs the programs
SHARED = {"meta_batch": 8, "inner_steps": 1, "way": 5, "image": 28, "recompute_inner": None}


def learner_of(point: dict[str, Any]) -> Any:
    """Build metarun's side of a point."""
    from metarun_works import Metarun
    from works import WORKS

    algorithm = {"inner_steps": point["inner_steps"], "recompute_inner": point["recompute_inner"]}
    train = {"way": point["way"], "meta_batch": point["meta_batch"]}
    work = WORKS["W1"]
    return Metarun(
        work._replace(
            algorithm=work.algorithm.model_copy(update=algorithm),
            train=work.train.model_copy(update=train),
            image=(point["image"], point["image"], 1),
        )
    )


def measure(point: dict[str, Any]) -> dict[str, float]:
    """Return the seconds per task, and the peak of resident memory of this process in MiB."""
    from side import measure as measure_steps

    step = learner_of(point).step
    measured = measure_steps(lambda count: [step() for _ in range(count)])
    return {"seconds_a_task": measured["seconds"] / point["meta_batch"], "mebibytes": measured["memory"]}


def soak(steps: int) -> None:
    """Print the resident memory every tenth of the way."""
    step = learner_of(SHARED | {"meta_batch": 4}).step
    for number in range(1, steps + 1):
        step()
        if number % (steps // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"step {number}: {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB resident", flush=True)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the time above and the memory below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = ["meta_batch", "inner_steps", "way", "image"]
    figure, axes = pyplot.subplots(2, 4, figsize=(11, 5), layout="constrained", sharey="row")
    for column, setting in enumerate(settings):
        for curve in CURVES:
            if curve.split(",")[0] != setting:
                continue
            points = [row for row in rows if row["curve"] == curve]
            for line, (value, scale) in enumerate((("seconds_a_task", 1000), ("mebibytes", 1))):
                heights = [scale * row[value] for row in points]
                label = "recomputed" if "," in curve else "all kept"
                axes[line, column].plot([row["value"] for row in points], heights, "o-", label=label)
        axes[1, column].set_xlabel(setting)
    axes[0, 1].legend()
    axes[0, 0].set_ylabel("milliseconds a task")
    axes[1, 0].set_ylabel("peak memory, MiB")
    for each in axes.flat:
        each.set_ylim(bottom=0)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--soak", type=int)
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.soak:
        return soak(options.soak)
    if options.point:
        return print(json.dumps(measure(options.point)))
    rows = []
    for curve, values in CURVES.items():
        setting, recomputed = curve.split(",")[0], "," in curve
        for value in values:
            tasks = {"meta_batch": TASKS.get(curve, SHARED["meta_batch"])}
            point = SHARED | tasks | {setting: value, "recompute_inner": recomputed or None}
            done = subprocess.run(
                [sys.executable, __file__, "--point", json.dumps(point)], capture_output=True, text=True, check=True
            )
            rows.append({"curve": curve, "value": value, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
    if options.csv:
        options.csv.write_text(pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
