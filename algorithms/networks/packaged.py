"""Networks of other packages: built, and checked before they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from ...datasets.errors import DataError, KnownError, counted
from .feedforward import EmbeddingNetwork, Network
from .keras_network import KerasNetwork, stateful_layers


def build(options: Any, input_shape: tuple[int, ...], outputs: int | None, precision: str, seed: int) -> Network:
    """Return the network that another package builds from the options.

    Raises:
        DataError: the network cannot be built, or it does not fit. The message names the package.
    """
    with _blamed(options):
        keras.utils.set_random_seed(seed)
        with _precision(precision):
            network = built = options.build(input_shape, outputs, precision, seed)
            if isinstance(built, keras.Model):
                dtype = keras.config.floatx()
                width = built(tf.zeros((1, *input_shape), dtype), training=False).shape[-1]  # its weights are made here
                network = KerasNetwork(built, seed=1000 * seed, features=width)
        wanted = Network if outputs is not None else EmbeddingNetwork
        if missing := [name for name in _members(wanted) if not hasattr(network, name)]:
            raise DataError(f"it is a {type(built).__name__}, no Keras model, and has no {', '.join(missing)}")
        if outputs is None and isinstance(built, keras.Model) and (others := stateful_layers(built)):
            raise DataError(f"running averages are followed in BatchNormalization alone, not in {others[0]}")
        _check_outputs(network, input_shape, outputs)
    return network


def _check_outputs(network: Any, input_shape: tuple[int, ...], outputs: int | None) -> None:
    """Raise DataError unless the network maps `[T, N, *input_shape]` to `[T, N, outputs or features]`."""
    dtype = next(iter(network.parameters.values())).dtype if network.parameters else tf.float32
    found = tuple(network(network.parameters, tf.zeros((1, 2, *input_shape), dtype)).shape)
    if found != (1, 2, network.features if outputs is None else outputs):
        expected = "a vector" if outputs is None else counted(outputs, "number")
        raise DataError(
            f"expected {expected} for an example of shape {list(input_shape)}, got outputs of shape {list(found[2:])}"
        )


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Set the precision of the Keras layers that are made inside the block.

    With bfloat16 their weights are float32.
    """
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    half = precision == "bfloat16"
    keras.config.set_floatx("float32" if half else precision)
    keras.config.set_dtype_policy("mixed_bfloat16" if half else precision)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@contextmanager
def _blamed(options: Any) -> Iterator[None]:
    """Raise DataError for any error of the block, in one line with the names of the network and its package."""
    try:
        yield
    except Exception as error:  # of any kind: it is someone else's code
        if isinstance(error, KnownError) and not isinstance(error, DataError):
            raise  # such as a request to stop
        reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        package = type(options).__module__.partition(".")[0]
        raise DataError(f"network {options.name} of {package}: {' '.join(reason.split())}") from error


def _members(protocol: type) -> list[str]:
    """Return the names of the attributes and methods of a protocol."""
    lines = [line for each in reversed(protocol.__mro__) for line in vars(each).get("__annotations__", {})]
    methods = [name for name in ("__call__", "apply", "update_running") if name in dir(protocol)]
    return [*lines, *methods]
