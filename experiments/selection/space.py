"""Draw configurations at random: from ranges such as log:1e-4:1e-1, and from lists of values. No TensorFlow.

Value i of a key is a pure function of the seed, the key and i. So the first of many configurations are those of fewer,
and another key does not change the values of this one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from ..config.load import first_seed
from ..errors import SpecError
from ..runs.sweep import Sweep, keys_of, values_of

DIGITS = 4  # significant ones of a number that is drawn: it is part of the name of a folder
TRIES = 100  # draws per configuration that is wanted, until an unused one is found
KINDS = ("log", "uniform", "int")
EXPECTED = "expected log:LOW:HIGH, uniform:LOW:HIGH or int:LOW:HIGH, with LOW below HIGH"


class Range(NamedTuple):
    """Hold a range of values from `low` to `high`, both of them included."""

    kind: str  # log: the logarithm is uniform; uniform; int: whole numbers, equally likely
    low: float
    high: float

    def at(self, share: float) -> str:
        """Return the value below which this share of the range lies, in [0, 1), as -s takes it."""
        if self.kind == "int":
            return str(int(self.low) + math.floor(share * (int(self.high) - int(self.low) + 1)))
        low, high = (math.log(self.low), math.log(self.high)) if self.kind == "log" else (self.low, self.high)
        value = low + share * (high - low)
        rounded = float(f"{math.exp(value) if self.kind == 'log' else value:.{DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))


def ranges(overrides: Sequence[str]) -> dict[str, Range]:
    """Return the range of each override KEY=KIND:LOW:HIGH, by the override. Raises SpecError for malformed ones."""
    found, problems = {}, []
    for override in overrides:
        kind, *ends = override.partition("=")[2].strip().split(":")
        if kind not in KINDS or not ends:
            continue
        try:
            low, high = map(int if kind == "int" else float, ends)
            if not -math.inf < low < high < math.inf or (kind == "log" and low <= 0):
                raise ValueError
            found[override] = Range(kind, low, high)
        except ValueError:
            above = ", both above 0" if kind == "log" else ", both whole numbers" if kind == "int" else ""
            problems.append(f"-s {override}: {EXPECTED}{above}")
    if problems:
        raise SpecError(problems)
    return found


def drawn(spec: str, overrides: Sequence[str], count: int) -> tuple[Sweep, int]:
    """Return configurations drawn at random, all different, and the seed of the draws: the first seed of the spec.

    Args:
        spec: the spec.
        overrides: KEY=VALUE, KEY=A,B,C (each equally likely), or a range.
        count: number of configurations.

    Raises:
        SpecError: no override is a range, there are too few different configurations, or the spec cannot be read. Its
            values are not checked here: those that are drawn are checked when they are loaded.
    """
    found = ranges(overrides)
    if not found:
        raise SpecError(
            [f"--random {count} draws from ranges, and there is none: add one, such as -s KEY=log:1e-4:1e-1"]
        )
    keys = keys_of(overrides)
    choices = [[] if override in found else values_of(override) for override in overrides]
    first = [found[override].at(0.0) if override in found else choices[n][0] for n, override in enumerate(overrides)]
    given = [f"{key}={value}" for key, value in zip(keys, first, strict=True)]
    seed = first_seed(spec, given)
    combinations: dict[tuple[str, ...], None] = {}
    for number in range(TRIES * count):
        shares = [_share(seed, key, number) for key in keys]
        values = (
            found[override].at(share) if override in found else some[math.floor(share * len(some))]
            for override, some, share in zip(overrides, choices, shares, strict=True)
        )
        combinations[tuple(values)] = None
        if len(combinations) == count:
            break
    else:
        raise SpecError(
            [f"--random {count}: only {len(combinations)} different configurations were found: ask for fewer"]
        )
    varied = tuple(n for n, override in enumerate(overrides) if override in found or len(choices[n]) > 1)
    return Sweep(keys, varied, count, list(combinations)), seed


def _share(seed: int, key: str, number: int) -> float:
    """Return draw `number` of a key, uniform in [0, 1)."""
    digest = hashlib.sha256(f"{seed} {key} {number}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
