"""The algorithms, one paper per file.

`ALGORITHMS` is the only dispatch. Learners import TensorFlow only when they are built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

from ..datasets.plugins import misnamed, plugins
from .classical.options import CLASSICAL
from .options import (
    BaselineOptions,
    BaselinePlusPlusOptions,
    HausdorffOptions,
    MAMLOptions,
    MatchingNetworkOptions,
    Options,
    PrototypicalNetworkOptions,
    R2D2Options,
    ReptileOptions,
    RL2Options,
    SimpleShotOptions,
)


def _one(options: Any, meta_batch: int) -> int:
    return 1


class Kind(NamedTuple):
    """Hold the properties that all algorithms of a kind share."""

    is_trained: bool  # it has a network, which learns by training
    plays_trials: bool  # its tasks are trials; otherwise episodes of way, shot and query
    trains_on_images: bool = False  # a training step takes images of shuffled epochs, and no tasks


KINDS = {
    "few-shot": Kind(is_trained=True, plays_trials=False),
    "classifier": Kind(is_trained=True, plays_trials=False, trains_on_images=True),
    "trials": Kind(is_trained=True, plays_trials=True),
    "untrained": Kind(is_trained=False, plays_trials=False),
    "classical": Kind(is_trained=False, plays_trials=True),
}


class Algorithm(NamedTuple):
    """Hold an entry of `ALGORITHMS`: the options of an algorithm, its learner, and what the rest of the program must
    know.

    Another package registers one under the entry point group `metarun.algorithms`:

        from typing import Literal
        from pydantic import Field
        from metarun.algorithms import Algorithm
        from metarun.algorithms.options import Options

        class PrototypeOptions(Options):
            name: Literal["prototypes"] = "prototypes"
            scale: float = Field(default=1.0, gt=0, description="Factor of the distances.")

        def learner():
            from my_package.prototypes import Prototypes  # imports TensorFlow

            return Prototypes

        PROTOTYPES = Algorithm(PrototypeOptions, learner, has_head=False)

    Attributes:
        options: The model of the spec's section `algorithm`. Its `name` must be the name of the entry point.
        learner: A function without arguments that imports and returns the learner's class.
        has_head: Whether its network ends in a linear layer of `way` outputs.
        trains_on_queries: Whether a training step uses the query set.
        kind: A key of `KINDS`; "untrained" and "classical" are reserved for built-in methods, which have no network.
        updates: The number of optimizer updates in one training step, given the options and the meta-batch size.
        uses_running_averages: Whether it uses batch norm's running averages under the inductive protocol.
        drops: Whether its training step passes `noise` to a network that drops values, as an `EmbeddingLearner` does.
    """

    options: type[Options]
    learner: Callable[[], Callable[..., Any]]
    has_head: bool = True
    trains_on_queries: bool = True
    kind: Literal["few-shot", "classifier", "trials", "untrained", "classical"] = "few-shot"
    updates: Callable[[Any, int], int] = _one
    uses_running_averages: bool = True
    drops: bool = False


def _named(module: str, name: str) -> Callable[[], Callable[..., Any]]:
    """Return a function that imports `module` and returns its class `name`."""
    return lambda: getattr(import_module(f".{module}", __name__), name)


def _embedding(
    options: type[Options], module: str, name: str, kind: Literal["few-shot", "classifier"] = "few-shot"
) -> Algorithm:
    """Return the entry of a learner whose network ends in an embedding, and may drop parts of it in training."""
    return Algorithm(options, _named(module, name), has_head=False, kind=kind, drops=True)


BUILT_IN: dict[str, Algorithm] = {
    "maml": Algorithm(MAMLOptions, _named("maml", "MAML"), uses_running_averages=False),
    "reptile": Algorithm(
        ReptileOptions,
        _named("reptile", "Reptile"),
        trains_on_queries=False,
        updates=lambda options, meta_batch: meta_batch if options.serial else 1,
        uses_running_averages=False,
    ),
    "protonet": _embedding(PrototypicalNetworkOptions, "protonet", "PrototypicalNetwork"),
    "matchingnet": _embedding(MatchingNetworkOptions, "matchingnet", "MatchingNetwork"),
    "r2d2": _embedding(R2D2Options, "r2d2", "R2D2"),
    "baseline": _embedding(BaselineOptions, "baseline", "Baseline", "classifier"),
    "baseline++": _embedding(BaselinePlusPlusOptions, "baseline", "BaselinePlusPlus", "classifier"),
    "simpleshot": _embedding(SimpleShotOptions, "simpleshot", "SimpleShot", "classifier"),
    "hausdorff": Algorithm(
        HausdorffOptions, _named("hausdorff", "ModifiedHausdorff"), has_head=False, kind="untrained"
    ),
    "rl2": Algorithm(
        RL2Options,
        _named("rl2", "RL2"),
        kind="trials",
        updates=lambda options, meta_batch: options.epochs * math.ceil(meta_batch / options.minibatch),
    ),
    **{
        options.model_fields["name"].default: Algorithm(
            options, _named("classical.policy", "ClassicalPolicy"), kind="classical"
        )
        for options in CLASSICAL
    },
}


def _problem(name: str, loaded: Any) -> str | None:
    """Return why an entry point is not a valid algorithm, or None."""
    if not isinstance(loaded, Algorithm):
        return "it is not a metarun.algorithms.Algorithm(options, learner)"
    if loaded.kind not in KINDS:
        return f'its kind is "{loaded.kind}": use "few-shot", "classifier" or "trials"'
    if not KINDS[loaded.kind].is_trained:
        use = "trials" if KINDS[loaded.kind].plays_trials else "few-shot"
        return f'kind "{loaded.kind}" is reserved for built-in methods: use "{use}"'
    if isinstance(loaded.learner, type):
        return "its learner is a class: give a function without arguments that returns it"
    return misnamed(name, loaded.options)


ALGORITHMS = BUILT_IN | plugins("metarun.algorithms", BUILT_IN, _problem)
