"""Mean squared error after 0 to 10 inner steps, K = 5, 10 and 20, as sinusoid.csv and sinusoid.svg beside this file.

metarun train finn2017/sinusoid
for seed in 0 1 2; do for k in 10 20; do
  metarun evaluate runs/finn2017-sinusoid/seed-$seed --shot $k --query $k; done; done
python experiments/results/sinusoid.py runs/finn2017-sinusoid
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

PUBLISHED = {1: 0.67, 5: 0.38, 10: 0.35}  # inner steps -> error at K = 5: Finn et al. 2017, Table 2
STEPS = range(11)


def main(runs: Path) -> None:
    """Read every row below `runs` with its episodes; write the curves."""
    curves: dict[int, list[list[float]]] = defaultdict(list)  # K -> a curve for each seed
    for run in sorted(path for path in runs.iterdir() if re.fullmatch(r"seed-\d+", path.name)):
        own = json.loads((run / "result.json").read_text())
        measured = [(run / "result.json", run / "episodes.csv")]
        measured += [(path, path.with_suffix(".csv")) for path in (run / "evaluations").glob("*.json")]
        for row, episodes in measured:
            told = json.loads(row.read_text())
            same = all(told[name] == own[name] for name in ("split", "inner_steps", "episodes", "checkpoint"))
            if same and told["query"] == told["shot"]:  # `metarun reproduce` tests with fewer inner steps too
                curves[told["shot"]].append(curve(episodes))
    folder = Path(__file__).parent
    with open(folder / "sinusoid.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["points", "inner_steps", "mse_mean", "mse_lowest_seed", "mse_highest_seed", "seeds"])
        for points, each in sorted(curves.items()):
            for step, values in zip(STEPS, zip(*each, strict=True), strict=True):
                spread = [f"{value:.4f}" for value in (fmean(values), min(values), max(values))]
                writer.writerow([points, step, *spread, len(values)])
    plot(curves, folder / "sinusoid.svg")


def curve(episodes: Path) -> list[float]:
    """Return the mean over episodes after each number of inner steps."""
    with open(episodes, newline="") as file:
        rows = list(csv.DictReader(file))
    return [fmean(float(row[f"mse_{step}"]) for row in rows) for step in STEPS]


def plot(curves: dict[int, list[list[float]]], path: Path) -> None:
    """Plot the mean over seeds as a line, lowest to highest seed as a band."""
    matplotlib.rcParams["svg.hashsalt"] = "metarun"  # the same file from the same numbers
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for points, each in sorted(curves.items()):
        columns = list(zip(*each, strict=True))
        mean, low, high = ([take(values) for values in columns] for take in (fmean, min, max))
        (line,) = axes.plot(STEPS, mean, marker="o", markersize=3, label=f"K = {points}")
        axes.fill_between(STEPS, low, high, color=line.get_color(), alpha=0.2)
    axes.plot(list(PUBLISHED), list(PUBLISHED.values()), "kx", label="K = 5, paper's Table 2")
    axes.set(xlabel="inner steps at test", ylabel="mean squared error", yscale="log", title="MAML on sinusoids")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
