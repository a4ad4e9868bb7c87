"""Build the learner of a spec for a source of tasks."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from . import ALGORITHMS, KINDS, Algorithm
from .optimizer_options import OptimizerOptions

if TYPE_CHECKING:
    from ..datasets.tasks import TaskSource
    from ..datasets.trials import TrialSource
    from .learner import Learner

CONVOLUTIONAL = ("conv4", "resnet12")  # networks between whose convolutions a CPU has compiled programs


class Setup(NamedTuple):
    """Hold the part of a spec that describes a learner.

    It has the sections algorithm, network and optimizer, and the other settings on which weights and programs depend.
    """

    algorithm: Any  # its options
    network: Any = None
    optimizer: OptimizerOptions = OptimizerOptions()
    protocol: Any = None  # transductive or inductive; None for trials
    way: int = 1  # classes of a training task, outputs of a classifier's last layer
    steps: int = 0  # of the whole training, for schedules
    meta_batch: int = 1
    precision: str = "float32"
    seed: int = 0  # of the initial weights
    jit: bool = True  # compile with XLA


def build(setup: Setup, source: TaskSource | TrialSource) -> Learner:
    """Build the network and the optimizer of a setup, and return the learner that holds them.

    With `jit`, XLA compiles the whole step on a GPU and for fully connected networks. On a CPU it compiles only the
    operations between convolutions, whose library kernels are faster than its own.
    """
    entry = ALGORITHMS[setup.algorithm.name]
    makers = {
        "few-shot": _few_shot,
        "classifier": _few_shot,
        "trials": _player,
        "untrained": _without_network,
        "classical": _without_network,
    }
    return makers[entry.kind](entry, setup, source)


def _few_shot(entry: Algorithm, setup: Setup, source: Any) -> Learner:
    import tensorflow as tf

    from . import networks
    from .learner import Problem
    from .networks.frozen import PartlyFrozen, frozen_names

    outputs = math.prod(source.target_shape) if source.regression else setup.way
    fuse = setup.jit and setup.network.name in CONVOLUTIONAL and not tf.config.list_physical_devices("GPU")
    network = networks.build(
        setup.network, source.input_shape, outputs if entry.has_head else None, setup.precision, setup.seed, fuse
    )
    problem = Problem(source.regression, setup.protocol)
    frozen = frozen_names(setup.network, network)
    norm = () if setup.optimizer.decay_norm else network.norm
    optimizer: Any = _optimizer(entry, setup, [network.parameters[name] for name in frozen.union(norm)])
    if frozen:
        optimizer = PartlyFrozen(optimizer, [network.parameters[name] for name in frozen])
    more = {"classes": source.classes("train")} if KINDS[entry.kind].trains_on_images else {}
    return entry.learner()(network, optimizer, setup.algorithm, problem, jit_compile=setup.jit, **more)


def _player(entry: Algorithm, setup: Setup, source: Any) -> Learner:
    return entry.learner()(
        source,
        setup.network,
        lambda norm: _optimizer(entry, setup, () if setup.optimizer.decay_norm else norm),
        setup.algorithm,
        setup.precision,
        setup.seed,
        jit_compile=setup.jit and source.compiles,
    )


def _without_network(entry: Algorithm, setup: Setup, source: Any) -> Learner:
    return entry.learner()(setup.algorithm, source)


def _optimizer(entry: Algorithm, setup: Setup, undecayed: Collection[Any] = ()) -> Any:
    from .optimizers import outer_optimizer

    updates = entry.updates(setup.algorithm, setup.meta_batch)
    return outer_optimizer(setup.optimizer, setup.steps, updates, undecayed)
