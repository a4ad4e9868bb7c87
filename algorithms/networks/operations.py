"""Floating-point operations by formula: two for each multiply-add of a convolution or matrix product.

`layers` holds the multiply-adds of each layer for one example, the first layer first. A layer y = x w is one product.
Its gradient adds two more, dw = x' dy and dx = dy w', of which the first layer, whose x are the images, needs only dw.
Differentiating that gradient again (second-order MAML) goes back through all three products, two more for each: nine
instead of three; in the first layer, y and dw with one each: four instead of two. Everything else (normalisation,
activations, pooling, the loss) is not counted: it costs time, but no product.
"""

from __future__ import annotations

from collections.abc import Sequence


def forward(layers: Sequence[int]) -> int:
    """Return the operations of applying the network to one example."""
    return 2 * sum(layers)


def gradient(layers: Sequence[int]) -> int:
    """Return the operations of one example: forward, and the gradient for all weights."""
    return 2 * (3 * sum(layers) - sum(layers[:1]))


def gradient_through_gradient(layers: Sequence[int]) -> int:
    """Return the operations of one example: forward, the gradient for all weights, and the derivative of that gradient
    step.
    """
    return 2 * (9 * sum(layers) - 5 * sum(layers[:1]))


def gradient_through_last_gradient(layers: Sequence[int]) -> int:
    """Return `gradient_through_gradient` where the inner step changes the last layer only."""
    return gradient(layers[:-1]) + 2 * 6 * sum(layers[-1:])
