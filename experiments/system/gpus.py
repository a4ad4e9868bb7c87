"""Find the GPUs of this machine, their memory and who uses it, and why TensorFlow does not use them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError, warn

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # which GPUs a process may use
NAMED = (*VISIBLE, "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")  # 0 is the first GPU
COUNTED = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE")  # 0 is no GPU
NONE = ("", "-1", "nodevfiles")  # as a person or a scheduler hides all GPUs
DRIVERS = ("nvidia[0-9]*", "kfd", "dxg")  # below /dev: NVIDIA, AMD, and GPUs of Windows in its subsystem for Linux
DEVICES = Path("/dev")
LOGGED = re.compile(r"^[A-Z]\d{4} [\d:. ]+ \S+\] (.*(?:cuda|cudnn|cuinit|gpu|rocm|hip|dlopen).*)$", re.I | re.M)
INSTALL = 'pip install "tensorflow[and-cuda]" (for AMD: tensorflow-rocm)'
SHARED = "METARUN_RUNS_PER_GPU"  # set by `metarun submit --runs-per-gpu` for its runs
AMPERE = (8, 0)  # compute capability of the first GPUs that have bfloat16 and TF32
MIB = 2**20  # the unit of nvidia-smi


class Memory(NamedTuple):
    """Hold the memory of a GPU, in bytes."""

    free: int
    total: int


def settings() -> dict[str, str]:
    """Return the environment variables of GPUs that are not set yet; TensorFlow reads them when it takes a GPU.

    With them a process takes memory of the GPU as it needs it, in place of all of it at the start. And the GPUs have
    the numbers that nvidia-smi gives them.
    """
    wanted = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def nvidia_gpus() -> list[str]:
    """Return the names of the GPUs that nvidia-smi lists; none where it is missing or cannot reach the driver."""
    return re.findall(r"^GPU \d+: *(.*?)(?: \(UUID.*)?$", _nvidia_smi("--list-gpus"), re.M)


def visible() -> list[str]:
    """Return the numbers or names of the GPUs that this process may use."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return list(takewhile(lambda each: each not in ("", "-1", "NoDevFiles"), given.split(",")))
    return [str(number) for number in range(len(nvidia_gpus()))]


def memory() -> Memory | None:
    """Return the memory of the GPU that this process computes on; None without a GPU, or if nvidia-smi does not say."""
    if (card := _in_use()) is None:
        return None
    told = _nvidia_smi(f"--id={card}", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits")
    found = re.fullmatch(r"(\d+), (\d+)\s*", told)
    return Memory(int(found[1]) * MIB, int(found[2]) * MIB) if found else None


def runs_per_gpu() -> int:
    """Return the number of runs that share the GPU of this process, as `metarun submit --runs-per-gpu` says it."""
    given = os.environ.get(SHARED, "")
    return max(1, int(given)) if given.isdecimal() else 1


def occupants() -> str:
    """Return the other processes on the GPU that this process computes on, in parentheses; "" if none is known.

    In a container nvidia-smi may give the processes numbers that they have outside of it.
    """
    if (card := _in_use()) is None:
        return ""
    query = ("--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits")
    found = []
    for line in _nvidia_smi(f"--id={card}", *query).splitlines():
        number, _, rest = line.partition(", ")
        name, _, used = rest.rpartition(", ")
        if number.isdecimal() and int(number) != os.getpid():
            size = f" with {int(used) / 1024:.1f} GiB" if used.isdecimal() else ""
            found.append(f"{Path(name).name} (process {number}){size}")
    return f" (on the GPU: {', '.join(found)})" if found else ""


def signs() -> list[str]:
    """Return what says that this process should have a GPU; nothing where the GPUs are hidden from it."""
    given = {name: os.environ[name].strip() for name in (*NAMED, *COUNTED) if name in os.environ}
    if any(given.get(name, "all").lower() in NONE for name in VISIBLE):
        return []
    lists = [f"nvidia-smi lists {name}" for name in nvidia_gpus()]
    files = [str(each) for pattern in DRIVERS for each in sorted(DEVICES.glob(pattern))]
    settings = [
        f"{name}={value}"
        for name, value in given.items()
        if value.lower() not in NONE and not (name in COUNTED and value == "0")
    ]
    return lists + files + settings


def unused() -> str | None:
    """Return what says that there is a GPU, why TensorFlow does not use it, and the way out.

    Returns None if TensorFlow lists a GPU, or if nothing says that there is one. Imports TensorFlow.
    """
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU") or not (found := signs()):
        return None
    return f"there is a GPU ({', '.join(found)}), but TensorFlow does not see it: {_reason()}"


def require() -> None:
    """Raise RunError, with the reason, if TensorFlow lists no GPU."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        raise RunError(f"a GPU is asked for, and {unused() or 'this machine has none, or hides it from this process'}")


def refuse_precision(precision: str) -> None:
    """Raise RunError if this process cannot compute with a precision of a spec: TF32 needs a GPU, and a GPU needs to be
    of a kind that has TF32 and bfloat16.
    """
    import tensorflow as tf

    used = tf.config.get_visible_devices("GPU")
    if precision == "tf32" and not used:
        raise RunError(
            f"precision: tf32 has no effect without a GPU, and {unused() or 'this machine has none'}: use float32"
        )
    if precision in ("tf32", "bfloat16") and used:
        details = tf.config.experimental.get_device_details(used[0])
        if (has := details.get("compute_capability", AMPERE)) < AMPERE:
            raise RunError(
                f"precision: {precision} needs a GPU of compute capability {'.'.join(map(str, AMPERE))}, and "
                f"{details.get('device_name', 'this one')} has {'.'.join(map(str, has))}: use float32"
            )


def warn_of_unused() -> None:
    """Warn if this machine has a GPU that TensorFlow does not see, so that the work is done on the CPU."""
    if line := unused():
        warn(f"{line}. The CPU is used; CUDA_VISIBLE_DEVICES= (empty) says that this is wanted. See `metarun doctor`")


def _in_use() -> str | None:
    """Return the number or name by which nvidia-smi knows the GPU that this process computes on, or None."""
    import tensorflow as tf

    if not (used := tf.config.get_visible_devices("GPU")):
        return None
    number, here = int(used[0].name.rpartition(":")[2]), visible()
    return here[number] if number < len(here) else None


def _nvidia_smi(*arguments: str) -> str:
    """Return what nvidia-smi prints; nothing where it is missing or cannot reach the driver."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _reason() -> str:
    """Return why TensorFlow uses no GPU, as far as it can be known, and what helps.

    TensorFlow gives its reasons only in the log of its start, which is hidden here: another process starts it again.
    """
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    if not (build.get("is_cuda_build") or build.get("is_rocm_build")):
        return f"this TensorFlow is built for CPUs alone; {INSTALL}"
    code = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, errors="replace", timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"starting it again to learn why failed ({error}); {INSTALL}"
    said = "; ".join(dict.fromkeys(LOGGED.findall(done.stderr))) or "it does not say why"
    if "Could not find cuda drivers" in said:
        helps = "the driver's library libcuda.so.1 is not found: install the driver, or start the container with GPUs"
    else:
        helps = f"CUDA's libraries may be missing: {INSTALL}"
    return f"{said}. {helps[0].upper()}{helps[1:]}"
