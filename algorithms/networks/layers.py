"""Layers for a batch of tasks: tensors carry a task axis, `[T, N, ...]`, and parameters may carry one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import tensorflow as tf

from ..programs import Size, compiled, program, sizes

SMALL = 750_000  # values of one task that its convolution reads as patches: 3 MB
LARGE = 1_000_000  # values of one task that one batch norm normalises
LEAK = 0.1  # slope of a leaky ReLU below 0
Activation = Literal["relu", "leaky_relu"] | None
Block = Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def convolution(x: tf.Tensor, kernel: tf.Tensor | tf.Variable, stride: int, fuse: bool = False) -> tf.Tensor:
    """Apply a 3x3 convolution with zero padding ("same"), `[T, N, H, W, C]` -> `[T, N, H', W', F]`.

    A shared kernel `[3, 3, C, F]` is one ordinary convolution. For a kernel per task `[T, 3, 3, C, F]` see
    `TaskConvolution`.
    """
    if kernel.shape.rank == 5:
        return TaskConvolution(sizes(x), tuple(kernel.shape), stride, fuse).outputs(x, kernel)
    tasks, examples, *image = sizes(x)
    y = tf.nn.conv2d(tf.reshape(x, (tasks * examples, *image)), kernel, stride, "SAME")
    return tf.reshape(y, (tasks, examples, *y.shape[1:]))


class TaskConvolution:
    """Apply convolutions with one kernel per task: x `[T, N, H, W, C]`, kernel `[T, 3, 3, C, F]`, y `[T, N, H', W',
    F]`.

    The convolution, its gradient for the image and its gradient for the kernel are each linear in two arguments, and
    each is the derivative of another. Written in that form, they have derivatives of every order.

    The images of small tasks are laid out as patches, which makes T convolutions one batched product of matrices. The
    patches of large tasks would not fit the processor's caches, and one ordinary convolution per task is faster.

    Where only a call decides N, as in an exported program, patches give the bits that they give for a known N.
    """

    def __init__(self, x_shape: tuple[Size, ...], kernel_shape: tuple[int, ...], stride: int, fuse: bool):
        self.x_shape, self.kernel_shape, self.stride, self.fuse = x_shape, kernel_shape, stride, fuse
        tasks, examples, height, width, channels = x_shape
        self.rows, self.columns, self.filters = -(-height // stride), -(-width // stride), kernel_shape[-1]
        self.small = not fuse or examples * self.rows * self.columns * 9 * channels < SMALL
        self.y_shape = (tasks, examples, self.rows, self.columns, self.filters)

    def outputs(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return y."""
        return _bilinear(self._outputs, self.input_gradient, self.kernel_gradient)(x, kernel)

    def input_gradient(self, dy: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return dx."""

        def for_kernel(dy: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
            return self.kernel_gradient(u, dy)

        return _bilinear(self._input_gradient, self.outputs, for_kernel)(dy, kernel)

    def kernel_gradient(self, x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        """Return dkernel."""

        def for_x(u: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
            return self.input_gradient(dy, u)

        return _bilinear(self._kernel_gradient, for_x, self.outputs)(x, dy)

    def _outputs(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.small:
            return tf.reshape(tf.matmul(self._patches(x), self._as_matrix(kernel)), self.y_shape)
        return self._each(lambda x, kernel: tf.nn.conv2d(x, kernel, self.stride, "SAME"), x, kernel)

    def _input_gradient(self, dy: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.small:
            spread = tf.matmul(self._flat(dy), self._as_matrix(kernel), transpose_b=True)
            return self._patches_gradient(spread)
        return self._each(self._convolution_gradient("Input", "input_sizes", self.x_shape[1:]), kernel, dy)

    def _kernel_gradient(self, x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        if self.small:
            summed = tf.matmul(self._patches(x), self._flat(dy), transpose_a=True)
            return tf.reshape(summed, self.kernel_shape)
        return self._each(self._convolution_gradient("Filter", "filter_sizes", self.kernel_shape[1:]), x, dy)

    def _patches(self, x: tf.Tensor) -> tf.Tensor:
        return (gathered_patches if self.fuse else patches)(x, self.stride)

    def _patches_gradient(self, spread: tf.Tensor) -> tf.Tensor:
        return (FUSED_PATCHES_GRADIENT if self.fuse else patches_gradient)(spread, self.x_shape, self.stride)

    def _flat(self, dy: tf.Tensor) -> tf.Tensor:
        return tf.reshape(dy, (self.y_shape[0], -1, self.filters))

    def _as_matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        return tf.reshape(kernel, (self.kernel_shape[0], -1, self.filters))

    def _each(self, function: Callable[..., tf.Tensor], first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.stack([function(first[task], second[task]) for task in range(self.x_shape[0])])

    def _convolution_gradient(self, of: str, sizes: str, shape: tuple[int, ...]) -> Callable[..., tf.Tensor]:
        operation, strides = getattr(tf.raw_ops, f"Conv2DBackprop{of}"), [1, self.stride, self.stride, 1]
        other = "filter" if of == "Input" else "input"

        def gradient(argument: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
            arguments = {sizes: shape, other: argument}
            return operation(**arguments, out_backprop=dy, strides=strides, padding="SAME")

        return gradient


def patches(x: tf.Tensor, stride: int) -> tf.Tensor:
    """Return the values of each 3x3 window, `[T, N, H, W, C]` -> `[T, N * H' * W', 9 * C]`, zeros around the image."""
    tasks, examples, height, width, channels = sizes(x)
    rows, columns, padding = _windows(height, width, stride)
    x = tf.pad(x, [[0, 0], [0, 0], *padding, [0, 0]])
    shifted = [
        x[:, :, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    return tf.reshape(tf.concat(shifted, axis=-1), (tasks, examples * rows * columns, 9 * channels))


def gathered_patches(x: tf.Tensor, stride: int) -> tf.Tensor:
    """Return `patches` by copying pixel after pixel: three times as fast on a CPU, outside of XLA."""
    tasks, examples, height, width, channels = x.shape
    rows, columns, padding = _windows(height, width, stride)
    pixels = np.pad(np.arange(height * width).reshape(height, width), padding, constant_values=height * width)
    seen = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3))[::stride, ::stride]
    flat = tf.reshape(x, (tasks * examples, height * width, channels))
    with_border = tf.pad(flat, [[0, 0], [0, 1], [0, 0]])  # one more pixel, 0
    return tf.reshape(tf.gather(with_border, seen.ravel(), axis=1), (tasks, examples * rows * columns, 9 * channels))


def _windows(height: int, width: int, stride: int) -> tuple[int, int, list[list[int]]]:
    """Return rows and columns of 3x3 windows with "same" padding, and the padding [[above, below], [left, right]]."""
    rows, columns = -(-height // stride), -(-width // stride)
    missing = (max(0, (rows - 1) * stride + 3 - height), max(0, (columns - 1) * stride + 3 - width))
    return rows, columns, [[each // 2, each - each // 2] for each in missing]


def patches_gradient(spread: tf.Tensor, shape: tuple[Size, ...], stride: int) -> tf.Tensor:
    """Return the adjoint of `patches`, `[T, N, H, W, C]`: every window's values are added where they came from."""
    x = tf.zeros(shape)  # sums of bfloat16 numbers in float32
    x = tf.cast(x, tf.float64) if spread.dtype == tf.float64 else x
    with tf.GradientTape() as tape:
        tape.watch(x)
        seen = patches(x, stride)
    return tf.cast(tape.gradient(seen, x, output_gradients=tf.cast(spread, x.dtype)), spread.dtype)


FUSED_PATCHES_GRADIENT = program(patches_gradient, jit_compile=True)


def normalised_block(
    x: tf.Tensor,
    scale: tf.Tensor | None,
    offset: tf.Tensor,
    *,
    groups: int,
    epsilon: float,
    pool: str | None,
    fuse: bool,
    activation: Activation = "relu",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply batch norm, the activation and, unless `pool` is None, max-pooling.

    Args:
        x: `[T, N, ..., C]`.
        scale: `[C]`, `[T, C]` or None.
        offset: `[C]` or `[T, C]`.
        groups: The number G of groups of the N examples, each normalised by itself.
        epsilon: Added to the variance.
        pool: The padding of the max-pooling, "same" or "valid", or None.
        fuse: Whether XLA compiles the block.
        activation: "relu", "leaky_relu" or None.

    Returns:
        The result, and the mean and variance `[T, G, C]`.
    """
    parameters = (offset,) if scale is None else (offset, scale)
    if not fuse:
        return _block(groups, epsilon, pool, activation)(x, *parameters)
    large = groups == 1 and x.dtype != tf.float64 and math.prod(x.shape[1:]) > LARGE
    return _fused_block(groups, epsilon, pool, activation, large)(x, *parameters)


def _block(groups: int, epsilon: float, pool: str | None, activation: Activation) -> Block:
    def block(x: tf.Tensor, offset: tf.Tensor, scale: tf.Tensor | None = None):
        y, mean, variance = batch_norm(x, scale, offset, groups, epsilon)
        return activate_and_pool(y, pool, shared=False, activation=activation), mean, variance

    return block


def _block_of_each(epsilon: float, pool: str | None, activation: Activation) -> Block:
    """Return `_block` for one task after another with the library's kernels, which are the fastest where a task is
    large.
    """

    def block(x: tf.Tensor, offset: tf.Tensor, scale: tf.Tensor | None = None):
        tasks = x.shape[0]
        offsets, scales = _of_each(offset, tasks), [None] * tasks if scale is None else _of_each(scale, tasks)
        y, means, variances = [], [], []
        for alone, scale_of, offset_of in zip(tf.split(x, tasks), scales, offsets, strict=True):
            normalised, mean, variance = batch_norm(alone, scale_of, offset_of, 1, epsilon)
            y.append(activate_and_pool(normalised, pool, shared=True, activation=activation))
            means.append(mean)
            variances.append(variance)
        return tf.concat(y, 0), tf.concat(means, 0), tf.concat(variances, 0)

    return block


def _of_each(parameter: tf.Tensor, tasks: int) -> list[tf.Tensor]:
    return [parameter] * tasks if parameter.shape.rank == 1 else tf.unstack(parameter)


@functools.cache
def _fused_block(groups: int, epsilon: float, pool: str | None, activation: Activation, large: bool) -> Block:
    by_library = _block_of_each(epsilon, pool, activation) if large else None
    return compiled(_block(groups, epsilon, pool, activation), by_library)


def _bilinear(
    function: Callable[..., tf.Tensor], for_first: Callable[..., tf.Tensor], for_second: Callable[..., tf.Tensor]
) -> Callable[..., tf.Tensor]:
    """Return function(a, b) with the gradients for_first(u, b) and for_second(a, u), where u comes from upstream."""

    @tf.custom_gradient
    def call(a: tf.Tensor, b: tf.Tensor):
        return function(tf.stop_gradient(a), tf.stop_gradient(b)), lambda u: (for_first(u, b), for_second(a, u))

    return call


def activate_and_pool(x: tf.Tensor, pool: str | None, shared: bool, activation: Activation = "relu") -> tf.Tensor:
    """Apply the activation and, unless `pool` is None, max-pooling with that padding; see `max_pool`.

    The activations here never fall, so that the maximum may be taken first: the same bits from a quarter of the values.
    The gradient goes to the first of equal values. For ReLU these are the same, or it is 0. A leaky ReLU can round two
    values below 0 to one, and then it is the larger that has the gradient here.
    """
    x = x if pool is None else max_pool(x, pool, shared)
    if activation is None:
        return x
    return tf.nn.relu(x) if activation == "relu" else tf.nn.leaky_relu(x, LEAK)


def max_pool(x: tf.Tensor, padding: str, shared: bool) -> tf.Tensor:
    """Take the maximum of 2x2 pixels with stride 2, `[T, N, H, W, C]`.

    Args:
        x: The images.
        padding: "same" keeps an odd last row and column, "valid" drops it.
        shared: Whether to use the library's fast kernel on a CPU, whose second derivative XLA does not know in every
            precision. Otherwise the maximum is taken of shifted slices: on a GPU XLA has no derivative of the kernel
            that gives equal bits twice.
    """
    tasks, examples, height, width, channels = sizes(x)
    if shared and not tf.config.list_physical_devices("GPU"):
        flat = tf.reshape(x, (tasks * examples, height, width, channels))
        pooled = tf.nn.max_pool2d(flat, 2, 2, padding.upper())
        return tf.reshape(pooled, (tasks, examples, *pooled.shape[1:]))
    if padding == "same":
        bottom, right = height % 2, width % 2
        x = tf.pad(x, [[0, 0], [0, 0], [0, bottom], [0, right], [0, 0]], constant_values=x.dtype.min)
        height, width = height + bottom, width + right
    rows = tf.maximum(x[:, :, 0 : height - 1 : 2], x[:, :, 1:height:2])
    return tf.maximum(rows[:, :, :, 0 : width - 1 : 2], rows[:, :, :, 1:width:2])


def batch_norm(
    x: tf.Tensor, scale: tf.Tensor | None, offset: tf.Tensor, groups: int, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise `[T, N, ..., C]` within each task and group; also return the moments `[T, G, C]` (biased variance).

    Moments and parameters have the precision of `offset`. x may be bfloat16, and then so is the result.
    """
    tasks, channels = x.shape[0], x.shape[-1]
    if tasks * groups == 1 and offset.shape.rank == 1 and offset.dtype == tf.float32:
        scale = tf.ones_like(offset) if scale is None else scale
        flat = tf.reshape(x, (1, -1, 1, channels))
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        examples = sizes(flat)[1]
        share = tf.cast((examples - 1) / examples, variance.dtype)
        biased = variance * share  # which the kernel normalises by; it returns the unbiased one
        return tf.reshape(y, sizes(x)), mean[None, None], biased[None, None]
    grouped = tf.cast(tf.reshape(x, (tasks, groups, -1, channels)), offset.dtype)
    mean = tf.reduce_mean(grouped, axis=2, keepdims=True)
    # not tf.nn.moments: it stops the gradient of the mean inside the variance, which spoils second derivatives
    variance = tf.reduce_mean(tf.square(grouped - mean), axis=2, keepdims=True)
    gain = tf.math.rsqrt(variance + epsilon)
    if scale is not None:
        gain *= over_examples(scale, 4)
    y = (grouped - mean) * gain + over_examples(offset, 4)
    return tf.cast(tf.reshape(y, sizes(x)), x.dtype), mean[:, :, 0], variance[:, :, 0]


def over_examples(parameter: tf.Tensor | tf.Variable, rank: int) -> tf.Tensor:
    """Return `[C]` or `[T, C]` in a shape that broadcasts with a tensor `[T, ..., C]` of this rank."""
    if parameter.shape.rank == 1:
        return tf.convert_to_tensor(parameter)
    tasks, channels = parameter.shape
    return tf.reshape(parameter, (tasks, *[1] * (rank - 2), channels))
