"""Find the weights that a training starts from, `network.init`: those that another run was tested with. No TensorFlow.

The digest of these weights, not their place, belongs to the training. It stands as `network.init_digest` in the spec of
a run that has begun, which needs the source no more.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.experiment import Experiment
from ..config.load import load
from ..errors import RunError, SpecError
from ..system import archives
from .directory import PACKED, ROW, RunDirectory

if TYPE_CHECKING:
    import numpy as np

NEEDED = re.compile(r"result\.json|checkpoints/(best|step-\d+)\.npz")


class Weights(NamedTuple):
    """Hold the values of the variables of a checkpoint."""

    arrays: list[np.ndarray]
    numbers: dict[str, int]  # of parameters and running averages, by name; empty in checkpoints of older versions
    digest: str


def weights_of(path: Path) -> Weights:
    """Return the weights with which a finished run was tested.

    Args:
        path: the folder of the run, or a file of `metarun pack`.

    Raises:
        RunError: there is no such run, it is not finished, or its checkpoint is damaged or missing.
    """
    if path.is_dir():
        directory = RunDirectory(path)
        if not directory.finished:
            raise RunError(f"{path} has no result.json: give the folder of a finished run, such as runs/NAME/seed-0")
        file = path / _checkpoint_in(path, directory.result.read_bytes())
        data = file.read_bytes() if file.is_file() else None
    elif path.is_file():
        members = archives.read(path, PACKED, NEEDED)
        file = path / _checkpoint_in(path, members.get(ROW, b""))
        data = members.get(file.relative_to(path).as_posix())
    else:
        raise RunError(f"{path} is missing: give the folder of a finished run, or a file of `metarun pack`")
    if data is None:
        raise RunError(f"{path} has no weights: its tested checkpoint is missing, or it is a method without a training")
    from . import checkpoint  # it imports NumPy, which the quick verbs do without

    state, arrays = checkpoint.parse(data, file)
    numbers = state.get("weights", {})
    if not (isinstance(numbers, dict) and all(isinstance(n, int) and 0 <= n < len(arrays) for n in numbers.values())):
        raise RunError(f"{file} is damaged: its names of weights are not those of its arrays")
    return Weights(arrays, numbers, checkpoint.digest_of(arrays))


def _checkpoint_in(path: Path, row: bytes) -> str:
    """Return the path, within the run, of the checkpoint that a row measures."""
    try:
        told = json.loads(row)
        return (
            "checkpoints/best.npz" if told["checkpoint"] == "best" else f"checkpoints/step-{told['train_steps']:d}.npz"
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{path}: its {ROW} is not the row of a run") from None


def settled(experiment: Experiment, directory: RunDirectory) -> Experiment:
    """Return the experiment with the digest of the weights that it starts from, if it has `network.init`.

    Where the source is gone, the digest is that of the run that has begun from it in the folder.

    Raises:
        SpecError: the source cannot be read, and no run has begun from it.
    """
    network: Any = experiment.network
    place = getattr(network, "init", None)
    if place is None or network.init_digest:
        return experiment
    try:
        digest = _digest(place, _stamp(place))
    except (RunError, OSError) as error:
        digest = _begun_from(place, directory)
        if not digest:
            raise SpecError([f"network.init: {error}"]) from None
    return experiment.model_copy(update={"network": network.model_copy(update={"init_digest": digest})})


@lru_cache(maxsize=64)  # a sweep has many runs from one source
def _digest(place: Path, stamp: tuple[int, ...]) -> str:
    return weights_of(place).digest


def _stamp(place: Path) -> tuple[int, ...]:
    """Return what changes when the files of a source do."""
    files = [place] if place.is_file() else [place / ROW, *(place / "checkpoints").glob("*.npz")]
    return tuple(file.stat().st_mtime_ns for file in files if file.is_file())


def _begun_from(place: Path, directory: RunDirectory) -> str:
    """Return the digest in the spec of a run in the folder that starts from the same place, or ""."""
    if not directory.spec.is_file():
        return ""
    try:
        network = load(directory.spec).experiment.network
    except SpecError:
        return ""
    return getattr(network, "init_digest", None) or "" if getattr(network, "init", None) == place else ""
