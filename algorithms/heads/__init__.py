"""Heads: classifiers of tasks as pure functions of frozen features, for a batch of tasks at once.

`HEADS` is the only dispatch. A head has two functions. `fit` returns what it learns of the support sets, by name, each
with a task axis. `logits` compares query features with that.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel

from .options import (
    CentroidHeadOptions,
    CosineHeadOptions,
    LinearHeadOptions,
    RidgeHeadOptions,
    SimilarityHeadOptions,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from ..learner import Support


class Head(Protocol):
    """Define a classifier of tasks over features `[T, N, D]`."""

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Return what `logits` needs of support sets, by name, each `[T, ...]`.

        Args:
            features: Features of the support images, `[T, S, D]`.
            support: Their labels, and the keys of what is random.
            mean: The mean feature of the training images, `[D]`; None where `needs_mean` is False.
        """
        ...

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return unnormalised log-probabilities `[T, Q, way]` of query features `[T, Q, D]`."""
        ...


class Entry(NamedTuple):
    """Hold the options of a head, and its module and class."""

    options: type[BaseModel]
    place: tuple[str, str]


HEADS = {
    "linear": Entry(LinearHeadOptions, ("trained", "LinearHead")),
    "cosine": Entry(CosineHeadOptions, ("trained", "CosineHead")),
    "centroid": Entry(CentroidHeadOptions, ("closed", "CentroidHead")),
    "ridge": Entry(RidgeHeadOptions, ("closed", "RidgeHead")),
    "similarity": Entry(SimilarityHeadOptions, ("closed", "SimilarityHead")),
}


def build(options: Any) -> Head:
    """Return the head with these options."""
    module, name = HEADS[options.name].place
    return getattr(import_module(f".{module}", __name__), name)(options)


def needs_mean(options: Any) -> bool:
    """Return whether the head with these options subtracts the mean feature of the training images."""
    return options.name == "centroid" and options.features == "CL2N"
