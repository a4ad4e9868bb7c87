"""Compute paired tests of two measurements of the same episodes, means and intervals. No TensorFlow, no scipy.

Every 95% interval of a mean over n episodes with the sample deviation s is mean +- t_{0.975, n - 1} s / sqrt(n), by
Student's t. Where fewer than `FEW` episodes all have the same value, s = 0 says nothing about other episodes, and there
is no interval.

With d_i = a_i - b_i over n episodes, mean m and sample deviation s:
  paired t   t = m / (s / sqrt(n)), two-sided p from Student's t with n - 1 degrees of freedom. Where s = 0, t is not
             defined, and p is that of Wilcoxon.
  Wilcoxon   W = the sum of the ranks of |d_i| where d_i > 0, differences of zero left out, ties with their mean
             rank. Up to `EXACT` differences p is exact: the share of the 2^n signs whose W is as far from its mean.
             Above it is the normal approximation with the variance corrected for ties.
Episodes that are hard for one method are hard for the other. A paired test removes that common part of the variance,
an unpaired test does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

PairedTest = Literal["paired t", "Wilcoxon"]
TESTS: tuple[PairedTest, ...] = ("paired t", "Wilcoxon")
FEW = 30  # episodes; intervals of fewer are rough, because their values are far from normal
EXACT = 50  # differences that are not zero, of which Wilcoxon's p is exact
ROUNDING = 1e-12  # relative; differences of equal values differ by less


class Paired(NamedTuple):
    """Hold the difference a - b of two measurements, in their unit."""

    difference: float  # mean
    ci95: float  # half-width of its 95% interval, by Student's t; NaN if there is none
    p: float  # two-sided, of no difference
    episodes: int


def compare(a: np.ndarray, b: np.ndarray, test: PairedTest = "paired t") -> Paired:
    """Return the mean difference a - b, its 95% interval and the p-value of a paired test.

    Args:
        a: values `[E]`, finite, E at least 2.
        b: values `[E]` of the same episodes in the same order.
        test: the test that gives p. The interval is always that of Student's t.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"not pairs: {a.shape} and {b.shape}")
    differences = a - b
    count, mean = len(differences), float(differences.mean())
    deviation = float(differences.std(ddof=1))
    if deviation <= ROUNDING * max(float(np.abs(a).max()), float(np.abs(b).max())):
        deviation = 0.0
    if test == "Wilcoxon" or not deviation:
        p = wilcoxon_p(differences)
    else:
        p = t_p(mean / (deviation / math.sqrt(count)), count - 1)
    return Paired(mean, half_width(deviation, count), p, count)


def t_p(t: float, freedom: int) -> float:
    """Return P(|T| > |t|) of Student's t: I_x(freedom / 2, 1 / 2), x = freedom / (freedom + t^2)."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Return t with P(T <= t) = probability > 1/2, by bisection."""
    low, high = 0.0, 1.0
    while t_p(high, freedom) > 2 * (1 - probability):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if t_p(middle, freedom) > 2 * (1 - probability):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def half_width(deviation: float, count: int) -> float:
    """Return the half-width of the 95% interval of a mean, t_{0.975, n - 1} s / sqrt(n).

    Args:
        deviation: sample deviation s of the values, with n - 1.
        count: number of values n, at least 2.

    Returns:
        The half-width, or NaN if fewer than `FEW` values are all equal.
    """
    if deviation == 0 and count < FEW:
        return math.nan
    return t_quantile(0.975, count - 1) * deviation / math.sqrt(count)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Return the two-sided p of the signed-rank test, or 1 if all differences are zero."""
    kept = differences[differences != 0]
    if not len(kept):
        return 1.0
    # Equal accuracies differ by rounding; 12 digits tell ties from differences
    sizes = np.round(np.abs(kept), 12)
    _, group, ties = np.unique(sizes, return_inverse=True, return_counts=True)
    ties = ties.astype(np.float64)  # their cubes exceed integers
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[group]
    count, found = len(kept), float(ranks[kept > 0].sum())
    if count <= EXACT:
        return _exact_p(ranks, found)
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - float((ties**3 - ties).sum()) / 48
    return math.erfc(abs(found - mean) / math.sqrt(2 * variance))


def _exact_p(ranks: np.ndarray, found: float) -> float:
    """Return the share of the 2^n choices of signs whose sum of positive ranks is as far from its mean as `found`.

    Args:
        ranks: the ranks `[n]`, whole or half numbers, n at most `EXACT`.
        found: the sum of the positive ranks.
    """
    doubled = np.round(2 * ranks).astype(int)
    ways = np.zeros(doubled.sum() + 1)  # ways[w]: choices of signs with the doubled sum w; below 2^53, so exact
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    twice = np.arange(len(ways)) * 2 - doubled.sum()  # distances from the mean, times four
    return float(ways[np.abs(twice) >= abs(round(4 * found) - doubled.sum())].sum() / ways.sum())


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b), regularised, by the continued fraction of Abramowitz and Stegun 26.5.8 (modified Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # here the fraction converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


def exact_sum(values: Iterable[float]) -> float:
    """Return the exact sum, as math.fsum, or infinity if no float can hold it."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def mean_and_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of at least 2 values and the half-width of its 95% interval, see `half_width`. Sums are exact."""
    count = len(values)
    mean = exact_sum(values) / count
    variance = exact_sum((value - mean) * (value - mean) for value in values) / (count - 1)
    return mean, half_width(0.0 if len(set(values)) == 1 else math.sqrt(variance), count)


def ci95_of_columns(values: np.ndarray) -> np.ndarray:
    """Return the half-width of the 95% interval of the mean of each column of `[E, N]`, E at least 2, as `[N]`."""
    same = (values == values[0]).all(axis=0) & np.isfinite(values[0])
    with np.errstate(invalid="ignore"):  # of tasks that diverged
        deviations = np.where(same, 0.0, values.std(axis=0, ddof=1))
    return np.array([half_width(float(deviation), len(values)) for deviation in deviations])


def expected_calibration_error(counts: Sequence[float], confidences: Sequence[float], right: Sequence[float]) -> float:
    """Return the sum over bins of (n_b / n) * |right answers / n_b - mean confidence| (Guo et al. 2017, equation 3).

    Args:
        counts: queries of each bin.
        confidences: sum of the confidences of each bin.
        right: right answers of each bin.

    Returns:
        The error, or NaN if there are no queries.
    """
    total = math.fsum(counts)
    gap = math.fsum(abs(good - sure) for sure, good in zip(confidences, right, strict=True))
    return gap / total if total else math.nan


def wilson_ci95(count: int, of: int) -> tuple[float, float]:
    """Return the 95% interval of a share by Wilson's score (1927), of `count` among `of` independent trials."""
    z = 1.959963984540054
    share, spread = count / of, z * z / of
    middle = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4)
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)
