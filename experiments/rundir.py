"""A run directory: the only owner of the paths inside a run.

spec.yaml         resolved and complete, itself a valid spec
environment.json  versions, commit, host, devices, command line
metrics.csv       one line a log point and a validation
checkpoints/      step-N.npz, the newest two, and best.npz by validation
episodes.csv      one line a test episode
calibration.csv   of classifiers: one line a bin of confidence, sums over the test queries
curves.csv        of trials: one line a step, means over the test trials
tuning.csv        of classical methods: one line a value of the parameter
result.json       the row; written last: its presence means finished
evaluations/      a row and its episodes for each `metarun evaluate`
tensorboard/      the scalars of metrics.csv
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RunError

KEPT_CHECKPOINTS = 2


class RunDirectory:
    """Every path of one run, and its lock."""

    def __init__(self, path: Path):
        self.path = path
        self.spec = path / "spec.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.npz"
        self.episodes = path / "episodes.csv"
        self.calibration = path / "calibration.csv"
        self.curves = path / "curves.csv"
        self.tuning = path / "tuning.csv"
        self.result = path / "result.json"
        self.evaluations = path / "evaluations"
        self.tensorboard = path / "tensorboard"

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

    def drop_old_checkpoints(self) -> None:
        """Keep the newest ones only."""
        for path in self.newest_checkpoints()[KEPT_CHECKPOINTS:]:
            path.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Rename what is there to NAME~1, NAME~2, ...: a fresh run starts, nothing is lost."""
        number = 1
        while (target := self.path.with_name(f"{self.path.name}~{number}")).exists():
            number += 1
        self.path.rename(target)
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; RunError where another process, on this host or one that shares the disk, holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise RunError(f"{self.path} is in use by {holder}: wait for it, or choose another --out") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
