"""Leave layers of a network as they are: their parameters get no update of the outer optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ...datasets.errors import DataError
from .feedforward import Network


class PartlyFrozen:
    """Take the gradient of frozen parameters for zero, as an outer optimizer.

    Adam and SGD then add an exact zero, and a limit on the norm of the gradient does not count it. Everything else is
    the optimizer's own, so checkpoints have the same variables with and without frozen layers.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, options: Any, network: Network):
        """Wrap an optimizer.

        Args:
            optimizer: the optimizer of all parameters.
            options: options of the network, a `Pretrained` with `freeze`.
            network: the network.

        Raises:
            DataError: `freeze` names a layer that the network does not have.
        """
        try:
            names = options.frozen(network.parameters, network.head)
        except ValueError as error:
            raise DataError(f"network.freeze: {error}") from None
        self.optimizer, self.frozen = optimizer, {id(network.parameters[name]) for name in names}

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
