"""Compare metarun with PyTorch on five works of few-shot learning and four of RL^2.

    pip install -e ".[bench]"
    python benchmarks/compare.py [--works W1 W4] [--rounds 5] [--csv FILE] [--plot FILE]

Each round runs metarun for about a second, then each variant of the peer, one after another, each in a process of its
own: some hold many gigabytes. Inputs are random images of the right shapes, first weights are the same, and the losses
of the first step must agree; of RL^2, whose trials are random on both sides, the networks' outputs and gradients. The
peer of a work is its fastest variant; the ratio is that of the median step times. Both sides use all cores that the
process may use.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from metarun.experiments.system.startup import fast_kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels())

import numpy as np
import tensorflow as tf
from works import WORKS, Metarun, TrialsWork, Work, side

from metarun.algorithms.options import MAMLOptions, OptimizerOptions, PrototypicalNetworkOptions, ReptileOptions
from metarun.experiments.system.processors import cores
from metarun.experiments.training.benchmark import matrix_rate

SECONDS_A_TURN = 1.0
AGREE = 1e-6  # relative difference of the losses in float64
AGREE_ADAM = 1e-3  # PyTorch adds Adam's epsilon after the bias correction, the papers' code before it

VARIANTS = {"maml": ("loop", "vmap"), "reptile": ("loop", "fused Adam")}  # of the peer; one of all other algorithms


def peers(work: Work | TrialsWork) -> list[str]:
    """Return the names of the variants of the peer."""
    if isinstance(work, TrialsWork):
        return ["plain"]
    names = VARIANTS.get(work.algorithm.name, ("",))
    return [f"{name} {layout}".strip() or "plain" for layout in ("", "channels_last") for name in names]


def peer_step(work: Work | TrialsWork, metarun: Any, variant: str) -> Callable[[], float]:
    """Return the step of a variant of the peer."""
    import torch

    torch.set_num_threads(cores())
    if isinstance(work, Work):
        return peer_step_of_images(work, metarun, variant)
    import pytorch_rl2

    return pytorch_rl2.PyTorch(work).step


def peer_step_of_images(work: Work, metarun: Metarun, variant: str) -> Callable[[], float]:
    """Return the step of a variant of the peer, on the batch and from the first weights of `metarun`."""
    import pytorch_works as peer
    import torch

    stride = work.network.downsample == "stride"
    side = {(28, True): 2, (28, False): 1, (84, False): 5}[work.image[0], stride]
    space = side if work.network.features == "flatten" else 1

    def network(p: peer.Parameters, x: torch.Tensor) -> torch.Tensor:
        return peer.conv4(p, x, stride=stride, features=work.network.features)

    batch = tuple(
        torch.from_numpy(part.numpy()).long()
        if part.shape.rank == 2
        else peer.images(part.numpy(), stride, variant.endswith("channels_last"))
        for part in metarun.batch[:4]
    )
    p = peer.from_metarun(metarun.parameters, stride, space)
    rate = work.optimizer.learning_rate
    outer = (torch.optim.SGD if work.optimizer.name == "sgd" else torch.optim.Adam)(p.values(), rate)
    if isinstance(work.algorithm, MAMLOptions):
        make = peer.maml_vmap_step if variant.startswith("vmap") else peer.maml_step
        return make(p, batch, network, outer, lr=work.algorithm.inner_lr, steps=work.algorithm.inner_steps)
    if isinstance(work.algorithm, ReptileOptions):
        orders = metarun.learner._order(metarun.batch, work.algorithm.inner_steps, work.algorithm.inner_batch)
        fused = variant.startswith("fused")
        return peer.reptile_step(p, batch, network, orders.numpy(), lr=work.algorithm.inner_lr, fused=fused)
    if isinstance(work.algorithm, PrototypicalNetworkOptions):
        return peer.protonet_step(p, batch, network, outer)
    return peer.matching_step(p, batch, network, outer, temperature=work.algorithm.temperature, steps=5)


def turn(step: Callable[[], float]) -> list[float]:
    """Step times of about `SECONDS_A_TURN`, at least two steps."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < SECONDS_A_TURN:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def check(name: str) -> None:
    """Raise SystemExit unless every variant of the peer does what metarun does, on two tasks of few small images."""
    work = WORKS[name]
    if isinstance(work, TrialsWork):
        import pytorch_rl2

        return pytorch_rl2.check()
    work = work._replace(optimizer=OptimizerOptions(name="sgd", learning_rate=1.0))
    small = {"meta_batch": min(work.train.meta_batch, 2), "query": min(work.train.query, 3)}
    work = work._replace(train=work.train.model_copy(update=small), image=(28, 28, work.image[2]))
    ours = Metarun(work, "float64")
    losses = [ours.step(), ours.step()]
    for variant in peers(work):
        step = peer_step(work, ours, variant)
        others = [step(), step()]
        agree = AGREE_ADAM if isinstance(work.algorithm, ReptileOptions) else AGREE
        if not np.allclose(others, losses, rtol=agree, atol=0):
            raise SystemExit(f"{name}: losses {losses} in metarun, {others} in PyTorch ({variant}): not the same work")


def measure(name: str, variant: str) -> tuple[list[float], int, float]:
    """Return step times of a variant after its first step, the operations of a step and the machine's rate."""
    work, rate = WORKS[name], matrix_rate(tf.float32)
    ours = side(work, "bfloat16" if variant == "bfloat16" else "float32")
    step = ours.step if variant in ("metarun", "bfloat16") else peer_step(work, ours, variant)
    step()
    return turn(step), ours.operations, rate


def alone(function: Callable[..., Any], *arguments: str) -> Any:
    """Return what the function returns in a process of its own, whose memory is free afterwards."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def compare(name: str, rounds: int) -> dict[str, Any]:
    """Return one line of the table."""
    work = WORKS[name]
    ours, others = ["metarun", "bfloat16"] if isinstance(work, Work) else ["metarun"], peers(work)
    times: dict[str, list[float]] = {variant: [] for variant in ours + others}
    rates = []
    for _ in range(rounds):
        for variant in times:
            steps, operations, rate = alone(measure, name, variant)
            times[variant] += steps
            rates.append(rate)
        shortest = {variant: min(times[variant]) for variant in others if variant in times}
        for variant, seconds in shortest.items():
            if seconds > 2 * min(shortest.values()):  # it cannot be the best
                del times[variant]
    medians = {variant: statistics.median(each) for variant, each in times.items()}
    mine, half = medians.pop("metarun"), medians.pop("bfloat16", None)
    best = min(medians, key=medians.__getitem__)
    low, _, high = statistics.quantiles(times["metarun"], n=4)
    rate = statistics.median(rates)
    return {
        "work": name,
        "title": work.title,
        "metarun": mine,
        "metarun_low": low,
        "metarun_high": high,
        "pytorch": medians[best],
        "variant": best,
        "ratio": medians[best] / mine,
        "gflops": operations / mine / 1e9,
        "matrix_gflops": rate,
        "fraction": operations / mine / 1e9 / rate,
        "metarun_bfloat16": half,
    }


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Step times side by side, the ratio above."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for offset, whose, color in ((-0.2, "metarun", "#0072b2"), (0.2, "pytorch", "#d55e00")):
        axes.bar([n + offset for n in range(len(rows))], [row[whose] for row in rows], 0.4, color=color, label=whose)
    for number, row in enumerate(rows):
        axes.annotate(f"{row['ratio']:.1f}x", (number, max(row["metarun"], row["pytorch"])), ha="center", va="bottom")
    axes.set_xticks(range(len(rows)), [row["work"] for row in rows])
    axes.set_yscale("log")
    axes.set_ylabel("seconds a training step")
    axes.legend()
    figure.savefig(path)


def save(rows: list[dict[str, Any]], options: argparse.Namespace, plot: Callable[..., None]) -> None:
    """Write the rows as a CSV and a plot, where the options say so."""
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if options.plot:
        plot(rows, options.plot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.works:
        alone(check, name)
        rows.append(compare(name, options.rounds))
        row = rows[-1]
        print(
            f"{name}  metarun {row['metarun']:.4f} s  pytorch {row['pytorch']:.4f} s ({row['variant']})  "
            f"{row['ratio']:.2f}x  {row['gflops']:.0f} GFLOP/s = {row['fraction']:.0%} of {row['matrix_gflops']:.0f}"
            + (f"  bfloat16 {row['metarun_bfloat16']:.4f} s" if row["metarun_bfloat16"] else ""),
            flush=True,
        )
    save(rows, options, plot)


if __name__ == "__main__":
    main()
