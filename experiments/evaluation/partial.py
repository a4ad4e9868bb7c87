"""Keep on the disk what a test has computed: its finished part, and the features of all images of a split.

A test that was stopped resumes with the tasks that are left, and further tests of the same weights start from the
features.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf

from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import RunError, warn
from ..model import Model
from ..runs import checkpoint

MOST_BYTES = 2**28  # of features in a file
ROOM_FOR_STATE = 2**16  # bytes of a file that are no features


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


class FeatureFile:
    """Keep the features of one split under one set of weights in a file. A file of others is ignored, and replaced."""

    def __init__(self, path: Path, trained: Experiment, model: Model, split: Split):
        """Prepare the file.

        Args:
            path: the file.
            trained: the experiment as it was trained.
            model: the model, with the weights and the dataset that are tested.
            split: the split of the images.
        """
        tested = model.experiment
        values = [trained.training_digest, tested.tested_values, split, tested.test_plugins, version("metarun")]
        values += [model.content_digest, checkpoint.digest_of(model.learner.variables)]
        self.path, self.digest = path, hashlib.sha256(json.dumps(values).encode()).hexdigest()
        self._computed: tf.Tensor | None = None

    def read(self, first: tf.Tensor, count: int) -> tf.Tensor | None:
        """Return the features `[count, D]` in the file; None without a whole file of these weights and images.

        Args:
            first: the features of the first images `[n, D]`, computed anew. Others in the file, beyond rounding, are of
                another version of the program, and the file is ignored.
            count: the number of images.
        """
        try:
            if self.path.stat().st_size > MOST_BYTES + ROOM_FOR_STATE:
                return None
            state, arrays = checkpoint.read(self.path)
        except (RunError, OSError):
            return None
        if state.get("digest") != self.digest or len(arrays) != 1:
            return None
        (features,), computed = arrays, first.numpy()
        if features.shape != (count, computed.shape[1]) or features.dtype != computed.dtype:
            return None
        tolerance = 1e-8 if computed.dtype == np.float64 else 1e-3
        if not np.allclose(features[: len(computed)], computed, tolerance, tolerance * np.abs(computed).max()):
            return None
        return tf.constant(features)

    def take(self, features: tf.Tensor) -> None:
        """Take features `[N, D]` that a test has computed, to be kept by `save`."""
        self._computed = features

    def save(self) -> None:
        """Write the features that were taken, unless they are many. A disk or a memory without room is no failure."""
        features = self._computed
        if features is None or features.shape.num_elements() * features.dtype.size > MOST_BYTES:
            return
        try:
            checkpoint.save(self.path, [features.numpy()], {"digest": self.digest})
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or str(error) or "out of memory"
            warn(f"{self.path}: the features of the test are not kept ({why})")
