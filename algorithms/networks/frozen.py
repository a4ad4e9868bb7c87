"""Leave layers of a network as they are: their parameters get no update of the outer optimizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from ...datasets.errors import DataError
from .feedforward import Network


def frozen_names(options: Any, network: Network) -> set[str]:
    """Return the names of the parameters that stay as they are.

    Args:
        options: options of the network, a `Pretrained` or others, which freeze none.
        network: the network.

    Raises:
        DataError: `freeze` names a layer that the network does not have.
    """
    if not getattr(options, "freeze", None):
        return set()
    try:
        return options.frozen(network.parameters, network.head)
    except ValueError as error:
        raise DataError(f"network.freeze: {error}") from None


class PartlyFrozen:
    """Take the gradient of frozen parameters for zero, as an outer optimizer.

    Adam and SGD then add an exact zero, and a limit on the norm of the gradient does not count it. The optimizer must
    not decay these parameters. Everything else is its own, so checkpoints have the same variables with and without
    frozen layers.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, frozen: Collection[tf.Variable]):
        """Wrap the `optimizer` of all parameters, of which those in `frozen` stay as they are."""
        self.optimizer, self.frozen = optimizer, set(map(id, frozen))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Make the state of the optimizer. Raises DataError if all variables of the learner are frozen."""
        if all(id(variable) in self.frozen for variable in variables):
            raise DataError("network.freeze: every parameter is frozen, and nothing is left to train")
        self.optimizer.build(variables)

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> None:
        """Update the variables that are not frozen."""
        kept = [
            tf.zeros_like(gradient) if id(variable) in self.frozen else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        self.optimizer.apply(kept, variables)
