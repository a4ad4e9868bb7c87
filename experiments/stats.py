"""Compute paired tests of two measurements of the same episodes, means and intervals. No TensorFlow, no scipy.

With d_i = a_i - b_i over n episodes, mean m and sample deviation s:
  paired t   t = m / (s / sqrt(n)), two-sided p from Student's t with n - 1 degrees of freedom; the interval is
             m +- t_{0.975, n - 1} s / sqrt(n).
  Wilcoxon   W = the sum of the ranks of |d_i| where d_i > 0, differences of zero left out, ties with their mean
             rank; p from the normal approximation with the variance corrected for ties. Good from about 20 episodes.
Episodes that are hard for one method are hard for the other. A paired test removes that common part of the variance,
an unpaired test does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

PairedTest = Literal["paired t", "Wilcoxon"]
TESTS: tuple[PairedTest, ...] = ("paired t", "Wilcoxon")


class Paired(NamedTuple):
    """The difference a - b of two measurements, in their unit."""

    difference: float  # mean
    ci95: float  # half-width of its 95% interval, by Student's t
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
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    ci95 = t_quantile(0.975, count - 1) * error
    p = t_p(mean / error if error else math.copysign(math.inf, mean) if mean else 0.0, count - 1)
    return Paired(mean, ci95, wilcoxon_p(differences) if test == "Wilcoxon" else p, count)


def t_p(t: float, freedom: int) -> float:
    """Return P(|T| > |t|) of Student's t: I_x(freedom / 2, 1 / 2), x = freedom / (freedom + t^2)."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


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
    count = len(kept)
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - float((ties**3 - ties).sum()) / 48
    z = (float(ranks[kept > 0].sum()) - mean) / math.sqrt(variance) if variance else 0.0
    return math.erfc(abs(z) / math.sqrt(2))


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
    """Return the mean and the half-width of its 95% interval, 1.96 * s / sqrt(n), s with n - 1.

    Sums are exact. Needs at least 2 values.
    """
    count = len(values)
    mean = exact_sum(values) / count
    variance = exact_sum((value - mean) * (value - mean) for value in values) / (count - 1)
    return mean, 1.96 * math.sqrt(variance / count)


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
