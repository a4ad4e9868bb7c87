"""A run that is to be: its spec, seed and folder, and what stands there already. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import write_text_atomic
from .errors import RunError
from .load import load, resolved_yaml
from .longer import is_beginning
from .results import read_row
from .retest import changed, place
from .rundir import RunDirectory
from .spec import Experiment


@dataclass(frozen=True)
class Run:
    """A training, its own test, and the further tests that follow it."""

    experiment: Experiment
    seed: int
    directory: RunDirectory
    tests: tuple[Mapping[str, Any], ...] = ()  # changes, in the words of `evaluate`

    @property
    def finished(self) -> bool:
        """Whether every row is there."""
        return self.directory.finished and all(
            place(self.directory, self.experiment, changed(self.experiment, test)).is_file() for test in self.tests
        )


def write_spec(experiment: Experiment, seed: int, directory: RunDirectory) -> None:
    """The resolved spec of this one seed, where it is not there yet."""
    text = _spec_text(experiment, seed)
    if _told(directory.spec) != text:
        write_text_atomic(directory.spec, text)


def refuse_another_spec(experiment: Experiment, seed: int, directory: RunDirectory) -> None:
    """RunError where the directory holds a run, finished or not, of a spec with another digest, or of another seed."""
    if directory.finished:
        row = read_row(directory.result)
        state, digest, seeds = "the finished run", row.spec_digest, (row.seed,)
    elif (told := _told(directory.spec)) is not None and told != _spec_text(experiment, seed):
        found = load(directory.spec).experiment
        state, digest, seeds = "an unfinished run", found.digest, found.seeds
    else:
        return
    if seed not in seeds:
        raise RunError(f"{directory.path} holds {state} of seed {seeds[0]}: move it to its own folder")
    if digest != experiment.digest:
        way_out = "rename the experiment, choose another --out, or set it aside (--fresh of train and submit)"
        if directory.spec.is_file() and is_beginning(load(directory.spec).experiment, experiment):
            way_out = "give this longer one a name of its own (-s name=...), and it goes on from there"
        raise RunError(
            f"{directory.path} holds {state} of another spec (digest {digest}, this one has {experiment.digest}): "
            + way_out
        )


def _spec_text(experiment: Experiment, seed: int) -> str:
    return resolved_yaml(experiment.model_copy(update={"seeds": (seed,), "cluster": None}))


def _told(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
