"""Examine this machine: what metarun finds on it, and what it cannot use."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..datasets.errors import KnownError
from ..datasets.images import cache
from ..datasets.plugins import installed_version
from .jobs.slurm import slurm
from .system import gpus, lock
from .system.cgroups import available_bytes, memory_limits
from .system.processors import cores
from .system.provenance import DECIDING, PACKAGES, describe, git_commit, processor

GIB = 2**30
SETTINGS = (*DECIDING, "METARUN_", "KERAS_", "CUDA_", "HIP_", "ROCR_", "OMP_", "SLURM_", "SBATCH_", "LD_LIBRARY_PATH")
SECRET = re.compile("JWT|TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)


class Finding(NamedTuple):
    """Hold a thing that was looked at: what it is, and what is wrong with it, with the way out, if anything is."""

    name: str
    state: str
    problem: str | None = None


def examine(out: Path) -> Iterator[Finding]:
    """Yield what is found on this machine. Imports TensorFlow, after what can be said without it.

    Args:
        out: the folder in which runs would be written.
    """
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _is_setting(name)]
    yield Finding("metarun", " ".join(filter(None, (installed_version("metarun"), git_commit()))))
    yield Finding("python", f"{platform.python_version()} in {sys.prefix}")
    yield Finding("system", platform.platform())
    yield Finding("processor", processor())
    yield Finding("cores", f"{cores()} for this process, {os.cpu_count()} in the machine")
    yield from _tensorflow()
    yield _folder("cache", cache.folder())
    yield _folder("runs", out.absolute())
    yield _slurm()
    yield Finding("environment", ", ".join(settings) or "nothing that matters is set")


def _is_setting(name: str) -> bool:
    """Return whether a variable may decide what metarun does, and is no secret."""
    return name.startswith(SETTINGS) and not SECRET.search(name)


def _tensorflow() -> Iterator[Finding]:
    """Yield what only TensorFlow knows: versions, threads, devices; memory."""
    from .system.startup import import_tensorflow

    given = dict(os.environ)
    try:
        import_tensorflow(needs_gpu=None)
    except KnownError as error:
        yield Finding("tensorflow", "cannot be imported", str(error))
        return
    import tensorflow as tf

    yield Finding("packages", ", ".join(f"{name} {installed_version(name)}" for name in PACKAGES if name != "metarun"))
    facts = describe()
    chosen = " (TF_ENABLE_ONEDNN_OPTS=0): convolutions are slower" if given.get("TF_ENABLE_ONEDNN_OPTS") == "0" else ""
    yield Finding("oneDNN", {True: "on", False: f"off{chosen}", None: "unknown"}[facts["onednn"]])
    threads = f"{facts['intra_op_threads']} in an operation, {facts['inter_op_threads']} for operations"
    yield Finding("threads", threads)
    free, least = available_bytes(), min(memory_limits(), default=None)
    limit = "no limit of a control group" if least is None or least >= 2**60 else f"limit {least / GIB:.1f} GiB"
    yield Finding("memory", f"{'unknown' if free is None else f'{free / GIB:.1f} GiB'} free, {limit}")
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    hidden = [f"{name}={os.environ[name]}" for name in gpus.VISIBLE if name in os.environ]
    unused, card = gpus.unused(), gpus.memory()
    if card:
        names[0] += f"; {card.free / GIB:.1f} of {card.total / GIB:.1f} GiB free{gpus.occupants()}"
    yield Finding("GPUs", ", ".join(names) or f"none{''.join(f' ({each})' for each in hidden)}", unused)


def _folder(name: str, path: Path) -> Finding:
    """Return the room in a folder, or in the nearest that exists above it, and whether files there can be locked."""
    there = next(each for each in (path, *path.parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".metarun-doctor-") as file, lock.waited(Path(file.name)):
            free = shutil.disk_usage(there).free / GIB
    except KnownError as error:
        return Finding(name, str(path), f"{error}; a folder on another disk may have locks")
    except OSError as error:
        return Finding(name, str(path), f"{there} cannot be written: {error.strerror}: choose another folder")
    return Finding(name, f"{path}: {free:.1f} GiB free, locks work", "the disk is full" if free < 0.1 else None)


def _slurm() -> Finding:
    """Return Slurm's version and its partitions, or that there is none."""
    if shutil.which("sbatch") is None:
        return Finding("Slurm", "not on this machine")
    try:
        version = slurm("sinfo", "--version", timeout=20).strip()
        lines = slurm("sinfo", "--noheader", "--format=%P %a: %D nodes %T, at most %l, %c cores, %G", timeout=20)
    except KnownError as error:
        return Finding("Slurm", "sbatch is here", f"no controller answers it ({str(error)[:300]})")
    return Finding("Slurm", "; ".join([version, *lines.splitlines()]))
