"""Keep the finished part of a test on the disk: a test that was stopped resumes with the tasks that are left."""

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
    """Keep the finished part of one test of one model in a file. A file of another test or model is ignored."""

    def __init__(self, path: Path, experiment: Experiment, variables: Sequence[tf.Variable], content_digest: str):
        """Prepare the file of a test.

        Args:
            path: the file.
            experiment: the experiment, with the test.
            variables: the weights that are tested.
            content_digest: digest of the data.
        """
        digest = hashlib.sha256(f"{experiment.digest} {content_digest}{experiment.test_plugins}".encode())
        for variable in variables:
            digest.update(variable.numpy().tobytes())
        self.path, self.digest, self._saved = path, digest.hexdigest(), 0
        self._next = time.monotonic() + checkpoint.SECONDS_BETWEEN

    def restore(self, arrays: Sequence[np.ndarray]) -> int:
        """Fill `arrays` `[calls, ...]` with the finished values, and return the number of finished calls.

        Returns 0 without a whole file of this test.
        """
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
        """Write the file if the last time was long enough ago. Arguments as in `save`."""
        if time.monotonic() >= self._next:
            self.save(arrays, calls)

    def save(self, arrays: Sequence[np.ndarray], calls: int) -> None:
        """Write the values of the first `calls` calls in `arrays` `[calls, ...]`.

        A file that holds them already is not written again: its age shows whether a run makes progress.
        """
        if calls > self._saved:
            checkpoint.save(self.path, arrays, {"digest": self.digest, "calls": calls})
            self._saved = calls
        self._next = time.monotonic() + checkpoint.SECONDS_BETWEEN

    def drop(self) -> None:
        """Delete the file, once the row of the test is written."""
        self.path.unlink(missing_ok=True)
