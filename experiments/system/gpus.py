"""Find the GPUs of this machine, and why TensorFlow does not use them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import RunError, warn

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # which GPUs a process may use
NAMED = (*VISIBLE, "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")  # 0 is the first GPU
COUNTED = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE")  # 0 is no GPU
NONE = ("", "-1", "nodevfiles")  # as a person or a scheduler hides all GPUs
DRIVERS = ("nvidia[0-9]*", "kfd", "dxg")  # below /dev: NVIDIA, AMD, and GPUs of Windows in its subsystem for Linux
DEVICES = Path("/dev")
LOGGED = re.compile(r"^[A-Z]\d{4} [\d:. ]+ \S+\] (.*(?:cuda|cudnn|cuinit|gpu|rocm|hip|dlopen).*)$", re.I | re.M)
INSTALL = 'pip install "tensorflow[and-cuda]" (for AMD: tensorflow-rocm)'


def nvidia_gpus() -> list[str]:
    """Return the names of the GPUs that nvidia-smi lists; none where it is missing or cannot reach the driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: *(.*?)(?: \(UUID.*)?$", done.stdout, re.M) if done.returncode == 0 else []


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


def warn_of_unused() -> None:
    """Warn if this machine has a GPU that TensorFlow does not see, so that the work is done on the CPU."""
    if line := unused():
        warn(f"{line}. The CPU is used; CUDA_VISIBLE_DEVICES= (empty) says that this is wanted. See `metarun doctor`")


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
