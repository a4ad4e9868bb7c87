"""One paper, one file. `ALGORITHMS` is the only dispatch; learners import TensorFlow only when built."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

from ..datasets.plugins import misnamed, plugins
from .classical.options import CLASSICAL
from .options import (
    MAMLOptions,
    MatchingNetworkOptions,
    Options,
    PrototypicalNetworkOptions,
    ReptileOptions,
    RL2Options,
)


def _one(options: Any, meta_batch: int) -> int:
    return 1


class Kind(NamedTuple):
    """What the algorithms of a kind have in common."""

    is_trained: bool  # it has a network, which learns by training
    plays_trials: bool  # its tasks are trials; otherwise episodes of way, shot and query


KINDS = {
    "few-shot": Kind(is_trained=True, plays_trials=False),
    "trials": Kind(is_trained=True, plays_trials=True),
    "classical": Kind(is_trained=False, plays_trials=True),
}


class Algorithm(NamedTuple):
    """One entry."""

    options: type[Options]  # what a spec may say
    learner: Callable[[], Callable[..., Any]]  # imports the learner's class
    has_head: bool = True  # its network ends in a layer of `way` outputs
    trains_on_queries: bool = True
    kind: Literal["few-shot", "trials", "classical"] = "few-shot"  # see `KINDS`
    updates: Callable[[Any, int], int] = _one  # of its optimizer in a training step, from options and meta-batch
    uses_running_averages: bool = True  # of batch norm, with the inductive protocol


def _named(module: str, name: str) -> Callable[[], Callable[..., Any]]:
    """Imports when asked for."""
    return lambda: getattr(import_module(f".{module}", __name__), name)


BUILT_IN: dict[str, Algorithm] = {
    "maml": Algorithm(MAMLOptions, _named("maml", "MAML"), uses_running_averages=False),
    "reptile": Algorithm(
        ReptileOptions,
        _named("reptile", "Reptile"),
        trains_on_queries=False,
        updates=lambda options, meta_batch: meta_batch if options.serial else 1,
        uses_running_averages=False,
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
            options, _named("classical.policy", "ClassicalPolicy"), kind="classical"
        )
        for options in CLASSICAL
    },
}


def _problem(name: str, loaded: Any) -> str | None:
    """What keeps an entry point from being an algorithm."""
    if not isinstance(loaded, Algorithm):
        return "it is no metarun.algorithms.Algorithm(options, learner)"
    if loaded.kind not in KINDS:
        return f'its kind is "{loaded.kind}": use "few-shot" or "trials"'
    if loaded.kind == "classical":
        return 'kind "classical" is that of the methods that come with metarun: use "trials"'
    if isinstance(loaded.learner, type):
        return "its learner is a class: give a function without arguments that returns it"
    return misnamed(name, loaded.options)


ALGORITHMS = BUILT_IN | plugins("metarun.algorithms", BUILT_IN, _problem)
