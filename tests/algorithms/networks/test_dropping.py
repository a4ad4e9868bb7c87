"""Dropout and DropBlock, which residual networks have in training."""

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.networks.resnet12 import drop_block, dropout
from metarun.datasets.random import TaskKeys


def keys_of(tasks=2):
    return TaskKeys.of_stream(0, "train", 0, tasks)


@pytest.mark.parametrize(("size", "side", "square"), [(10, 5, 5), (10, 2, 2), (5, 5, 5), (3, 5, 3), (1, 5, 1)])
def test_drop_block_is_that_of_numpy(size, side, square):
    """Compare for the corners of the keys. Reject the formula without the border, and a fixed factor in place of the
    share kept; a square of the whole map is a whole channel."""
    rate, x = 0.3, tf.constant(np.random.default_rng(0).normal(size=(2, 40, size, size, 6)))
    found = drop_block(x, rate, side, keys_of()).numpy()
    places = size - square + 1
    gamma = rate / square**2 * size**2 / places**2
    corners = keys_of().bernoulli("dropblock", gamma, 40, places, places, 6).numpy()
    kept = np.ones(x.shape)
    for task, image, row, column, channel in np.argwhere(corners):
        kept[task, image, row : row + square, column : column + square, channel] = 0
    share = kept.mean(axis=(1, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(found, x * kept / share, rtol=1e-12)
    assert share[0] != share[1] and np.abs(found - x * kept / (1 - rate)).max() > 1e-3
    probability = np.zeros((size, size))  # that no square reaches a pixel
    for row in range(size):
        for column in range(size):
            reach = [min(place, places - 1) - max(0, place - square + 1) + 1 for place in (row, column)]
            probability[row, column] = (1 - gamma) ** (reach[0] * reach[1])
    assert kept.mean() == pytest.approx(probability.mean(), abs=0.05)
    if square == size:
        assert set(kept.mean(axis=(2, 3)).ravel()) == {0.0, 1.0} and kept.mean() == pytest.approx(1 - rate, abs=0.06)
    else:
        assert gamma > 1.2 * rate / square**2, "the wrong variant"


def test_nothing_is_left_where_everything_is_dropped():
    """Reject a division by zero."""
    found = drop_block(tf.ones((1, 1, 2, 2, 1), tf.float64), 0.999999, 5, keys_of(1)).numpy()
    np.testing.assert_array_equal(found, 0)


def test_dropout_keeps_the_mean():
    """Count zeros. Reject one mask for all images, and values that are not divided."""
    x = tf.ones((2, 30, 8, 8, 5), tf.float64)
    found = dropout(x, 0.1, keys_of()).numpy()
    assert (found == 0).mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.9])
    zeros = found.reshape(60, -1) == 0
    assert len(np.unique(zeros, axis=0)) == 60
