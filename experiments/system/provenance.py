"""Describe where a result came from: versions, commit, machine, and the settings in effect that decide its bits."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...datasets.plugins import installed_version
from .processors import SCHEDULER, cores, schedulable_cores

PACKAGES = ("metarun", "tensorflow", "keras", "numpy", "pillow", "matplotlib")
INSTRUCTIONS = ("fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
# how names of variables begin that may decide bits; other names with TF_ are Terraform's, and their values secrets
DECIDING = ("TF_XLA_", "TF_CUDNN_", "TF_CUBLAS_", "TF_ENABLE_", "TF_DISABLE_", "TF_DETERMINISTIC_", "TF_ONEDNN_",
            "TF_MKL_", "TF_USE_", "TF_GPU_", "TF_AUTO_", "TF_NUM_", "XLA_", "ONEDNN_", "DNNL_", "CUDNN_", "CUBLAS_",
            "NVIDIA_TF32_", "EIGEN_")  # fmt: skip
# variables that decide nothing, or that `describe` reports as they are in effect
OTHERS = ("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "TF_GPU_ALLOCATOR")


def git_commit() -> str:
    """Return the commit of the checkout that metarun runs from, or "" outside a checkout.

    It ends in "-modified" if tracked files differ from the commit.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return ""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("-modified" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def describe() -> dict[str, Any]:
    """Return facts about this process that fit into JSON. Imports TensorFlow.

    Settings are those in effect, whether a variable, a call or TensorFlow's own choice made them.
    """
    import tensorflow as tf

    threads = tf.config.threading
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": git_commit(),
        "code": code_digest(),
        "python": platform.python_version(),
        "packages": {package: installed_version(package) for package in PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": processor(),
        "libc": " ".join(platform.libc_ver()),
        "cores": cores(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "device": device_name(),
        "cuda": _cuda(),
        "onednn": uses_onednn(),
        "intra_op_threads": _in_effect(threads.get_intra_op_parallelism_threads(), "TF_NUM_INTRAOP_THREADS"),
        "inter_op_threads": _in_effect(threads.get_inter_op_parallelism_threads(), "TF_NUM_INTEROP_THREADS"),
        "deterministic": _is_deterministic(),
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "variables": {
            name: deciding
            for name, value in sorted(os.environ.items())
            if name.startswith(DECIDING) and not name.startswith(OTHERS) and (deciding := _without_scheduler(value))
        },
    }


def _without_scheduler(value: str) -> str:
    """Return the value of a variable without the flag of metarun's own, which changes no bit."""
    return " ".join(flag for flag in value.split() if flag != SCHEDULER) if SCHEDULER in value else value


def code_digest() -> str:
    """Return a digest of the code that decides results: of edits that have no commit, and without a checkout too."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for folder in ("algorithms", "datasets", "experiments"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def uses_onednn() -> bool | None:
    """Return whether TensorFlow computes with oneDNN's kernels, or None where it does not say."""
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):
        return None


def _in_effect(given: int, variable: str) -> int:
    """Return the threads that TensorFlow uses: `given` by a call, or by a variable, or one for each core."""
    text = os.environ.get(variable, "").strip()
    return given or (int(text) if text.isdecimal() else 0) or schedulable_cores()


def _is_deterministic() -> bool | None:
    """Return whether TensorFlow has only deterministic kernels: on a GPU if it was told so, on a CPU always."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return True
    try:
        from tensorflow.python.framework import config

        return bool(config.is_op_determinism_enabled())
    except (ImportError, AttributeError):
        return None


def _cuda() -> dict[str, str]:
    """Return the versions of CUDA and cuDNN that TensorFlow was built for, or nothing without a GPU."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return {}
    told = tf.sysconfig.get_build_info()
    return {name: str(told[name]) for name in ("cuda_version", "cudnn_version") if name in told}


def processor(description: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name and those of its vector instructions that decide on TensorFlow's kernels.

    Args:
        description: the file in which Linux describes the processor.
    """
    try:
        lines = description.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has = set(facts.get("flags", "").split())
    return " ".join([facts.get("model name", platform.machine()), *(one for one in INSTRUCTIONS if one in has)])


def device_name() -> str:
    """Return the kind of device that holds this worker's tensors: "CPU" or the GPU's name."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
