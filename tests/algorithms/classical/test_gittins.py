"""Gittins indices against published tables and against another way to compute them."""

import numpy as np
import pytest

from metarun.algorithms.classical import gittins
from metarun.algorithms.classical.gittins import gittins_indices, pulls_beyond


@pytest.mark.parametrize(
    ("discount", "successes", "failures", "published"),
    [
        (0.9, 0, 0, 0.7029),
        (0.9, 1, 0, 0.8001),
        (0.9, 0, 1, 0.5001),
        (0.99, 0, 0, 0.8699),
        (0.99, 1, 0, 0.9102),
        (0.99, 0, 1, 0.7005),
    ],
)
def test_published_values(discount, successes, failures, published):
    """Compare with Gittins, Glazebrook and Weber 2011, tables of the Bernoulli reward process."""
    indices = gittins_indices(2, discount)
    assert indices[successes, failures] == pytest.approx(published, abs=6e-5)
    # wrong variants: successes and failures exchanged; the posterior mean
    if successes != failures:
        assert abs(indices[failures, successes] - published) > 0.1
    assert abs((successes + 1) / (successes + failures + 2) - published) > 0.1


def restart_index(a, b, discount, depth=70):
    """Return (1 - discount) times the value of an arm that may restart at any time (Katehakis and Veinott 1987)."""
    wins, losses = np.meshgrid(np.arange(depth + 1), np.arange(depth + 1), indexing="ij")
    mean = (a + wins) / (a + b + wins + losses)
    value = np.full((depth + 2, depth + 2), 0.5 / (1 - discount))
    for _ in range(int(np.log(1e-9) / np.log(discount))):
        going_on = mean * (1 + discount * value[1:, :-1]) + (1 - mean) * discount * value[:-1, 1:]
        value[:-1, :-1] = np.maximum(going_on, going_on[0, 0])
    return (1 - discount) * value[0, 0]


def test_another_way_to_compute_them():
    indices = gittins_indices(6, 0.7)
    for successes, failures in ((0, 0), (3, 1), (1, 4), (6, 0), (0, 6)):
        assert indices[successes, failures] == pytest.approx(restart_index(1 + successes, 1 + failures, 0.7), abs=2e-5)


def test_starting_later_changes_no_more_than_the_stated_bound(monkeypatch):
    full = gittins_indices(5, 0.95)[0, 0]
    for beyond in (10, 40):
        monkeypatch.setattr(gittins, "MOST_BEYOND", beyond)
        assert pulls_beyond(0.95) == beyond
        last = 5 + beyond
        short = gittins_indices(5, 0.95)[0, 0]
        assert 0 <= full - short < 0.95**last / (4 * 0.05 * np.sqrt(last + 3))


def test_indices_rise_with_successes_and_fall_with_failures():
    indices = gittins_indices(30, 0.99)
    done = np.add.outer(np.arange(31), np.arange(31))
    inside = done[:-1, :-1] < 30
    assert (np.diff(indices, axis=0)[:, :-1][inside] > 0).all()
    assert (np.diff(indices, axis=1)[:-1][inside] < 0).all()
    assert (indices[done > 30] == 0).all()
