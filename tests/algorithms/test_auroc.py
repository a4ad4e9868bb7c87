"""The area under the ROC curve of scores inside and outside the classes of a task."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.metrics import auroc


def counted(inside, outside, tie=0.5):
    """Count pairs one by one."""
    return np.mean([1 if a > b else tie if a == b else 0 for a in inside for b in outside])


@pytest.mark.parametrize("seed", range(10))
def test_the_area_is_the_share_of_pairs_in_order(seed):
    """Reject ties that count as won or as lost, the scores of the two groups exchanged, and their sign reversed."""
    generator = np.random.default_rng(seed)
    inside, outside = generator.integers(0, 6, (3, 7)) + 1, generator.integers(0, 6, (3, 5))
    found = auroc(tf.constant(inside, tf.float32), tf.constant(outside, tf.float32)).numpy()
    assert found.dtype == np.float64
    pairs = list(zip(inside, outside, strict=True))
    np.testing.assert_allclose(found, [counted(*pair) for pair in pairs], rtol=0, atol=1e-15)
    for wrong in (
        [counted(*pair, tie=1) for pair in pairs],
        [counted(*pair, tie=0) for pair in pairs],
        [counted(b, a) for a, b in pairs],
        [counted(-a, -b) for a, b in pairs],
    ):
        assert np.abs(found - wrong).max() > 0.01


def test_scores_that_tell_nothing_give_a_half_and_perfect_ones_one():
    """Reject a share without ties, which is 0 for a network that gives every image the same score."""
    same = tf.ones((1, 4))
    assert auroc(same, same).numpy().tolist() == [0.5]
    assert auroc(same, same - 1).numpy().tolist() == [1.0]
    assert auroc(same - 1, same).numpy().tolist() == [0.0]


def test_a_score_that_is_no_number_loses_on_both_sides():
    """Reject an image outside that counts as told because its output is not finite."""
    good, bad = tf.constant([[1.0, 2.0]]), tf.constant([[math.nan, 0.0]])
    assert auroc(good, bad).numpy().tolist() == [0.5]
    assert auroc(bad, good - 3).numpy().tolist() == [0.5]
