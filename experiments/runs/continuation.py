"""A longer training begins where a shorter one of the same spec stands: the steps that they share are the same, bit for
bit. No TensorFlow."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from ..config.experiment import Experiment
from ..config.load import load
from ..config.variants import is_beginning
from ..errors import RunError, SpecError
from ..system import lock
from ..system.atomic import write_bytes_atomic
from . import checkpoint
from .directory import RunDirectory


def begun(experiment: Experiment, directory: RunDirectory) -> RunDirectory | None:
    """The run beside this one (OUT/<any name>/seed-<n>, the same n) that has done the most of the same training, more
    than this one, and is shorter in all; None where there is none, or this one was started with --fresh. One that is
    still being trained does not count."""
    if directory.afresh.exists():
        return None
    found: list[RunDirectory] = []
    own = directory.step
    for spec in directory.path.parent.parent.glob(f"*/{directory.path.name}/spec.yaml"):
        other = RunDirectory(spec.parent)
        try:
            further = own < other.step < experiment.train.steps
            idle = further and (other.finished or not lock.holder(other.lock))
            if idle and is_beginning(load(spec).experiment, experiment):
                found.append(other)
        except (SpecError, OSError):  # damaged, of another version, not ours to read
            continue
    return max(found, key=lambda other: other.step, default=None)


def go_on_from_shorter(experiment: Experiment, directory: RunDirectory, content_digest: str) -> None:
    """Copy what a shorter training on the same images has reached, its newest checkpoint last, and say so."""
    other = begun(experiment, directory)
    if other is None:
        return
    try:
        with nullcontext() if other.finished else other.locked():
            saved = other.newest_checkpoints()
            if not saved:
                return
            state, arrays = checkpoint.read(saved[0])
            if state.get("content_digest") not in ("", content_digest):  # of older versions: "" for glyphs
                return
            paths = [path for path in (other.best, other.metrics) if path.is_file()]
            files = [(path.relative_to(other.path), path.read_bytes()) for path in paths]
    except (RunError, OSError) as error:
        print(f"warning: not going on from {other.path}: {error}", file=sys.stderr)
        return
    for name, data in files:
        write_bytes_atomic(directory.path / name, data)
    checkpoint.save(directory.checkpoints / saved[0].name, arrays, state | {"digest": experiment.digest})
    told = f"{directory.path} goes on from {other.path}, the same training up to step {directory.step}"
    print(told, file=sys.stderr)
