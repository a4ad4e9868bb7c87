"""One paper, one file. `ALGORITHMS` is the only dispatch; learners import TensorFlow only when built."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..datasets.plugins import misnamed, plugins
from .classical_options import CLASSICAL
from .options import (
    MAMLOptions,
    MatchingNetworkOptions,
    OptimizerOptions,
    Options,
    PrototypicalNetworkOptions,
    ReptileOptions,
    RL2Options,
)

if TYPE_CHECKING:
    from ..datasets.trials import TrialSource
    from .learner import Learner, Problem


def _one(options: Any, meta_batch: int) -> int:
    return 1


class Algorithm(NamedTuple):
    """One entry."""

    options: type[Options]  # what a spec may say
    learner: Callable[[], Callable[..., Any]]  # imports the learner's class
    has_head: bool = True  # its network ends in a layer of `way` outputs
    trains_on_queries: bool = True
    kind: Literal["few-shot", "trials", "classical"] = "few-shot"  # episodes; trials; trials, and no training
    updates: Callable[[Any, int], int] = _one  # of its optimizer in a training step, from options and meta-batch


def _named(module: str, name: str) -> Callable[[], Callable[..., Any]]:
    """Imports when asked for."""
    return lambda: getattr(import_module(f".{module}", __name__), name)


BUILT_IN: dict[str, Algorithm] = {
    "maml": Algorithm(MAMLOptions, _named("maml", "MAML")),
    "reptile": Algorithm(
        ReptileOptions,
        _named("reptile", "Reptile"),
        trains_on_queries=False,
        updates=lambda options, meta_batch: meta_batch if options.serial else 1,
    ),
    "protonet": Algorithm(PrototypicalNetworkOptions, _named("protonet", "PrototypicalNetwork"), has_head=False),
    "matchingnet": Algorithm(MatchingNetworkOptions, _named("matchingnet", "MatchingNetwork"), has_head=False),
    "rl2": Algorithm(
        RL2Options,
        _named("rl2", "RL2"),
        kind="trials",
        updates=lambda options, meta_batch: options.epochs * math.ceil(meta_batch / options.minibatch),
    ),
    **{
        options.model_fields["name"].default: Algorithm(
            options, _named("classical", "ClassicalPolicy"), kind="classical"
        )
        for options in CLASSICAL
    },
}


def _problem(name: str, loaded: Any) -> str | None:
    """What keeps an entry point from being an algorithm."""
    if not isinstance(loaded, Algorithm):
        return "it is no metarun.algorithms.Algorithm(options, learner)"
    if loaded.kind == "classical":
        return 'kind "classical" is that of the methods that come with metarun: use "trials"'
    if isinstance(loaded.learner, type):
        return "its learner is a class: give a function without arguments that returns it"
    return misnamed(name, loaded.options)


ALGORITHMS = BUILT_IN | plugins("metarun.algorithms", BUILT_IN, _problem)


def build(
    algorithm: Any,
    network: Any,
    optimizer: OptimizerOptions,
    *,
    problem: Problem,
    input_shape: tuple[int, ...],
    outputs: int,
    steps: int,
    meta_batch: int = 1,
    precision: str,
    seed: int,
    jit: bool = True,
) -> Learner:
    """The few-shot learner of a spec: its network (`outputs` wide where the algorithm has a last layer), its optimizer.

    With `jit` XLA compiles: the whole step on a GPU and for fully connected networks, and what lies between the
    convolutions, whose library kernels it cannot match, on a CPU.
    """
    import tensorflow as tf

    from . import networks
    from .learner import outer_optimizer

    entry = ALGORITHMS[algorithm.name]
    fuse = jit and network.name == "conv4" and not tf.config.list_physical_devices("GPU")
    net = networks.build(network, input_shape, outputs if entry.has_head else None, precision, seed, fuse)
    outer = outer_optimizer(optimizer, steps, entry.updates(algorithm, meta_batch))
    return entry.learner()(net, outer, algorithm, problem, jit_compile=jit)


def build_player(
    algorithm: Any,
    network: Any,
    optimizer: OptimizerOptions,
    source: TrialSource,
    *,
    steps: int,
    meta_batch: int = 1,
    precision: str,
    seed: int,
    jit: bool = True,
) -> Learner:
    """The learner of a spec whose tasks are trials."""
    from .learner import outer_optimizer

    entry = ALGORITHMS[algorithm.name]
    if entry.kind == "classical":
        return entry.learner()(algorithm, source)
    jit, updates = jit and source.compiles, entry.updates(algorithm, meta_batch)

    def outer() -> Any:
        return outer_optimizer(optimizer, steps, updates)

    return entry.learner()(source, network, outer, algorithm, precision, seed, jit_compile=jit)
