"""Networks. `NETWORKS` is the only dispatch; modules import TensorFlow only when a network is built.

A package that has, in its pyproject.toml,

    [project.entry-points."metarun.networks"]
    backbone = "their_package:Backbone"

makes `network: {name: backbone}` a valid section: `Backbone` is a subclass of `Options` with `name:
Literal["backbone"]` and a method `build(input_shape, outputs, precision, seed)`. It returns a Keras model, or an
object with a task axis as the protocols in `feedforward.py` describe it. Arguments:

    input_shape  shape of one example, for example (28, 28, 1)
    outputs      width of the last layer; None asks for an embedding, `[N, features]`, for learners such as protonet
    precision    float32, float64 or bfloat16; Keras layers get it by default
    seed         seed of the initial weights, also of Keras initializers that have none of their own

`steps_that_repay_compiling`, a class variable, is the number of training steps from which `jit: auto` compiles; 1000
unless stated otherwise.
"""

from __future__ import annotations

from typing import Any

from ...datasets.options import Options
from ...datasets.plugins import misnamed, plugins
from .options import Conv4Options, GRUOptions, MLPOptions, ResNet12Options

BUILT_IN: dict[str, type[Options]] = {
    "conv4": Conv4Options,
    "resnet12": ResNet12Options,
    "mlp": MLPOptions,
    "gru": GRUOptions,
}


def _problem(name: str, loaded: Any) -> str | None:
    """Return what keeps an entry point from being a network."""
    if not (isinstance(loaded, type) and issubclass(loaded, Options) and callable(getattr(loaded, "build", None))):
        return "it is no subclass of metarun.datasets.options.Options with a method `build`"
    return misnamed(name, loaded)


NETWORKS = BUILT_IN | plugins("metarun.networks", BUILT_IN, _problem)


def build(
    options: Any, input_shape: tuple[int, ...], outputs: int | None, precision: str, seed: int, fuse: bool = False
) -> Any:
    """Return the network of a spec; with `outputs=None` it has no last layer and returns an embedding.

    `fuse` compiles the operations between the convolutions of conv4 and resnet12.

    Raises:
        DataError: the network does not fit.
    """
    if type(options) is ResNet12Options:
        from .resnet12 import ResNet12

        return ResNet12(options, input_shape, outputs, precision, seed, fuse)
    if type(options) in BUILT_IN.values():
        from .feedforward import build as build_feedforward

        return build_feedforward(options, input_shape, outputs, precision, seed, fuse)
    from .packaged import build as build_packaged

    return build_packaged(options, input_shape, outputs, precision, seed)
