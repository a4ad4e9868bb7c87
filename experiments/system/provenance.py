"""Describe where a result came from: versions, commit and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...datasets.plugins import installed_version
from .processors import cores

PACKAGES = ("metarun", "tensorflow", "keras", "numpy", "pillow", "matplotlib")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


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
    """Return facts about this process that fit into JSON. Imports TensorFlow."""
    import tensorflow as tf

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {package: installed_version(package) for package in PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": processor(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""),
        "cores": cores(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


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
