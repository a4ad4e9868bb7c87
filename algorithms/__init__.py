"""One paper, one file. `ALGORITHMS` is the only dispatch; learners import TensorFlow only when built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .options import (
    AlgorithmOptions,
    MAMLOptions,
    MatchingNetworkOptions,
    NetworkChoice,
    OptimizerOptions,
    Options,
    PrototypicalNetworkOptions,
    ReptileOptions,
)

if TYPE_CHECKING:
    from .learner import Learner, Problem


def _maml() -> Callable[..., Any]:
    from .maml import MAML

    return MAML


def _reptile() -> Callable[..., Any]:
    from .reptile import Reptile

    return Reptile


def _protonet() -> Callable[..., Any]:
    from .protonet import PrototypicalNetwork

    return PrototypicalNetwork


def _matchingnet() -> Callable[..., Any]:
    from .matchingnet import MatchingNetwork

    return MatchingNetwork


class Algorithm(NamedTuple):
    """One entry."""

    options: type[Options]  # what a spec may say
    learner: Callable[[], Callable[..., Any]]  # imports the learner's class
    has_head: bool = True  # its network ends in a layer of `way` outputs
    trains_on_queries: bool = True


ALGORITHMS: dict[str, Algorithm] = {
    "maml": Algorithm(MAMLOptions, _maml),
    "reptile": Algorithm(ReptileOptions, _reptile, trains_on_queries=False),
    "protonet": Algorithm(PrototypicalNetworkOptions, _protonet, has_head=False),
    "matchingnet": Algorithm(MatchingNetworkOptions, _matchingnet, has_head=False),
}


def build(
    algorithm: AlgorithmOptions,
    network: NetworkChoice,
    optimizer: OptimizerOptions,
    *,
    problem: Problem,
    input_shape: tuple[int, ...],
    outputs: int,
    steps: int,
    precision: str,
    seed: int,
    jit: bool = True,
) -> Learner:
    """The learner of a spec: its network (`outputs` wide where the algorithm has a last layer), its optimizer.

    With `jit` XLA compiles: the whole step on a GPU and for fully connected networks, and what lies between the
    convolutions, whose library kernels it cannot match, on a CPU.
    """
    import tensorflow as tf

    from . import networks
    from .learner import outer_optimizer

    entry = ALGORITHMS[algorithm.name]
    fuse = jit and network.name == "conv4" and not tf.config.list_physical_devices("GPU")
    net = networks.build(network, input_shape, outputs if entry.has_head else None, precision, seed, fuse)
    return entry.learner()(net, outer_optimizer(optimizer, steps), algorithm, problem, jit_compile=jit)
