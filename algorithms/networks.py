"""Networks as functions of explicit parameters, for a batch of tasks at once.

`network(parameters, x)` maps `[T, N, *input_shape]` to `[T, N, outputs]`. Each parameter is shared by the
tasks, `[*shape]`, or carries a task axis, `[T, *shape]`: then T networks run as one batched program, which is
what makes second-order meta-gradients fast on any device.

Batch normalisation (Ioffe and Szegedy 2015). By default the statistics are those of the N examples of each
task. With `groups = G` the N examples are G equal groups, each normalised by itself. With `running` they are
the running averages, which `update_running` moves. No bias stands before batch norm, whose offset takes its
place (in the papers' nets that bias has a gradient of exactly zero).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Protocol

import keras
import tensorflow as tf

from ..datasets.errors import DataError
from .options import Conv4Options, MLPOptions, NetworkChoice, NetworkOptions

Parameters = Mapping[str, tf.Tensor | tf.Variable]
Moments = dict[str, tf.Tensor]  # "norm1/mean" and "norm1/variance", [T, G, C]
BLOCKS = 4


class Network(Protocol):
    """What a learner needs of a network."""

    parameters: dict[str, tf.Variable]  # the shared first values
    layers: tuple[int, ...]  # multiply-adds of each layer for one example
    head: frozenset[str]  # names of the last layer's parameters
    norm: frozenset[str]  # names of the scales and offsets of batch norm

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """`[T, N, *input_shape]` -> `[T, N, outputs]`."""
        ...


def build(
    options: NetworkChoice, input_shape: tuple[int, ...], outputs: int | None, dtype: str, seed: int
) -> BuiltInNetwork:
    """The network of a spec; `outputs=None` leaves the last layer away (an embedding)."""
    if isinstance(options, Conv4Options):
        return Conv4(options, input_shape, outputs, dtype, seed)
    return MLP(options, input_shape, outputs, dtype, seed)


class BuiltInNetwork:
    """The layers that conv4 and mlp share."""

    layers: tuple[int, ...]  # multiply-adds of each layer for one example
    features: int  # width of what the last layer reads, or of the embedding where there is no last layer

    def __init__(self, options: NetworkOptions, dtype: str, seed: int):
        self.options = options
        self.dtype = tf.as_dtype(dtype)
        self.parameters: dict[str, tf.Variable] = {}
        self.running: dict[str, tf.Variable] = {}
        self.seed = seed * 1000  # each initializer takes a seed of its own
        self._seeds = itertools.count(self.seed + 100)

    @property
    def head(self) -> frozenset[str]:
        """Names of the last layer's parameters."""
        return frozenset(name for name in self.parameters if name.startswith("head/"))

    @property
    def norm(self) -> frozenset[str]:
        """Names of the scales and offsets of batch norm."""
        return frozenset(name for name in self.parameters if name.startswith("norm"))

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """`[T, N, *input_shape]` -> `[T, N, outputs]`."""
        return self.apply(parameters, x, groups=groups, running=running)[0]

    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """As `__call__`, and the batch moments of each batch norm (empty with `running`)."""
        raise NotImplementedError

    def update_running(self, moments: Moments) -> None:
        """average <- momentum * average + (1 - momentum) * mean over tasks and groups."""
        momentum = self.options.norm_momentum
        for name, value in moments.items():
            average = self.running[name]
            average.assign(momentum * average + (1 - momentum) * tf.reduce_mean(value, axis=[0, 1]))

    def _parameter(self, name: str, shape: tuple[int, ...], initializer: keras.Initializer) -> None:
        self.parameters[name] = tf.Variable(initializer(shape, dtype=self.dtype.name), name=name)

    def _add_norm(self, number: int, width: int) -> None:
        if self.options.norm_scale:
            self._parameter(f"norm{number}/scale", (width,), keras.initializers.Ones())
        self._parameter(f"norm{number}/offset", (width,), keras.initializers.Zeros())
        for name, first in (("mean", tf.zeros), ("variance", tf.ones)):
            self.running[f"norm{number}/{name}"] = tf.Variable(first(width, self.dtype), name=f"norm{number}/{name}")

    def _batch_norm(
        self, parameters: Parameters, number: int, x: tf.Tensor, groups: int, running: bool, moments: Moments
    ) -> tf.Tensor:
        """`[T, N, ..., C]` -> the same shape, normalised over N and the axes after it."""
        offset = parameters[f"norm{number}/offset"]
        scale = parameters.get(f"norm{number}/scale")
        if running:
            mean, variance = self.running[f"norm{number}/mean"], self.running[f"norm{number}/variance"]
            gain = tf.math.rsqrt(variance + self.options.norm_epsilon)
            return (x - mean) * (gain if scale is None else gain * scale) + offset
        normalised, mean, variance = batch_norm(x, scale, offset, groups, self.options.norm_epsilon)
        moments[f"norm{number}/mean"], moments[f"norm{number}/variance"] = mean, variance
        return normalised


class Conv4(BuiltInNetwork):
    """Four blocks of 3x3 convolution, batch norm, ReLU and halving; then features and a linear layer.

    Input `[T, N, H, W, C]`. With downsample = "max_pool" a block is convolution (stride 1), norm, ReLU, 2x2
    max-pool (Vinyals et al. 2016); with "stride" the convolution has stride 2 (Finn et al. 2017, Omniglot).
    """

    options: Conv4Options

    def __init__(self, options: Conv4Options, input_shape: tuple[int, ...], outputs: int | None, dtype: str, seed: int):
        super().__init__(options, dtype, seed)
        height, width, channels = input_shape
        stride = options.downsample == "stride"
        up = stride or options.pool_padding == "same"
        layers = []
        for number in range(1, BLOCKS + 1):
            glorot = keras.initializers.GlorotUniform(next(self._seeds))
            self._parameter(f"conv{number}/kernel", (3, 3, channels, options.filters), glorot)
            if options.batch_norm:
                self._add_norm(number, options.filters)
            else:
                self._parameter(f"conv{number}/bias", (options.filters,), keras.initializers.Zeros())
            halved = ((height + 1) // 2, (width + 1) // 2) if up else (height // 2, width // 2)
            layers.append(math.prod(halved if stride else (height, width)) * 9 * channels * options.filters)
            (height, width), channels = halved, options.filters
        if height == 0 or width == 0:
            raise DataError(
                f"images of {input_shape[0]}x{input_shape[1]} are too small for conv4, which halves them four times: "
                "use larger ones, or network.downsample=stride"
            )
        self.features = channels * (height * width if options.features == "flatten" else 1)
        if outputs is not None:
            head = (
                keras.initializers.GlorotUniform(next(self._seeds))
                if options.head_initializer == "glorot_uniform"
                else keras.initializers.RandomNormal(stddev=1.0, seed=next(self._seeds))
            )
            self._parameter("head/kernel", (self.features, outputs), head)
            self._parameter("head/bias", (outputs,), keras.initializers.Zeros())
            layers.append(self.features * outputs)
        self.layers = tuple(layers)

    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """As `__call__`, and the batch moments of each batch norm (empty with `running`)."""
        options, moments = self.options, {}
        for number in range(1, BLOCKS + 1):
            x = convolution(x, parameters[f"conv{number}/kernel"], 2 if options.downsample == "stride" else 1)
            if options.batch_norm:
                x = self._batch_norm(parameters, number, x, groups, running, moments)
            else:
                x = x + _over_examples(parameters[f"conv{number}/bias"], x.shape.rank)
            x = tf.nn.relu(x)
            if options.downsample == "max_pool":
                x = max_pool(x, options.pool_padding, shared=parameters["conv1/kernel"].shape.rank == 4)
        if options.features == "mean":
            x = tf.reduce_mean(x, axis=[2, 3])  # [T, N, filters]
        else:
            x = tf.reshape(x, (*x.shape[:2], self.features))
        return (_dense(parameters, "head", x) if "head/kernel" in parameters else x), moments


class MLP(BuiltInNetwork):
    """Fully connected layers with ReLU, then a linear one. Input `[T, N, *any]`, flattened."""

    options: MLPOptions

    def __init__(self, options: MLPOptions, input_shape: tuple[int, ...], outputs: int | None, dtype: str, seed: int):
        super().__init__(options, dtype, seed)
        width = math.prod(input_shape)
        products = []
        layers = [(f"dense{number}", units) for number, units in enumerate(options.hidden, start=1)]
        for number, (name, units) in enumerate([*layers, *([("head", outputs)] if outputs else [])], start=1):
            self._parameter(f"{name}/kernel", (width, units), self._initializer())
            if options.batch_norm and name != "head":
                self._add_norm(number, units)
            else:
                self._parameter(f"{name}/bias", (units,), keras.initializers.Zeros())
            products.append(width * units)
            width = units
        self.layers = tuple(products)
        self.features = options.hidden[-1] if options.hidden else math.prod(input_shape)

    def _initializer(self) -> keras.Initializer:
        if self.options.initializer == "truncated_normal":
            return keras.initializers.TruncatedNormal(stddev=0.01, seed=next(self._seeds))
        return keras.initializers.GlorotUniform(next(self._seeds))

    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """As `__call__`, and the batch moments of each batch norm (empty with `running`)."""
        moments: Moments = {}
        x = tf.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
        for number in range(1, len(self.options.hidden) + 1):
            x = _dense(parameters, f"dense{number}", x)
            if self.options.batch_norm:
                x = self._batch_norm(parameters, number, x, groups, running, moments)
            x = tf.nn.relu(x)
        return (_dense(parameters, "head", x) if "head/kernel" in parameters else x), moments


def convolution(x: tf.Tensor, kernel: tf.Tensor | tf.Variable, stride: int) -> tf.Tensor:
    """3x3 convolution with zero padding ("same"), `[T, N, H, W, C]` -> `[T, N, H', W', F]`.

    A shared kernel `[3, 3, C, F]` is one ordinary convolution. With a kernel for each task, `[T, 3, 3, C, F]`,
    the nine shifted images side by side turn T convolutions into one batched matrix product.
    """
    tasks, examples, height, width, channels = x.shape
    if kernel.shape.rank == 4:
        y = tf.nn.conv2d(tf.reshape(x, (tasks * examples, height, width, channels)), kernel, stride, "SAME")
        return tf.reshape(y, (tasks, examples, *y.shape[1:]))
    rows, columns = -(-height // stride), -(-width // stride)
    pad_rows, pad_columns = (rows - 1) * stride + 3 - height, (columns - 1) * stride + 3 - width
    above, left = pad_rows // 2, pad_columns // 2
    x = tf.pad(x, [[0, 0], [0, 0], [above, pad_rows - above], [left, pad_columns - left], [0, 0]])
    shifted = [
        x[:, :, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    patches = tf.reshape(tf.concat(shifted, axis=-1), (tasks, examples * rows * columns, 9 * channels))
    filters = kernel.shape[-1]
    y = tf.matmul(patches, tf.reshape(kernel, (tasks, 9 * channels, filters)))
    return tf.reshape(y, (tasks, examples, rows, columns, filters))


def max_pool(x: tf.Tensor, padding: str, shared: bool) -> tf.Tensor:
    """2x2 maximum, stride 2, `[T, N, H, W, C]`; "same" keeps an odd last row and column, "valid" drops it.

    With `shared` it is the library's fast one, whose second derivative XLA does not know in every precision; else
    the maximum of shifted slices.
    """
    tasks, examples, height, width, channels = x.shape
    if shared:
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
    """Normalise `[T, N, ..., C]` within each task and group; also the moments `[T, G, C]` (biased variance)."""
    tasks, examples, *space, channels = x.shape
    shape = (tasks, groups, examples // groups, *space, channels)
    if tasks * groups == 1 and offset.shape.rank == 1 and x.dtype == tf.float32:
        scale = tf.ones_like(offset) if scale is None else scale
        flat = tf.reshape(x, (1, -1, 1, channels))
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        return tf.reshape(y, x.shape), mean[None, None], variance[None, None]
    grouped = tf.reshape(x, shape) if groups > 1 else x
    axes = list(range(grouped.shape.rank - len(space) - 2, grouped.shape.rank - 1))
    mean = tf.reduce_mean(grouped, axis=axes, keepdims=True)
    # not tf.nn.moments: it stops the gradient of the mean inside the variance, which spoils second derivatives
    variance = tf.reduce_mean(tf.square(grouped - mean), axis=axes, keepdims=True)
    gain = tf.math.rsqrt(variance + epsilon)
    if scale is not None:
        gain *= _over_examples(scale, grouped.shape.rank)
    y = (grouped - mean) * gain + _over_examples(offset, grouped.shape.rank)
    flat = (tasks, groups, channels)
    return tf.reshape(y, x.shape), tf.reshape(mean, flat), tf.reshape(variance, flat)


def _over_examples(parameter: tf.Tensor | tf.Variable, rank: int) -> tf.Tensor:
    """`[C]` or `[T, C]` -> broadcasts with a tensor `[T, ..., C]` of this rank."""
    if parameter.shape.rank == 1:
        return tf.convert_to_tensor(parameter)
    tasks, channels = parameter.shape
    return tf.reshape(parameter, (tasks, *[1] * (rank - 2), channels))


def _dense(parameters: Parameters, layer: str, x: tf.Tensor) -> tf.Tensor:
    """x W + b, `[T, N, I]` -> `[T, N, O]`; the bias only where the layer has one."""
    y = tf.matmul(x, tf.convert_to_tensor(parameters[f"{layer}/kernel"]))
    bias = parameters.get(f"{layer}/bias")
    return y if bias is None else y + _over_examples(bias, 3)
