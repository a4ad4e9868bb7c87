"""The residual network of twelve convolutions of MetaOptNet (Lee et al. 2019, https://arxiv.org/abs/1904.03758).

    block(x) = drop(pool(phi(norm(conv(phi(norm(conv(phi(norm(conv(x)))))))) + norm(shortcut(x)))))

There are four blocks. conv has 3x3 kernels, shortcut 1x1, and none has a bias; phi is a leaky ReLU, pool the maximum of
2x2 pixels. The features are the last maps, flattened; with `features: mean` their means over space, as in other papers.

drop acts in training alone, with random numbers that are a function of the task (`noise`). In blocks 1 and 2 it is
dropout, in 3 and 4 DropBlock (Ghiasi, Lin and Le 2018, https://arxiv.org/abs/1810.12890): in each channel of a map of
f x f values, squares of s x s are dropped, whose corners are drawn with probability

    gamma = rate / s^2 * f^2 / (f - s + 1)^2 .

Where f <= s the square is the map, and whole channels are dropped with probability `rate`.

Deviations from the paper's code, and why. The rate is the same from the first step on; in the code it grows linearly
over the first 40,000 forward passes, a count that depends on the number of devices. What DropBlock keeps is rescaled by
the share that is kept in the task, so that a task does not depend on the others; in the code in the whole batch of
tasks, support and queries apart. Here support and queries of a task are one batch for batch norm too.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from ...datasets.errors import DataError
from ...datasets.random import TaskKeys
from ..programs import sizes
from .feedforward import BuiltInNetwork, Moments, Parameters, dense, he_by_outputs
from .layers import Activation, activate_and_pool, convolution
from .options import ResNet12Options


class ResNet12(BuiltInNetwork):
    """Apply four residual blocks of three 3x3 convolutions to images `[T, N, H, W, C]`; then a linear layer."""

    options: ResNet12Options

    def __init__(
        self,
        options: ResNet12Options,
        input_shape: tuple[int, ...],
        outputs: int | None,
        precision: str,
        seed: int,
        fuse: bool = False,
    ):
        super().__init__(options, precision, seed, fuse)
        if len(input_shape) != 3:
            raise DataError(f"resnet12 takes images, but the inputs have shape {list(input_shape)}: use mlp")
        self.drops = options.drop_rate > 0  # `apply` takes `noise`
        height, width, channels = input_shape
        layers = []
        for block, filters in enumerate(options.widths, start=1):
            first = channels
            for number in convolutions(block):
                self._add_layer(f"conv{number}", (3, 3, channels, filters), number)
                layers.append(height * width * 9 * channels * filters)
                channels = filters
            self._add_layer(f"shortcut{block}", (first, filters), 12 + block)
            layers.append(height * width * first * filters)
            height, width = height // 2, width // 2
        if height == 0 or width == 0:
            raise DataError(
                f"images of {input_shape[0]}x{input_shape[1]} are too small for resnet12, which halves them four "
                "times: use larger ones"
            )
        self.features = channels * (height * width if options.features == "flatten" else 1)
        if outputs is not None:
            self._parameter(
                "head/kernel", (self.features, outputs), keras.initializers.GlorotUniform(next(self._seeds))
            )
            self._parameter("head/bias", (outputs,), keras.initializers.Zeros())
            layers.append(self.features * outputs)
        self.layers = tuple(layers)

    def _add_layer(self, name: str, shape: tuple[int, ...], norm: int) -> None:
        """Add a kernel with He et al.'s initial values (2015, by the outputs, as the paper's code), and batch norm."""
        self._parameter(f"{name}/kernel", shape, he_by_outputs(next(self._seeds)))
        self._add_norm(norm, shape[-1], keras.initializers.Ones())

    def apply(
        self,
        parameters: Parameters,
        x: tf.Tensor,
        *,
        groups: int = 1,
        running: bool = False,
        noise: TaskKeys | None = None,
    ) -> tuple[tf.Tensor, Moments]:
        """Return the outputs, see `__call__`, and the batch moments of each batch norm (empty with `running`).

        Args:
            parameters: Values of all parameters, shared or per task.
            x: The images.
            groups: The number of equal groups of the N examples that batch norm treats separately.
            running: Whether batch norm uses its running averages.
            noise: The keys of the T tasks, which decide what is dropped. None: nothing is, as in tests.
        """
        moments: Moments = {}
        activation: Activation = self.options.activation
        shared = parameters["conv1/kernel"].shape.rank == 4

        def normalised(number: int, x: tf.Tensor, activation: Activation) -> tf.Tensor:
            return self._normalise(parameters, number, x, groups, running, moments, activation=activation)

        x = tf.cast(x, self.activations)
        for block in range(1, 5):
            shortcut = normalised(12 + block, pointwise(parameters, f"shortcut{block}", x), None)
            *_, last = convolutions(block)
            for number in convolutions(block):
                kernel = tf.cast(parameters[f"conv{number}/kernel"], self.activations)
                x = normalised(number, convolution(x, kernel, 1, self.fuse), activation if number < last else None)
            x = activate_and_pool(x + shortcut, "valid", shared, activation)
            if noise is not None:
                x = self._dropped(x, block, noise.numbered(block))
        return self._read_out(parameters, x, self.options.features == "mean"), moments

    def _dropped(self, x: tf.Tensor, block: int, keys: TaskKeys) -> tf.Tensor:
        rate, side = self.options.drop_rate, self.options.drop_block
        if block <= 2:
            return dropout(x, rate, keys)
        return x if side is None else drop_block(x, rate, side, keys)


def convolutions(block: int) -> range:
    """Return the numbers of the 3x3 convolutions of a block, from 1."""
    return range(3 * block - 2, 3 * block + 1)


def pointwise(parameters: Parameters, layer: str, x: tf.Tensor) -> tf.Tensor:
    """Apply a 1x1 convolution, a product over channels, `[T, N, H, W, C]` -> `[T, N, H, W, F]`."""
    tasks, examples, height, width, channels = sizes(x)
    y = dense(parameters, layer, tf.reshape(x, (tasks, examples * height * width, channels)))
    return tf.reshape(y, (tasks, examples, height, width, y.shape[-1]))


def dropout(x: tf.Tensor, rate: float, keys: TaskKeys) -> tf.Tensor:
    """Return x `[T, N, ...]` with a share `rate` of zeros, the others divided by 1 - rate (Srivastava et al. 2014)."""
    dropped = keys.bernoulli("dropout", rate, *x.shape[1:])
    return tf.where(dropped, tf.zeros_like(x), x / (1 - rate))


def drop_block(x: tf.Tensor, rate: float, side: int, keys: TaskKeys) -> tf.Tensor:
    """Return maps `[T, N, H, W, C]` with squares of each channel 0, the others divided by the share kept in the task.

    Args:
        x: The maps.
        rate: The share that is dropped, if squares did not overlap.
        side: The side of the squares; at most that of the map is used.
        keys: The keys of the tasks.
    """
    tasks, examples, height, width, channels = x.shape
    high, wide = min(side, height), min(side, width)
    rows, columns = height - high + 1, width - wide + 1  # of corners
    gamma = min(1.0, rate / (high * wide) * (height * width) / (rows * columns))
    corners = keys.bernoulli("dropblock", gamma, examples, rows, columns, channels)
    exact = tf.float64 if x.dtype == tf.float64 else tf.float32
    marks = tf.cast(tf.reshape(corners, (tasks * examples, rows, columns, channels)), exact)
    around = [[0, 0], [high - 1, high - 1], [wide - 1, wide - 1], [0, 0]]
    dropped = tf.nn.max_pool2d(tf.pad(marks, around), (high, wide), 1, "VALID")  # whether a square reaches a pixel
    kept = 1 - tf.reshape(dropped, x.shape)
    share = tf.reduce_sum(kept, axis=[1, 2, 3, 4], keepdims=True) / math.prod(x.shape[1:])
    return x * tf.cast(tf.math.divide_no_nan(kept, share), x.dtype)
