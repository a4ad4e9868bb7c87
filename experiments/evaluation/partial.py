"""The part of a test that is done, on the disk: a test that is stopped goes on with the tasks that are left."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..config.experiment import Experiment
from ..errors import RunError
from ..runs import checkpoint


class PartialTest:
    """The file `path`, of one test of one model; what another one has left there is not taken up."""

    def __init__(self, path: Path, experiment: Experiment, variables: Sequence[tf.Variable], content_digest: str):
        digest = hashlib.sha256(f"{experiment.digest} {content_digest}".encode())
        for variable in variables:
            digest.update(variable.numpy().tobytes())
        self.path, self.digest, self._saved = path, digest.hexdigest(), 0
        self._next = time.monotonic() + checkpoint.SECONDS_BETWEEN

    def restore(self, arrays: Sequence[np.ndarray]) -> int:
        """Fill `arrays` `[calls, ...]` with what is done; of how many calls. 0 without a whole file of this test."""
        try:
            state, done = checkpoint.read(self.path)
        except RunError:
            return 0
        if state.get("digest") != self.digest or [each.shape for each in done] != [each.shape for each in arrays]:
            return 0
        for array, values in zip(arrays, done, strict=True):
            array[:] = values
        self._saved = state["calls"]
        return self._saved

    def keep(self, arrays: Sequence[np.ndarray], calls: int) -> None:
        """Write what is done, where the last time was long ago."""
        if time.monotonic() >= self._next:
            self.save(arrays, calls)

    def save(self, arrays: Sequence[np.ndarray], calls: int) -> None:
        """Write what is done; nothing where the file has it, whose age tells whether a run makes progress."""
        if calls > self._saved:
            checkpoint.save(self.path, arrays, {"digest": self.digest, "calls": calls})
            self._saved = calls
        self._next = time.monotonic() + checkpoint.SECONDS_BETWEEN

    def drop(self) -> None:
        """The test is done and its row is written."""
        self.path.unlink(missing_ok=True)
