"""Build the learner of a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import ALGORITHMS
from .options import OptimizerOptions

if TYPE_CHECKING:
    from ..datasets.trials import TrialSource
    from .learner import Learner, Problem


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

    from .learner import outer_optimizer
    from .networks import feedforward

    entry = ALGORITHMS[algorithm.name]
    fuse = jit and network.name == "conv4" and not tf.config.list_physical_devices("GPU")
    net = feedforward.build(network, input_shape, outputs if entry.has_head else None, precision, seed, fuse)
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
