"""Sinusoid regression (Finn et al. 2017, section 5.1): y = A sin(x - phase).

A, phase and x are uniform (paper: [0.1, 5], [0, pi], [-5, 5]). "way" is 1; a task has `shot` support points and
`query` query points. Noise is an addition of ours, on the support targets only.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .errors import DataError
from .options import SinusoidOptions
from .random import TaskKeys
from .tasks import Episode, Shape, Split, TaskSource


class SinusoidSource(TaskSource):
    """Sample regression tasks, as a `TaskSource`; x and y have shape [1]."""

    name = "sinusoid"
    regression = True
    content_digest = ""
    in_memory = True
    input_shape: tuple[int, ...] = (1,)
    target_shape: tuple[int, ...] = (1,)

    def __init__(self, options: SinusoidOptions, dtype: str = "float32"):
        self.options = options
        self.dtype = tf.as_dtype(dtype)

    def check(self, split: Split, shape: Shape) -> None:
        """Raise DataError unless way is 1."""
        if shape.way != 1:
            raise DataError(f"sinusoid: {split} way is {shape.way}; a regression task has way 1")

    def sample(self, split: Split, index: tf.Tensor | int, tasks: int, shape: Shape, seed: int) -> Episode:
        """Sample tasks `index` to `index + tasks - 1`, see `TaskSource`."""
        options, points = self.options, shape.shot + shape.query
        keys = TaskKeys.of_stream(seed, split, index, tasks)
        amplitude = keys.uniform("amplitude", 1, low=options.amplitude[0], high=options.amplitude[1])  # [T, 1]
        phase = keys.uniform("phase", 1, low=options.phase[0], high=options.phase[1])
        x = keys.uniform("x", points, low=options.x[0], high=options.x[1])  # [T, points]
        y = amplitude * tf.sin(x - phase)
        if options.noise:
            noise = options.noise * keys.normal("noise", shape.shot)
            y = tf.concat([y[:, : shape.shot] + noise, y[:, shape.shot :]], axis=1)
        drawn = tf.bitcast(tf.cast(tf.concat([amplitude, phase, x, y], axis=1), tf.float32), tf.int32)
        x, y = tf.cast(x, self.dtype)[..., None], tf.cast(y, self.dtype)[..., None]
        return Episode(
            x[:, : shape.shot],
            y[:, : shape.shot],
            x[:, shape.shot :],
            y[:, shape.shot :],
            tf.zeros((tasks, 0), tf.int32),
            drawn,
        )

    def wave(self, batch: Episode, x: np.ndarray) -> np.ndarray:
        """Return the noiseless targets `[T, N]` of the tasks of a batch at `x` `[N]`."""
        amplitude, phase = np.split(tf.bitcast(batch.drawn[:, :2], tf.float32).numpy(), 2, axis=1)  # [T, 1] each
        return amplitude * np.sin(x - phase)


def build(options: SinusoidOptions, dtype: str = "float32") -> SinusoidSource:
    """Build the source of a spec."""
    return SinusoidSource(options, dtype)
