"""Keep in environment.json where a run was trained: one environment after the other, each with its first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..config.messages import differences
from ..errors import warn
from ..system import provenance
from ..system.atomic import write_json_atomic
from .directory import RunDirectory

# what decides the bits of a result beside spec and seed
DECISIVE = ("packages", "git_commit", "code", "processor", "device", "cuda", "workers", "onednn", "intra_op_threads",
            "inter_op_threads", "deterministic", "tensor_float_32", "variables", "libc", "chosen")  # fmt: skip
# what decides the bits of a test of given weights: what shaped the training alone, and commits of equal code, do not
OF_A_TEST = tuple(key for key in DECISIVE if key not in ("workers", "git_commit", "chosen"))
SHOWN = 8  # differences that a warning lists


def begin(
    directory: RunDirectory, step: int, steps: int, workers: int = 1, chosen: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write the environment of this process into environment.json; warn if it is another one than before.

    The file is a list. Its entries are those of `provenance.describe`, with the step at which each began. What decides
    no bit, such as host and command, is that of the last start.

    Args:
        directory: the folder of the run.
        step: the step at which the run starts or resumes.
        steps: the length of the training; a run that resumes there is tested.
        workers: the processes that share the training.
        chosen: the options of the algorithm that were chosen by the memory of the GPU.
    """
    now = provenance.describe() | {"workers": workers, "chosen": dict(chosen)}
    known = [each for each in read(directory.environment) if each["step"] < step or step == steps]
    changes = _changes(known[-1], now) if known else ""
    if changes:
        warn(
            f"{directory.path} continues at step {step} in another environment, {changes}: its last bits may differ "
            f"from those of an undisturbed run, see {directory.environment.name}"
        )
    if known and not changes:
        step = known.pop()["step"]
    write_json_atomic(directory.environment, [*known, {"step": step} | now])


def unlike(path: Path) -> str:
    """Return in what this process differs from the environment in which a run was tested; "" if both are of one kind.

    They are of one kind if tests of equal weights have equal bits: the same versions and code, device, processor with
    its vector instructions, settings of oneDNN and of threads. What is not known counts as different.

    Args:
        path: the environment.json of the run.
    """
    known, now = read(path), provenance.describe()
    if not known:
        return f"{path.name} does not say where the run was tested"
    before = known[-1]
    return differences({key: before.get(key) for key in OF_A_TEST}, {key: now.get(key) for key in OF_A_TEST}, SHOWN)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the environments of a run, the first one first; none if the file is missing or damaged.

    Older versions wrote a single one. Their settings of oneDNN and of threads are those that were asked for, so they
    are left out where they were not set.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list):
            return [each | {"step": int(each["step"])} for each in found]
        onednn = {"0": False, "1": True}.get(found.pop("onednn", ""))
        set_there = {key: value for key, value in found.items() if not key.endswith("_op_threads") or value}
        return [{"step": 0} | set_there | ({} if onednn is None else {"onednn": onednn})]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs and decides bits, of that which both environments say."""
    keys = [key for key in DECISIVE if key in before and key in now]
    return differences({key: before[key] for key in keys}, {key: now[key] for key in keys}, SHOWN)
