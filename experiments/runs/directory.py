"""The folder of a run: the only owner of the paths inside it.

spec.yaml         resolved and complete, itself a valid spec
inputs.json       of images: how those of a file become the network's inputs, and how bright the training's are
temperature.json  temperatures fitted on the validation tasks, one for each checkpoint and way to test it
environment.json  versions, commit, host, devices, command line: a list, with the step at which each environment began
metrics.csv       one line per log point and per validation
checkpoints/      step-N.npz, the newest two, and best.npz by validation
tuning.npz        while a classical method is tuned and tested: the rewards of the values tried so far
test.npz          while the run is tested: the test episodes that are done
features.npz      after `metarun evaluate`: the features of all images of a split, for further tests of these weights
episodes.csv      one line per test episode
calibration.csv   classifiers: one line per bin of confidence, sums over the test queries
curves.csv        trials: one line per step, means over the test trials
tuning.csv        classical methods: one line per value of the parameter
result.json       the row; written last, so a run that has it is finished
evaluations/      a row and its episodes for each `metarun evaluate`
tensorboard/      the scalars of metrics.csv
progress.json     during training: step, steps, steps per second
search.json       of a choice by validation: the step at which it stops the run, untested; or of how many it was chosen
failure.txt       why the last attempt failed, in one line
job.log           output of the last job that ran it
afresh            present if the run was started with --fresh: it continues no shorter run
restarts.json     how often the scheduler restarted it at the same step
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..config.experiment import Experiment
from ..errors import InUse, warn_once
from ..system import lock
from ..system.atomic import drop_unfinished

KEPT_CHECKPOINTS = 2
SEED = re.compile(r"seed-\d+")  # the name of a run's folder
ROW = "result.json"
PACKED = re.compile(  # the files of a run that an archive may hold
    r"(spec\.yaml|(environment|inputs|temperature|result)\.json|(metrics|episodes|calibration|curves|tuning)\.csv"
    r"|checkpoints/(best|step-\d{1,12})\.npz|evaluations/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(json|csv))"
)
UNPACKING = ".unpacking-"  # how the name of a folder begins that `metarun unpack` has not finished


def folders_below(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder below `folder`, itself first, with the names of its folders and of its files, like os.walk.

    The caller may remove names of folders that shall not be visited. Symbolic links are followed, but no folder is
    visited twice. Runs that --fresh has set aside (seed-0~1) and those that are being unpacked are left out. So is a
    folder that cannot be read, with a warning.
    """
    seen = set()
    for path, below, files in os.walk(folder, onerror=_tell_unreadable, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not (re.fullmatch(r"seed-\d+~\d+", name) or name.startswith(UNPACKING))]
        yield Path(path), below, files


def _tell_unreadable(error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # renamed or removed meanwhile
        warn_once(f"{error.filename} cannot be read ({error.strerror}): what is in it is left out")


def runs_below(folders: Sequence[Path]) -> list[RunDirectory]:
    """Return all runs in and below the folders, sorted by path, also those whose folder cannot be read."""
    found = set()
    for folder in folders:
        for path, below, files in folders_below(folder):
            if is_run(path, files):
                found.add(path)
                below.clear()
            else:
                found |= {path / name for name in below if SEED.fullmatch(name) and unreadable(path / name)}
    return [RunDirectory(path) for path in sorted(found)]


def closed_below(folders: Sequence[Path]) -> dict[Path, str]:
    """Return why each folder below the folders that cannot be read, and is no run, cannot be read."""
    below = {path / name for each in folders for path, names, _ in folders_below(each) for name in names}
    return {path: why for path in sorted(below) if not SEED.fullmatch(path.name) and (why := unreadable(path))}


def is_run(path: Path, files: Sequence[str]) -> bool:
    """Return whether a folder with these files is a run: it has a row, a spec, or the reason why it has none."""
    return bool(SEED.fullmatch(path.name)) and not {"result.json", "spec.yaml", "failure.txt"}.isdisjoint(files)


def unreadable(folder: Path) -> str | None:
    """Return why the files of a folder cannot be listed; None if they can, or if there is no such folder."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None


class RunDirectory:
    """Name the paths of one run, and lock it."""

    def __init__(self, path: Path):
        self.path = path
        self.spec = path / "spec.yaml"
        self.inputs = path / "inputs.json"
        self.temperature = path / "temperature.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.npz"
        self.partial_tuning = path / "tuning.npz"
        self.partial_test = path / "test.npz"
        self.features = path / "features.npz"
        self.episodes = path / "episodes.csv"
        self.calibration = path / "calibration.csv"
        self.curves = path / "curves.csv"
        self.tuning = path / "tuning.csv"
        self.result = path / ROW
        self.evaluations = path / "evaluations"
        self.tensorboard = path / "tensorboard"
        self.progress = path / "progress.json"
        self.search = path / "search.json"
        self.failure = path / "failure.txt"
        self.restarts = path / "restarts.json"
        self.log = path / "job.log"
        self.afresh = path / "afresh"
        self.lock = path / ".lock"

    @property
    def finished(self) -> bool:
        """Return whether the run has its row."""
        return self.result.is_file()

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint after `step` meta-updates."""
        return self.checkpoints / f"step-{step}.npz"

    def newest_checkpoints(self) -> list[Path]:
        """Return the paths of the step checkpoints, the newest first."""
        found = [
            (int(match[1]), path)
            for path in self.checkpoints.glob("step-*.npz")
            if (match := re.fullmatch(r"step-(\d+)\.npz", path.name))
        ]
        return [path for _, path in sorted(found, reverse=True)]

    @property
    def step(self) -> int:
        """Return the step of the newest step checkpoint, or 0 without one."""
        saved = self.newest_checkpoints()
        return int(saved[0].stem.removeprefix("step-")) if saved else 0

    @property
    def until(self) -> int | None:
        """Return the step at which a search by validation stops the run; None for a run that is tested at its end."""
        return self._searched("until")

    @property
    def selected_of(self) -> int | None:
        """Return the number of configurations among which validation chose the run; None if it was not chosen so."""
        return self._searched("selected_of")

    def _searched(self, key: str) -> int | None:
        try:
            found = json.loads(self.search.read_text(encoding="utf-8"))
            return int(found[key]) if key in found else None
        except (OSError, ValueError, TypeError):
            return None

    @property
    def tested(self) -> int:
        """Return the time when the newest part of a test was written, in nanoseconds of the clock, or 0 without one."""
        files = [self.partial_tuning, self.partial_test, *self.evaluations.glob("*")]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    def drop_old_checkpoints(self) -> None:
        """Delete all but the newest step checkpoints."""
        for path in self.newest_checkpoints()[KEPT_CHECKPOINTS:]:
            path.unlink(missing_ok=True)

    def set_checkpoint_aside(self, path: Path) -> Path:
        """Rename a checkpoint that cannot be used to NAME.unusable, and return its new path."""
        return path.rename(path.with_name(f"{path.name}.unusable"))

    def set_aside(self) -> Path:
        """Rename the folder to NAME~1, NAME~2, ..., so that a fresh run can start, and return its new path."""
        number = 1
        while (target := self.path.with_name(f"{self.path.name}~{number}")).exists():
            number += 1
        self.path.rename(target)
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the run inside the block, and delete temporary files that a killed process has left.

        Raises InUse if another process, on this host or on one that shares the disk, holds it.
        """
        try:
            with lock.locked(self.lock):
                for folder in (self.path, self.checkpoints, self.evaluations):
                    drop_unfinished(folder)
                yield
        except lock.Held as holder:
            raise InUse(f"{self.path} is in use by {holder}: wait for it, or choose another --out") from None

    def row_of(self, trained: Experiment, experiment: Experiment, split: str = "test", judged: str = "") -> Path:
        """Return the path of the row of a test: result.json for the run's own test, else a file in evaluations/.

        Args:
            trained: the experiment of the run.
            experiment: the experiment with the test that is asked for.
            split: the split that the test measures.
            judged: what it judges besides the answers, see `Row.judged`.
        """
        name = _name(experiment, split) + (f"-{judged}" if judged else "")
        own = name == _name(trained, "test")
        return self.result if own else self.evaluations / f"{name}.json"


def _name(experiment: Experiment, split: str) -> str:
    """Return a file name of everything that may differ between two measurements of a run."""
    test, steps = experiment.test, experiment.tested_steps
    inner = "" if steps is None else f"-{steps}steps"
    protocol = f"-{experiment.protocol}" if experiment.protocol else ""
    few_shot = f"-{test.way}way-{test.shot}shot-{test.query}query{protocol}"
    tasks = "" if experiment.kind.plays_trials else few_shot
    elsewhere = f"-on-{experiment.elsewhere}" if experiment.elsewhere else ""
    head = f"-{experiment.headed}" if test.head else ""
    return f"{split}{elsewhere}{tasks}{head}-{test.checkpoint}{inner}-{test.episodes}episodes-seed{test.episode_seed}"
