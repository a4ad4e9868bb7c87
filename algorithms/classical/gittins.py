"""Gittins indices of Bernoulli arms (Gittins, Glazebrook and Weber 2011, chapter 8; calibration, section 8.4).

The index of an arm with posterior Beta(a, b) is the sure reward per step, lambda, for which it is equally good to
take lambda for ever or to pull once more and choose again. With values W in units of 1 / (1 - discount) and
p = a / (a + b):

    W(a, b, lambda) = max(lambda, C(a, b, lambda)),
    C(a, b, lambda) = p ((1 - discount) + discount W(a + 1, b, lambda)) + (1 - p) discount W(a, b + 1, lambda),

solved backwards from a + b = 2 + M for a grid of lambda; C - lambda is convex and falls through 0 at the index, which
is interpolated linearly. After M pulls the arm is taken to be known, W = max(lambda, p). That gives away what later
pulls would still teach: at most 1 / (4 sqrt(M + 3)) in W, since the posterior's standard deviation is below
1 / (2 sqrt(M + 3)). C - lambda falls with a slope of at least 1 - discount. So an index after m pulls is too low by
less than discount^(M - m) / (4 (1 - discount) sqrt(M + 3)). M is where that is below `TOLERANCE`, but at most
`MOST_BEYOND` pulls beyond the last that is asked for: for discounts close to 1 this bound says nothing, and the index
is that of an arm which is known after M pulls.
"""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 1e-5
MOST_BEYOND = 1000
GRID = 1001


def gittins_indices(pulls: int, discount: float) -> np.ndarray:
    """Return the indices of arms after s successes and f failures from Beta(1, 1), `[pulls + 1, pulls + 1]`.

    Args:
        pulls: The largest s + f; the index is 0 where s + f > pulls.
        discount: The discount of rewards per pull, in (0, 1).
    """
    sure = np.linspace(0.0, 1.0, GRID)  # lambda
    last = pulls + pulls_beyond(discount)
    worth = np.maximum(sure, _means(last)[:, None])  # [last + 1, grid], W after s = 0 .. last successes
    indices = np.zeros((pulls + 1, pulls + 1))
    for done in range(last - 1, -1, -1):
        mean = _means(done)[:, None]
        worth *= discount
        continuing = worth[1:] + (1 - discount)
        continuing -= worth[:-1]
        continuing *= mean
        continuing += worth[:-1]  # C, [done + 1, grid]
        if done <= pulls:
            successes = np.arange(done + 1)
            indices[successes, done - successes] = _crossings(continuing - sure, sure)
        worth = np.maximum(sure, continuing, out=continuing)
    return indices


def pulls_beyond(discount: float) -> int:
    """Return the number of pulls past the last one at which the backward recursion starts."""
    needed = math.log(TOLERANCE * (1 - discount) * 4) / math.log(discount)
    return min(math.ceil(needed), MOST_BEYOND)


def _means(done: int) -> np.ndarray:
    """Return the posterior means after 0 .. done successes in `done` pulls."""
    return np.arange(1, done + 2) / (done + 2)


def _crossings(falling: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Return the points where each row `[grid]` of a falling function crosses 0."""
    after = np.argmax(falling <= 0, axis=1)
    row = np.arange(len(falling))
    above, below = falling[row, after - 1], falling[row, after]
    return sure[after - 1] + (sure[after] - sure[after - 1]) * above / (above - below)
