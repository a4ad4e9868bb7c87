"""Check and measure metarun on a machine with a GPU, in at most five minutes; on a CPU small, as far as that goes.

    pip install -e ".[gpu]"                   # and torch, for the section works
    python benchmarks/gpu.py                  # everything
    python benchmarks/gpu.py --only gradients repeat
    python benchmarks/gpu.py --only works --minutes 30   # all works: five minutes are enough for a few

machine    versions, memory, what else is on the GPU
gradients  meta-gradients of the GPU against those of the CPU: float64, and float32 over several draws
repeat     two runs are equal bit for bit, and so is one that is killed (kill -9) and resumed
workers    two workers train what one trains
rates      tasks per second of MAML with meta-batches of 1 to 1024, and its memory beside the estimate
kernels    where the time of a step goes, kernel by kernel
sharing    the time of two runs that share the GPU
works      the works of compare.py beside PyTorch on the same GPU: eager, torch.compile, CUDA graphs

Sections run in this order, each in processes of its own, until the time is over; the first ones, where nothing is
timed, at the same time on a GPU. What is left out is told, with the
reason. Without a GPU the programs that a GPU would get are compiled for the CPU. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kills
from gpu_report import Check, Failed

HERE = Path(__file__).resolve().parent
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compile quickly: a CPU's times mean nothing here
ALGORITHMS = ["maml", "maml, max-pooling", "protonet", "matchingnet", "reptile", "rl2"]
EXACT, CLOSE = 1e-9, 1e-5  # relative differences of gradients: of float64; of float32 that count as none
WORSE = 4.0  # times as far from float64 as the CPU's float32 a GPU's may be
FORMS = {"W1": "vmap", "W2": "vmap", "W3": "plain", "W4": "loop", "W5": "plain", "W10": "vmap"}  # others: "by step"
MODES = {"eager": "", "torch.compile": "default", "CUDA graphs": "reduce-overhead"}
PYTORCH = """
import functools, runpy, sys, torch
mode, *sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
if torch.cuda.is_available():  # tensors of NumPy's arrays too
    torch.set_default_device("cuda")
    torch.from_numpy = lambda array, plain=torch.from_numpy: plain(array).cuda()
torch.backends.cudnn.allow_tf32 = False  # float32, as in metarun
if mode:
    torch.compile = functools.partial(torch.compile, mode=mode)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
METARUN = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
from metarun.experiments.system.startup import import_tensorflow
import_tensorflow(needs_gpu=None)
from metarun.experiments.model import deterministic
deterministic(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RUNS = {
    "maml": "{name: maml, inner_lr: 0.5}\nnetwork: {name: conv4, filters: FILTERS, downsample: stride}",
    "protonet": "{name: protonet}\nnetwork: {name: conv4, filters: FILTERS}",
}
SPEC = """
name: tiny
algorithm: ALGORITHM
dataset: {name: glyphs}
protocol: transductive
train: {way: 5, shot: 1, query: 3, meta_batch: TASKS, steps: STEPS, log_every: 10}
validation: {episodes: 20, every: STEPS}
test: {way: 5, shot: 1, query: 3, episodes: 20}
precision: PRECISION
jit: on
"""


def part(name: str, **options: Any) -> list[object]:
    """Return the command of a part of gpu_parts.py."""
    return [HERE / "gpu_parts.py", name, json.dumps(options)]


def lines(printed: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that a part printed."""
    return [json.loads(line) for line in printed.splitlines()]


def machine(check: Check) -> None:
    """Print what the machine has."""
    (found,) = lines(check.run(part("machine")))
    check.gpus = found["gpus"]
    for key, value in found.items():
        if value != "":
            check.say(f"{key:<20}{value}")
    check.check("the GPU is used", not found["unused"], found["unused"])
    if not check.gpus:
        check.left_out("everything that needs a GPU", "TensorFlow lists none")


def gradients(check: Check) -> None:
    """Compare gradients of the GPU, or of the programs that it would get, with those of the CPU."""
    names = ["maml", "protonet"] if check.small else ALGORITHMS
    draws, filters = (2, 4) if check.small else (5, 32)
    further = ["tf32", "bfloat16"] if check.gpus else ["bfloat16"]
    environment = QUICK if not check.gpus else {}
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{side}.npz" for side in ("reference", "own")]
        given = {"names": names, "draws": draws, "filters": filters}
        own = given | {"stand_in": not check.gpus, "precisions": ["float64", "float32", *further]}
        check.all(
            [
                (part("gradients", out=files[0], **given), environment | HIDDEN, None),
                (part("gradients", out=files[1], **own), environment, None),
            ]
        )
        reference, own = (dict(np.load(file)) for file in files)
    for name in names:
        exact = [difference(own, reference, name, draw, "float64") for draw in range(draws)]
        check.check(f"{name}: float64 equals the CPU's within {EXACT:g}", max(exact) < EXACT, f"{max(exact):.1e}")
        single, cpus = (median_difference(side, reference, name, draws, "float32") for side in (own, reference))
        check.check(
            f"{name}: float32 is no further from float64 than {WORSE:g} times the CPU's",
            single <= max(WORSE * cpus, CLOSE),
            f"{single:.1e} and {cpus:.1e}, medians of {draws} draws",
        )
        for precision in further:
            if any(key.startswith(f"{name}|{precision}|") for key in own):
                far = median_difference(own, reference, name, draws, precision)
                check.say(f"       {name}: {precision} is {far:.1e} from float64")


def median_difference(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], name: str, draws: int, precision: str
) -> float:
    """Return the median of `difference` over the draws."""
    return statistics.median(difference(one, other, name, draw, precision) for draw in range(draws))


def difference(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], name: str, draw: int, precision: str
) -> float:
    """Return the relative difference of a gradient, all parameters together, to that of `other` in float64."""
    ends = [key.partition(f"|float64|{draw}|")[2] for key in other if key.startswith(f"{name}|float64|{draw}|")]
    vectors = [
        np.concatenate([side[f"{name}|{kind}|{draw}|{end}"].ravel().astype(np.float64) for end in ends])
        for side, kind in ((one, precision), (other, "float64"))
    ]
    return float(np.linalg.norm(vectors[0] - vectors[1]) / np.linalg.norm(vectors[1]))


def spec(algorithm: str, small: bool, **changes: object) -> str:
    """Return the text of a spec for a short run."""
    values = {"FILTERS": 4, "TASKS": 2, "STEPS": 30} if small else {"FILTERS": 32, "TASKS": 8, "STEPS": 200}
    text = SPEC.replace("ALGORITHM", RUNS[algorithm])
    for key, value in ({"PRECISION": "float32"} | values | changes).items():
        text = text.replace(key, str(value))
    return text


def repeat(check: Check) -> None:
    """Train twice, and once with a kill, and compare all files."""
    environment = QUICK if not check.gpus else {}
    for algorithm in ["protonet"] if check.small else RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            folders = [Path(scratch) / name for name in ("first", "second", "killed")]
            for folder in folders:
                folder.mkdir()
                (folder / "tiny.yaml").write_text(spec(algorithm, check.small))
            train = [*kills.COMMAND[1:], "train", "tiny.yaml"]
            check.all([(train, environment, folder) for folder in folders[:2]])
            hit = kill(check, train, environment, folders[2])
            check.run(train, environment, folders[2])
            first, second, killed = (kills.files_of(folder / "runs") for folder in folders)
        check.check(f"{algorithm}: two runs are equal, bit for bit", first == second, unequal(first, second))
        if hit:
            check.check(f"{algorithm}: killed and resumed, it is equal", first == killed, unequal(first, killed))
        else:
            check.left_out(f"{algorithm}: a run that is killed", "it ended before")


def kill(check: Check, train: list[str], environment: Mapping[str, str], folder: Path) -> bool:
    """Start a run and kill it after its first checkpoint; return whether it was still at work."""
    process = check.start(train, environment, folder)
    while process.poll() is None and check.seconds() and not list(folder.rglob("step-*.npz")):
        time.sleep(0.02)
    hit = process.poll() is None
    if hit:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return hit


def unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the names of files that differ."""
    return ", ".join(sorted(key for key in one.keys() | other if one.get(key) != other.get(key)))


def rates(check: Check) -> None:
    """Print tasks per second over the size of the meta-batch."""
    groups, filters = ([[1, 2]], 4) if check.small else ([[1, 4, 16, 64], [256], [1024]], 64)
    for sizes in groups:
        for one in lines(check.run(part("rates", sizes=sizes, filters=filters), {} if check.gpus else QUICK)):
            memory = f"{one['peak'] / 2**20:.0f} MiB of memory, " if one["peak"] else ""
            estimate = f"estimate {one['estimate'] / 2**20:.0f} MiB"
            check.say(f"{one['tasks']:>5} tasks: {one['rate']:9.1f} tasks/s; {memory}{estimate}")


def kernels(check: Check) -> None:
    """Print where the time of a step goes."""
    names, filters = (["protonet"], 4) if check.small else (["maml", "protonet", "rl2"], 64)
    command = part("kernels", names=names, filters=filters, stand_in=not check.gpus)
    found = lines(check.run(command, {} if check.gpus else QUICK))
    for one in found:
        check.say(f"{one['algorithm']}, {one['plane']}: {one['ms']:.2f} ms of a step")
        for kernel, share in one["kernels"].items():
            check.say(f"    {share:6.1%}  {kernel}")
    if check.gpus:
        check.check("steps run on the GPU", any("GPU" in one["plane"] for one in found))


def works(check: Check) -> None:
    """Print the time of a step of each work beside PyTorch on the same device."""
    side, names = (
        HERE / "side.py",
        ["W3"] if check.small else [f"W{number}" for number in (1, 3, 9, 2, 4, 5, 7, 8, 6, 10)],
    )
    if not side.exists():
        return check.left_out("works", "benchmarks/side.py is not there")
    missing = "" if find_spec("torch") else "PyTorch is not installed (pip install torch)"
    if missing:
        check.left_out("PyTorch", missing)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            given = Path(folder) / f"{name}.npz"
            check.run(["-c", METARUN, side, "give", name, "metarun", "float32", given], HIDDEN)
            mine = step_of(check, ["-c", METARUN, side, "time", name, "metarun", "float32", given])
            times = {"metarun": mine}
            for mode, compiler in {} if missing else MODES.items():
                variant = FORMS.get(name, "by step") + (", compiled" if compiler else "")
                command = ["-c", PYTORCH, compiler, side, "time", name, "pytorch", variant, given]
                if mode == "CUDA graphs" and not check.gpus:
                    check.left_out(f"{name}, {mode}", "no GPU")
                    continue
                try:
                    times[mode] = step_of(check, command)
                except Failed as failed:
                    check.left_out(f"{name}, {mode}", failed)
            told = (f"{mode} {1000 * each:.3f} ms ({each / mine:.2f}x)" for mode, each in times.items())
            check.say(f"{name}: {', '.join(told)}")


def step_of(check: Check, command: list[object]) -> float:
    """Return the seconds of a step that side.py measures."""
    return json.loads(check.run(command).splitlines()[-1])["seconds"]


def workers(check: Check) -> None:
    """Train with one worker and with two, and compare the weights."""
    if check.gpus == 1:
        return check.left_out("two workers", "they need a GPU each, and there is one")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tiny.yaml").write_text(spec("maml", check.small, STEPS=20, PRECISION="float64"))
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
        command = ["-m", "metarun.cli.main", "train", "tiny.yaml", "--out"]
        environment = QUICK if not check.gpus else {}
        check.run([*command, "alone"], environment, folder)
        roles = [
            json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
            for index in (0, 1)
        ]
        check.together([([*command, "two"], environment | {"TF_CONFIG": role}, folder) for role in roles])
        far = max(
            float(np.abs(one - other).max())
            for one, other in zip(*(weights(folder / name) for name in ("alone", "two")), strict=True)
        )
        check.check("two workers make the weights of one in float64, within 1e-9", far < 1e-9, f"{far:.1e}")


def sharing(check: Check) -> None:
    """Print the time of two runs, one after the other and sharing the GPU."""
    if not check.gpus:
        return check.left_out("two runs that share a GPU", "there is none")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tiny.yaml").write_text(spec("maml", check.small, STEPS=4000))
        seconds = {number: shared(check, folder, number) for number in (1, 2)}
        check.say(f"two runs, one after the other {seconds[1]:.1f} s, sharing the GPU {seconds[2]:.1f} s")


def shared(check: Check, folder: Path, number: int) -> float:
    """Return the seconds of two runs of which so many share the GPU."""
    started = time.monotonic()
    command = ["-m", "metarun.cli.main", "submit", "tiny.yaml", "--seeds", "0-1", "--executor", "local", "--gpus", 1]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    check.run(
        [*command, "--runs-per-gpu", number, "--out", f"shared-{number}"], {"CUDA_VISIBLE_DEVICES": first}, folder
    )
    return time.monotonic() - started


def weights(out: Path) -> list[np.ndarray]:
    """Return the arrays of the last checkpoint below a folder."""
    (path,) = list(out.rglob("step-*20.npz"))
    with np.load(path) as file:
        return [file[name] for name in sorted(file.files) if file[name].dtype.kind == "f"]


SECTIONS: dict[str, Callable[[Check], None]] = {
    each.__name__: each for each in (machine, gradients, repeat, workers, rates, kernels, sharing, works)
}
UNTIMED = ("gradients", "repeat", "workers")  # they may run at the same time


def run(name: str, check: Check) -> None:
    """Run a section."""
    print(f"{name}, {check.seconds():.0f} s left", file=check.file, flush=True)
    try:
        SECTIONS[name](check)
    except Failed as failed:
        if check.seconds():
            check.check(name, False, str(failed))
        else:
            check.left_out(f"the rest of {name}", "no time left")


def main(arguments: list[str] | None = None) -> int:
    """Run the sections and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--minutes", type=float, default=5.0, help="time for everything; default: 5")
    parser.add_argument("--small", action="store_true", help="the sizes of a CPU, on a GPU too")
    parser.add_argument("--threads", type=int, default=0, help="processor threads of each process")
    told = parser.parse_args(arguments)
    check = Check(told.minutes, told.small, told.threads)
    run("machine", check)
    check.small = check.small or not check.gpus
    names = [name for name in SECTIONS if name in told.only and name != "machine"]
    at_once = [name for name in names if check.gpus and name in UNTIMED]
    asides = [check.aside() for _ in at_once]
    with ThreadPoolExecutor() as pool:
        list(pool.map(run, at_once, asides))
    for aside in asides:
        print(aside.file.getvalue(), end="", flush=True)
        check.failures += aside.failures
    for name in names:
        if name not in at_once:
            run(name, check)
    print(f"{check.failures} checks failed" if check.failures else "no check failed")
    return int(check.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
