"""Networks as functions of explicit parameters, for a batch of tasks at once.

`network(parameters, x)` maps `[T, N, *input_shape]` to `[T, N, outputs]`. Each parameter is shared by the tasks,
`[*shape]`, or carries a task axis, `[T, *shape]`. With a task axis, T networks run as one batched program, which makes
second-order meta-gradients fast on any device.

The layers are in `layers.py`. With `fuse`, everything between two products runs as one program
(`algorithms/programs.py`). With precision "bfloat16", activations and products have that precision. Parameters, batch
norm's statistics, the last layer and everything after it have float32.

Batch normalisation (Ioffe and Szegedy 2015). By default the statistics are those of the N examples of each task. With
`groups = G` the N examples are G equal groups, each normalised by itself. With `running` they are the running averages,
which `update_running` moves. There is no bias before batch norm, whose offset takes its place (in the papers' nets that
bias has a gradient of exactly zero).
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Mapping
from typing import Protocol

import keras
import tensorflow as tf

from ...datasets.errors import DataError
from ..programs import sizes
from .layers import Activation, activate_and_pool, batch_norm, convolution, normalised_block, over_examples
from .options import Conv4Options, MLPOptions, NetworkOptions

Values = dict[str, tf.Tensor]
Parameters = Mapping[str, tf.Tensor | tf.Variable]
Moments = dict[str, tf.Tensor]  # "norm1/mean" and "norm1/variance", [T, G, C]
BLOCKS = 4


class Network(Protocol):
    """Define a network as learners use it."""

    parameters: dict[str, tf.Variable]  # the shared initial values
    layers: tuple[int, ...]  # multiply-adds of each layer for one example
    batch_norm: bool  # whether an output depends on the other examples
    fuse: bool  # runs compiled programs itself, so the learner's step must not be compiled as a whole
    head: frozenset[str]  # names of the last layer's parameters
    norm: frozenset[str]  # names of the scales and offsets of batch norm

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """Map `[T, N, *input_shape]` to `[T, N, outputs]`.

        Args:
            parameters: Values of all parameters, shared `[*shape]` or per task `[T, *shape]`.
            x: The inputs.
            groups: The number of equal groups of the N examples that batch norm treats separately.
            running: Whether batch norm uses its running averages.
        """
        ...


class EmbeddingNetwork(Network, Protocol):
    """Define a network whose outputs are embeddings, for learners that compare them."""

    running: dict[str, tf.Variable]  # averages of batch norm, which a checkpoint keeps
    features: int  # width of an embedding
    dtype: tf.DType  # of parameters and embeddings
    seed: int  # of a learner's own initial values

    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """Return the outputs, see `__call__`, and the moments for `update_running`.

        Each moment is `[T, G, *shape]`. There are none with `running`.
        """
        ...

    def update_running(self, moments: Moments) -> None:
        """Update the running averages with the moments of a training step."""
        ...


def build(
    options: NetworkOptions,
    input_shape: tuple[int, ...],
    outputs: int | None,
    precision: str,
    seed: int,
    fuse: bool = False,
) -> BuiltInNetwork:
    """Build the network of a spec.

    Args:
        options: The section `network` of the spec.
        input_shape: The shape of one input.
        outputs: The width of the last layer; None for a network without a last layer (an embedding).
        precision: "float32", "bfloat16" or "float64".
        seed: The seed of the initial weights.
        fuse: Whether XLA compiles the parts between convolutions.

    Raises:
        DataError: The network does not fit the inputs.
    """
    if isinstance(options, Conv4Options):
        return Conv4(options, input_shape, outputs, precision, seed, fuse)
    assert isinstance(options, MLPOptions)
    return MLP(options, input_shape, outputs, precision, seed, fuse)


class BuiltInNetwork(abc.ABC):
    """Hold what conv4, resnet12 and mlp share: parameters, batch norm and its running averages."""

    layers: tuple[int, ...]  # multiply-adds of each layer for one example
    features: int  # width of the last layer's input, or of the embedding

    def __init__(self, options: NetworkOptions, precision: str, seed: int, fuse: bool):
        self.options, self.fuse, self.batch_norm = options, fuse, options.batch_norm
        self.activations = tf.as_dtype(precision)
        self.dtype = tf.float32 if self.activations == tf.bfloat16 else self.activations  # of parameters and results
        self.parameters: dict[str, tf.Variable] = {}
        self.running: dict[str, tf.Variable] = {}
        self.seed = seed * 1000  # each initializer takes its own seed
        self._seeds = itertools.count(self.seed + 100)

    @property
    def head(self) -> frozenset[str]:
        """Return the names of the last layer's parameters."""
        return frozenset(name for name in self.parameters if name.startswith("head/"))

    @property
    def norm(self) -> frozenset[str]:
        """Return the names of the scales and offsets of batch norm."""
        return frozenset(name for name in self.parameters if name.startswith("norm"))

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """Map `[T, N, *input_shape]` to `[T, N, outputs]`, see `Network`."""
        return self.apply(parameters, x, groups=groups, running=running)[0]

    @abc.abstractmethod
    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """Return the outputs, see `__call__`, and the batch moments of each batch norm (empty with `running`)."""

    def update_running(self, moments: Moments) -> None:
        """Update the running averages of batch norm.

        average <- momentum * average + (1 - momentum) * mean of the moments over tasks and groups.
        """
        momentum = self.options.norm_momentum
        for name, value in moments.items():
            average = self.running[name]
            average.assign(momentum * average + (1 - momentum) * tf.reduce_mean(value, axis=[0, 1]))

    def _parameter(self, name: str, shape: tuple[int, ...], initializer: keras.Initializer) -> None:
        self.parameters[name] = tf.Variable(initializer(shape, dtype=self.dtype.name), name=name)

    def _add_norm(self, number: int, width: int, scale: keras.Initializer) -> None:
        if self.options.norm_scale:
            self._parameter(f"norm{number}/scale", (width,), scale)
        self._parameter(f"norm{number}/offset", (width,), keras.initializers.Zeros())
        for name, first in (("mean", tf.zeros), ("variance", tf.ones)):
            self.running[f"norm{number}/{name}"] = tf.Variable(first(width, self.dtype), name=f"norm{number}/{name}")

    def _normalise(
        self,
        parameters: Parameters,
        number: int,
        x: tf.Tensor,
        groups: int,
        running: bool,
        moments: Moments,
        pool: str | None = None,
        activation: Activation = "relu",
    ) -> tf.Tensor:
        """Apply batch norm over N and the axes after it, the activation, and max-pooling with padding `pool`."""
        scale, offset = parameters.get(f"norm{number}/scale"), parameters[f"norm{number}/offset"]
        epsilon = self.options.norm_epsilon
        if running:
            mean, variance = self.running[f"norm{number}/mean"], self.running[f"norm{number}/variance"]
            gain = tf.math.rsqrt(variance + epsilon)
            gain = gain if scale is None else gain * scale
            y = tf.cast((tf.cast(x, self.dtype) - mean) * gain + offset, x.dtype)
            return activate_and_pool(y, pool, shared=True, activation=activation)
        if x.shape[0] * groups == 1 and offset.shape.rank == 1:
            normalised, mean, variance = batch_norm(x, scale, offset, groups, epsilon)
            y = activate_and_pool(normalised, pool, shared=True, activation=activation)
        else:
            y, mean, variance = normalised_block(
                x, scale, offset, groups=groups, epsilon=epsilon, pool=pool, fuse=self.fuse, activation=activation
            )
        moments[f"norm{number}/mean"], moments[f"norm{number}/variance"] = mean, variance
        return y

    def _read_out(self, parameters: Parameters, maps: tf.Tensor, mean: bool) -> tf.Tensor:
        """Return the outputs `[T, N, outputs]`, or the embeddings, of the last maps `[T, N, H, W, C]`.

        Args:
            parameters: The parameters of the last layer, if there is one.
            maps: The last maps.
            mean: Whether the features are their means over space; otherwise they are flattened.
        """
        maps = tf.cast(maps, self.dtype)
        x = tf.reduce_mean(maps, axis=[2, 3]) if mean else tf.reshape(maps, (*sizes(maps)[:2], self.features))
        return dense(parameters, "head", x) if "head/kernel" in parameters else x


def he_by_outputs(seed: int) -> keras.Initializer:
    """Return initial values of a convolution: normal with variance 2 / (height x width x filters) (He et al. 2015)."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed)


class Conv4(BuiltInNetwork):
    """Apply four blocks of 3x3 convolution, batch norm, ReLU and halving; then features and a linear layer.

    Input `[T, N, H, W, C]`. With downsample = "max_pool" a block is convolution (stride 1), norm, ReLU, 2x2
    max-pool (Vinyals et al. 2016); with "stride" the convolution has stride 2 (Finn et al. 2017, Omniglot).
    """

    options: Conv4Options

    def __init__(
        self,
        options: Conv4Options,
        input_shape: tuple[int, ...],
        outputs: int | None,
        precision: str,
        seed: int,
        fuse: bool,
    ):
        super().__init__(options, precision, seed, fuse)
        if len(input_shape) != 3:
            raise DataError(f"conv4 takes images, but the inputs have shape {list(input_shape)}: use mlp")
        height, width, channels = input_shape
        stride = options.downsample == "stride"
        up = stride or options.pool_padding == "same"
        layers = []
        for number in range(1, BLOCKS + 1):
            scale: keras.Initializer = keras.initializers.Ones()
            if options.initializer == "pytorch":
                kernel = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", next(self._seeds))
                scale = keras.initializers.RandomUniform(0.0, 1.0, next(self._seeds))
            elif options.initializer == "he":
                kernel = he_by_outputs(next(self._seeds))
            else:
                kernel = keras.initializers.GlorotUniform(next(self._seeds))
            self._parameter(f"conv{number}/kernel", (3, 3, channels, options.filters), kernel)
            if options.batch_norm:
                self._add_norm(number, options.filters, scale)
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
        """Return the outputs, see `__call__`, and the batch moments of each batch norm (empty with `running`)."""
        options, moments = self.options, {}
        stride, pool = (2, None) if options.downsample == "stride" else (1, options.pool_padding)
        x = tf.cast(x, self.activations)
        for number in range(1, BLOCKS + 1):
            kernel = tf.cast(parameters[f"conv{number}/kernel"], self.activations)
            x = convolution(x, kernel, stride, self.fuse)
            if options.batch_norm:
                x = self._normalise(parameters, number, x, groups, running, moments, pool)
            else:
                bias = tf.cast(parameters[f"conv{number}/bias"], x.dtype)
                x = activate_and_pool(x + over_examples(bias, x.shape.rank), pool, shared=bias.shape.rank == 1)
        return self._read_out(parameters, x, options.features == "mean"), moments


class MLP(BuiltInNetwork):
    """Apply fully connected layers with ReLU, then a linear one. The input `[T, N, *any]` is flattened."""

    options: MLPOptions

    def __init__(
        self,
        options: MLPOptions,
        input_shape: tuple[int, ...],
        outputs: int | None,
        precision: str,
        seed: int,
        fuse: bool,
    ):
        super().__init__(options, precision, seed, fuse)
        width = math.prod(input_shape)
        products = []
        layers = [(f"dense{number}", units) for number, units in enumerate(options.hidden, start=1)]
        for number, (name, units) in enumerate([*layers, *([("head", outputs)] if outputs else [])], start=1):
            self._parameter(f"{name}/kernel", (width, units), self._initializer())
            if options.batch_norm and name != "head":
                self._add_norm(number, units, keras.initializers.Ones())
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
        """Return the outputs, see `__call__`, and the batch moments of each batch norm (empty with `running`)."""
        moments: Moments = {}
        x = tf.cast(tf.reshape(x, (*sizes(x)[:2], math.prod(x.shape[2:]))), self.activations)
        for number in range(1, len(self.options.hidden) + 1):
            x = dense(parameters, f"dense{number}", x)
            if self.options.batch_norm:
                x = self._normalise(parameters, number, x, groups, running, moments)
            else:
                x = tf.nn.relu(x)
        x = tf.cast(x, self.dtype)
        return (dense(parameters, "head", x) if "head/kernel" in parameters else x), moments


def dense(parameters: Parameters, layer: str, x: tf.Tensor) -> tf.Tensor:
    """Return x W + b in the precision of x, `[T, N, I]` -> `[T, N, O]`; the bias only where the layer has one."""
    y = tf.matmul(x, tf.cast(parameters[f"{layer}/kernel"], x.dtype))
    bias = parameters.get(f"{layer}/bias")
    return y if bias is None else y + over_examples(tf.cast(bias, x.dtype), 3)
