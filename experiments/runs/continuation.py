"""Start a longer training where a shorter one of the same spec stands. No TensorFlow.

The steps that both share are the same, bit for bit.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from ..config.experiment import Experiment
from ..config.load import former_digest, load
from ..config.variants import is_beginning
from ..errors import RunError, SpecError, warn
from ..system import lock
from ..system.atomic import write_bytes_atomic
from . import checkpoint
from .directory import RunDirectory
from .run import Run, readable_spec, refuse_other_code
from .trained import labels


def shorter_run(experiment: Experiment, directory: RunDirectory) -> RunDirectory | None:
    """Return the shorter run that this run can continue, or None without one.

    Runs beside this one with the same seed are searched: OUT/<any name>/seed-<n>. A run counts if it is a shorter
    training of the same spec, has done more steps than this one and is not in use. The one with the most
    steps is returned. A run that was started with --fresh continues none.

    Args:
        experiment: the longer training.
        directory: its folder.
    """
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
        except (SpecError, OSError):  # damaged, of another version, or not readable for this user
            continue
    return max(found, key=lambda other: other.step, default=None)


def label_checkpoints(run: Run) -> None:
    """Write the digest of the training into checkpoints of older versions, before the spec of the run is replaced.

    They have the digest of the whole spec alone, so only its spec.yaml shows that the training is the same. A
    checkpoint that does not say on which data it was trained keeps the place of the data.

    Args:
        run: the run, whose test or place of the data may have changed since the checkpoints were written.
    """
    directory, experiment = run.directory, run.experiment
    before = readable_spec(directory) if directory.step else None
    if before is None:
        return
    known = {before.digest, former_digest(directory.spec, before)}
    if experiment.former_digest in known or before.training_digest != experiment.training_digest:
        return
    for path in directory.newest_checkpoints():
        try:
            state, arrays = checkpoint.read(path)
        except RunError:  # training sets it aside, and says so
            continue
        sure = state.get("content_digest") or not run.is_moved
        if "training_digest" not in state and state.get("digest") in known and sure:
            checkpoint.save(path, arrays, state | labels(experiment))


def continue_shorter_run(experiment: Experiment, directory: RunDirectory, content_digest: str) -> None:
    """Copy the files of a shorter training on the same images, the newest checkpoint last, and say so.

    Args:
        experiment: the longer training.
        directory: its folder, into which the files are copied.
        content_digest: digest of the images that it trains on.
    """
    other = shorter_run(experiment, directory)
    if other is None:
        return
    try:
        with nullcontext() if other.finished else other.locked():
            saved = other.newest_checkpoints()
            if not saved:
                return
            state, arrays = checkpoint.read(saved[0])
            former = () if experiment.dataset.located else ("",)  # older versions wrote "" for glyphs
            if state.get("content_digest") not in (*former, content_digest):
                return
            refuse_other_code(state.get("plugins", ""), experiment, other)
            paths = [path for path in (other.metrics, other.environment) if path.is_file()]
            files = [(path.name, path.read_bytes()) for path in paths]
            kept = [(saved[0].name, state, arrays)]
            if other.best.is_file():
                kept.insert(0, (other.best.name, *checkpoint.read(other.best)))
    except (RunError, OSError) as error:
        warn(f"not continuing from {other.path}: {error}")
        return
    for name, data in files:
        write_bytes_atomic(directory.path / name, data)
    for name, state, arrays in kept:
        own = {key: value for key, value in labels(experiment).items() if key in state or key == "digest"}
        checkpoint.save(directory.checkpoints / name, arrays, state | own)
    reached = f"the same training up to step {directory.step}"
    print(f"{directory.path} continues {other.path}, {reached}", file=sys.stderr)
