"""A run directory: the only owner of the paths inside a run.

spec.yaml         resolved and complete, itself a valid spec
environment.json  versions, commit, host, devices, command line
metrics.csv       one line a log point and a validation
checkpoints/      step-N.npz, the newest two, and best.npz by validation
tuning.npz        while a classical method is tuned and tested: the rewards of the values that were tried
test.npz          while it is tested: the test episodes that are done
episodes.csv      one line a test episode
calibration.csv   of classifiers: one line a bin of confidence, sums over the test queries
curves.csv        of trials: one line a step, means over the test trials
tuning.csv        of classical methods: one line a value of the parameter
result.json       the row; written last: its presence means finished
evaluations/      a row and its episodes for each `metarun evaluate`
tensorboard/      the scalars of metrics.csv
progress.json     while it trains: step, steps, steps a second
failure.txt       why the last attempt failed, in one line
job.log           what the last job that ran it printed
afresh            there where it was started with --fresh: it goes on from no shorter run
restarts.json     how often the scheduler started it again at the same step
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.experiment import Experiment
from ..errors import InUse
from ..system import lock

KEPT_CHECKPOINTS = 2


def folders_below(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk, the folder itself first: each folder, the folders in it, of which the caller may take some away, and
    its files. Symbolic links are followed, once; runs that --fresh set aside (seed-0~1) are left out."""
    seen = set()
    for path, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not re.fullmatch(r"seed-\d+~\d+", name)]
        yield Path(path), below, files


class RunDirectory:
    """Every path of one run, and its lock."""

    def __init__(self, path: Path):
        self.path = path
        self.spec = path / "spec.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.npz"
        self.partial_tuning = path / "tuning.npz"
        self.partial_test = path / "test.npz"
        self.episodes = path / "episodes.csv"
        self.calibration = path / "calibration.csv"
        self.curves = path / "curves.csv"
        self.tuning = path / "tuning.csv"
        self.result = path / "result.json"
        self.evaluations = path / "evaluations"
        self.tensorboard = path / "tensorboard"
        self.progress = path / "progress.json"
        self.failure = path / "failure.txt"
        self.restarts = path / "restarts.json"
        self.log = path / "job.log"
        self.afresh = path / "afresh"
        self.lock = path / ".lock"

    @property
    def finished(self) -> bool:
        """Whether the run has its row."""
        return self.result.is_file()

    def checkpoint(self, step: int) -> Path:
        """The checkpoint after `step` meta-updates."""
        return self.checkpoints / f"step-{step}.npz"

    def newest_checkpoints(self) -> list[Path]:
        """Step checkpoints, the newest first."""
        found = [
            (int(match[1]), path)
            for path in self.checkpoints.glob("step-*.npz")
            if (match := re.fullmatch(r"step-(\d+)\.npz", path.name))
        ]
        return [path for _, path in sorted(found, reverse=True)]

    @property
    def step(self) -> int:
        """Of the newest step checkpoint; 0 without one."""
        saved = self.newest_checkpoints()
        return int(saved[0].stem.removeprefix("step-")) if saved else 0

    @property
    def tested(self) -> int:
        """When the newest part of a test was written, as nanoseconds of the clock; 0 without one."""
        files = [self.partial_tuning, self.partial_test, *self.evaluations.glob("*")]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    def drop_old_checkpoints(self) -> None:
        """Keep the newest ones only, and nothing that was not written to its end."""
        killed = self.checkpoints.glob(".*.npz.*")  # in the middle of writing: see `atomic`
        for path in (*self.newest_checkpoints()[KEPT_CHECKPOINTS:], *killed):
            path.unlink(missing_ok=True)

    def set_checkpoint_aside(self, path: Path) -> Path:
        """Rename a checkpoint that cannot be used to NAME.unusable: it is not lost, and not in the way."""
        return path.rename(path.with_name(f"{path.name}.unusable"))

    def set_aside(self) -> Path:
        """Rename what is there to NAME~1, NAME~2, ...: a fresh run starts, nothing is lost."""
        number = 1
        while (target := self.path.with_name(f"{self.path.name}~{number}")).exists():
            number += 1
        self.path.rename(target)
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; InUse where another process, on this host or one that shares the disk, holds it."""
        try:
            with lock.locked(self.lock):
                yield
        except lock.Held as holder:
            raise InUse(f"{self.path} is in use by {holder}: wait for it, or choose another --out") from None


def place(directory: RunDirectory, trained: Experiment, experiment: Experiment, split: str = "test") -> Path:
    """Where the row of a test by `experiment` of a run of `trained` is: the run's own, or one in its evaluations."""
    name = _name(experiment, split)
    own = name == _name(trained, "test")
    return directory.result if own else directory.evaluations / f"{name}.json"


def _name(experiment: Experiment, split: str) -> str:
    """A file name that holds everything that may differ between two measurements of a run."""
    test, algorithm = experiment.test, experiment.algorithm
    steps = getattr(algorithm, "test_inner_steps", None)
    steps = getattr(algorithm, "inner_steps", None) if steps is None else steps
    inner = "" if steps is None else f"-{steps}steps"
    few_shot = f"-{test.way}way-{test.shot}shot-{test.query}query-{experiment.protocol}"
    tasks = "" if experiment.kind.plays_trials else few_shot
    return f"{split}{tasks}-{test.checkpoint}{inner}-{test.episodes}episodes-seed{test.episode_seed}"
