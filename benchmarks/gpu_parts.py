"""The parts of gpu.py that compute, each in a process of its own: python gpu_parts.py PART OPTIONS.

Options are JSON. Each part prints lines of JSON as soon as it knows them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metarun.experiments.system import gpus, provenance
from metarun.experiments.system.startup import fast_kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels() | gpus.settings())

import numpy as np
import tensorflow as tf

from metarun.algorithms.build import build as build_learner
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.config.load import load
from metarun.experiments.model import Model, build, deterministic, input_dtype, setup_of
from metarun.experiments.training.memory import most_bytes
from metarun.experiments.training.steps import TrainingSteps

Line = dict[str, Any]
EXACT = ["optimizer={name: sgd, learning_rate: 1.0}", "jit=on"]  # weights before a step, less those after: the gradient
IMAGES = [*EXACT, "train.way=5", "train.query=3", "test.way=5", "test.query=3"]
POOLED = "network={name: conv4, filters: FILTERS}"
STRIDED = "network={name: conv4, filters: FILTERS, downsample: stride}"
SPECS = {
    "maml": ("quickstart/maml", [*IMAGES, "train.meta_batch=4", "algorithm.inner_lr=0.1", STRIDED]),
    "maml, max-pooling": ("quickstart/maml", [*IMAGES, "train.meta_batch=4", "algorithm.inner_lr=0.1", POOLED]),
    "protonet": ("quickstart/protonet", [*IMAGES, POOLED]),
    "matchingnet": ("quickstart/matchingnet", [*IMAGES, POOLED, "algorithm.full_context_embeddings=true"]),
    "reptile": ("quickstart/reptile", [*EXACT, "train.meta_batch=2", STRIDED]),
    "rl2": (
        "duan2016/bandits-rl2",
        ["optimizer={name: sgd, learning_rate: 0.01}", "jit=on", "train.meta_batch=64", "algorithm.minibatch=32",
         "network.units=32"],
    ),
}  # fmt: skip


def stand_in() -> None:
    """Let metarun build what it builds for a GPU: whole steps that XLA compiles, here for the CPU."""
    devices = tf.config.list_physical_devices
    tf.config.list_physical_devices = lambda kind=None: devices("CPU" if kind == "GPU" else kind)


def experiment_of(name: str, precision: str, filters: int, *overrides: str) -> Experiment:
    """Load the spec of an algorithm."""
    spec, changes = SPECS[name]
    last = {each.partition("=")[0]: each for each in (*changes, *overrides, f"precision={precision}")}
    return load(spec, [each.replace("FILTERS", str(filters)) for each in last.values()]).experiment


def model_of(name: str, precision: str, filters: int, *overrides: str) -> Model:
    """Build the model of an algorithm on random images, which have no equal pixels; of rl2, on bandits."""
    experiment = experiment_of(name, precision, filters, *overrides)
    if experiment.kind.plays_trials:
        return build(experiment, 0)
    deterministic(0, tf32=precision == "tf32")
    pixels = np.random.default_rng(0).integers(0, 256, (60 * 20, 28, 28, 1), dtype=np.uint8)
    pool = ClassPool(pixels, np.full(60, 20), tuple(map(str, range(60))))
    source = ImageSource("random", {"train": pool}, dtype=input_dtype(experiment))
    return Model(experiment, 0, source, build_learner(setup_of(experiment, 0), source))


def machine() -> Iterator[Line]:
    """Yield what there is, and what is set."""
    told, card = provenance.describe(), gpus.memory()
    devices = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(devices[0]) if devices else {}
    yield {
        "gpus": len(devices),
        "device": told["device"],
        "compute_capability": ".".join(map(str, details.get("compute_capability", ()))),
        "memory": f"{card.free / 2**30:.1f} of {card.total / 2**30:.1f} GiB free" if card else "",
        "beside": gpus.occupants(),
        "processor": told["processor"],
        "cores": told["cores"],
        "tensorflow": told["packages"]["tensorflow"],
        "cuda": " ".join(f"{key} {value}" for key, value in told["cuda"].items()),
        "commit": told["git_commit"],
        "unused": gpus.unused() or "",
    }


def gradients(
    names: list[str], draws: int, filters: int, out: str, precisions: Sequence[str] = ("float64", "float32")
) -> Iterator[Line]:
    """Write the gradient of each algorithm for several draws of weights and tasks, in each precision."""
    found = {}
    for name in names:
        for precision in precisions:
            if name == "rl2" and precision == "bfloat16":
                continue
            model = model_of(name, precision, filters)
            steps, first = TrainingSteps(model), [value.numpy() for value in model.learner.variables]
            parameters = model.learner.parameters
            for draw in range(draws):
                noise = np.random.default_rng(draw)
                for variable, value in zip(model.learner.variables, first, strict=True):
                    variable.assign(value)
                for key, variable in parameters.items():  # of numbers that are the same in both precisions
                    drawn = 0.1 * noise.standard_normal(variable.shape) + key.endswith(("scale", "length"))
                    variable.assign(drawn.astype(np.float32))
                before = {key: variable.numpy() for key, variable in parameters.items()}
                steps.take(1)
                for key, variable in parameters.items():
                    found[f"{name}|{precision}|{draw}|{key}"] = before[key] - variable.numpy()
        yield {"algorithm": name}
    np.savez(out, **found)


def kernels(names: list[str], filters: int) -> Iterator[Line]:
    """Yield where the time of a training step goes: the kernels of each device with the largest shares."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for name in names:
        steps = TrainingSteps(model_of(name, "float32", filters))
        steps.take(2)
        with tempfile.TemporaryDirectory() as folder:
            with tf.profiler.experimental.Profile(folder):
                steps.take(4)
            (file,) = Path(folder).rglob("*.xplane.pb")
            planes = xplane_pb2.XSpace.FromString(file.read_bytes()).planes
        for plane in planes:
            if not plane.name.startswith(("/device:GPU", "/host:CPU")):
                continue
            times: Counter[str] = Counter()
            for line in plane.lines:
                if plane.name.startswith("/host") or line.name.startswith("Stream"):
                    add_own_times(line.events, plane.event_metadata, times)
            total = sum(times.values())
            if total:
                largest = {kernel[:70]: round(time / total, 3) for kernel, time in times.most_common(6)}
                yield {"algorithm": name, "plane": plane.name, "ms": total / 4e9, "kernels": largest}


def add_own_times(events: Any, names: Any, times: Counter[str]) -> None:
    """Add the picoseconds of each event, without those of the events inside it, to `times`, by name."""
    open_events: list[tuple[int, str]] = []  # end and name
    for event in sorted(events, key=lambda each: (each.offset_ps, -each.duration_ps)):
        while open_events and open_events[-1][0] <= event.offset_ps:
            open_events.pop()
        if open_events:
            times[open_events[-1][1]] -= event.duration_ps
        name = names[event.metadata_id].name
        times[name] += event.duration_ps
        open_events.append((event.offset_ps + event.duration_ps, name))


def rates(sizes: list[int], filters: int) -> Iterator[Line]:
    """Yield the tasks per second of MAML with meta-batches of several sizes, and the memory."""
    for size in sizes:
        model = model_of("maml", "float32", filters, f"train.meta_batch={size}")
        steps = TrainingSteps(model)
        estimate = most_bytes(steps.traced_update())
        steps.take(1)
        times: list[float] = []
        while len(times) < 3 or sum(times) < 1 and len(times) < 100:
            started = time.perf_counter()
            steps.take(4)
            times.append(time.perf_counter() - started)
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else 0
        yield {"tasks": size, "rate": 4 * size / float(np.median(times)), "estimate": estimate, "peak": peak}


PARTS = {each.__name__: each for each in (machine, gradients, kernels, rates)}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    if given.pop("stand_in", False):
        stand_in()
    for line in PARTS[sys.argv[1]](**given):
        print(json.dumps(line), flush=True)
