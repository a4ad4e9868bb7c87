"""The runs of a command: specs x values of overrides x seeds, each with a folder of its own. No TensorFlow."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config.checks import unshareable
from ..config.load import labelled, load
from ..errors import SpecError, warn
from .run import Run

LARGEST = 100_000  # runs; more is a mistyped range


class Sweep(NamedTuple):
    """Hold the combinations of values that a command gives to some keys."""

    keys: tuple[str, ...]
    varied: tuple[int, ...]  # numbers of the keys whose values are in the names of experiments
    size: int  # number of combinations
    combinations: Iterable[tuple[str, ...]]  # a value for each key

    def settings(self, values: Sequence[str]) -> tuple[str, ...]:
        """Return KEY=VALUE for each varied key of a combination."""
        return tuple(f"{self.keys[number]}={values[number]}" for number in self.varied)


def every_combination(overrides: Sequence[str]) -> Sweep:
    """Return every combination of the values of KEY=A,B,C. Raises SpecError with all overrides that are malformed."""
    choices = _choices(overrides)
    varied = tuple(number for number, values in enumerate(choices) if len(values) > 1)
    return Sweep(keys_of(overrides), varied, math.prod(map(len, choices)), itertools.product(*choices))


def keys_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the key of each override."""
    return tuple(override.partition("=")[0].strip() for override in overrides)


def grid(specs: Sequence[str], overrides: Sequence[str] | Sweep, seeds: Sequence[int], out: Path) -> list[Run]:
    """Return every run, spec after spec.

    Args:
        specs: files, or names of specs that ship.
        overrides: KEY=VALUE, or KEY=A,B,C for one experiment per value, whose name then ends in -KEY-A; or the
            combinations themselves.
        seeds: replace those of the specs, unless empty.
        out: the folder of the runs.

    Raises:
        SpecError: lists all mistakes of all specs, and experiments that share a name.
    """
    keys, varied, size, combinations = overrides if isinstance(overrides, Sweep) else every_combination(overrides)
    refuse_too_many(len(specs) * len(seeds or "1") * size)
    combinations = list(combinations)
    short = _short([keys[number] for number in varied])
    problems = [f"{spec} is given twice: leave one out" for spec in _repeated(specs)]
    experiments, warnings = [], []
    for spec in dict.fromkeys(specs):
        same: dict[str, tuple[str, ...]] = {}  # content of each experiment of this spec -> its values
        for values in combinations:
            values_given = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
            try:
                loaded = load(spec, values_given)
                warnings += loaded.warnings
                experiment = loaded.experiment
                first = same.setdefault(experiment.model_dump_json(), values)
                if first is not values:
                    pairs = zip(keys, first, values, strict=True)
                    alike = [f"{key}={one} and {key}={other}" for key, one, other in pairs if one != other]
                    raise SpecError([f"{', '.join(alike)} are the same experiment: give each value once"])
                parts = [f"-{key}-{_safe(values[number])}" for key, number in zip(short, varied, strict=True)]
                experiment = experiment.model_copy(update={"name": experiment.name + "".join(parts)})
                if len(experiment.name) > 100:
                    raise SpecError([f"{experiment.name} is too long a name: shorten the spec's own, or the values"])
            except SpecError as error:
                problems += labelled(spec, error.problems, specs)
                continue
            experiments.append(experiment)
    twice = _repeated([experiment.name for experiment in experiments])
    problems += [f"two experiments have the name {name}: rename a spec, or leave one out" for name in twice]
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    for warning in dict.fromkeys(warnings):
        warn(warning)
    return [Run.at(out, each, seed) for each in experiments for seed in dict.fromkeys(seeds) or each.seeds]


def refuse_too_many(runs: int) -> None:
    """Raise SpecError for more runs than a command has, unless a range is mistyped."""
    if runs > LARGEST:
        raise SpecError([f"more than {LARGEST} runs: submit them in parts"])


def _repeated(words: Sequence[str]) -> list[str]:
    return [word for word, count in Counter(words).items() if count > 1]


def refuse_unshareable(runs: Sequence[Run], workers: int) -> None:
    """Raise SpecError for every experiment that so many workers cannot train together."""
    reasons = {run.experiment.name: unshareable(run.experiment, workers) for run in runs}
    if problems := [f"{name}: {reason}" for name, reason in reasons.items() if reason]:
        raise SpecError(problems)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `3`, `0-4`, `0,2,5` or a mixture, each once. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        if not match:
            raise ValueError(f"expected seeds such as 0-4 or 0,2,5, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= 2**31 or last - first >= LARGEST:
            raise ValueError(f"{part.strip()} is no range of at most {LARGEST} seeds below 2^31")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    """Return the values of each override; raises SpecError with all that are malformed."""
    choices, problems = [], []
    for override in overrides:
        try:
            choices.append(values_of(override))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return choices


def values_of(override: str) -> list[str]:
    """Return the values of KEY=A,B,C. Commas within brackets and quotes separate nothing."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError([f"-s {override}: expected key=value, for example -s train.steps=100"])
    values = [value.strip() for value in _split(text)]
    if len(values) > 1 and not all(values):
        raise SpecError([f"-s {override}: a value is missing between two commas"])
    if doubles := _repeated(values):
        raise SpecError([f"-s {override}: {doubles[0]} is given twice"])
    return values


def _split(text: str) -> Iterator[str]:
    depth, quote, start = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
        else:
            depth += (letter in "[{(") - (letter in "]})")
    yield text[start:]


def format_seeds(seeds: Sequence[int]) -> str:
    """Return text that `parse_seeds` reads as these seeds, for example 0-4."""
    groups: list[list[int]] = []
    for seed in seeds:
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ",".join(str(each[0]) if len(each) == 1 else f"{each[0]}-{each[-1]}" for each in groups)


def _short(keys: Sequence[str]) -> list[str]:
    """Return the last word of each key, or the whole key if two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for word, key in zip(last, keys, strict=True)]


def _safe(value: str) -> str:
    """Return a value as part of a folder's name. Values such as 1, -1, 1e3 and 1e-3 have different names."""
    value = re.sub(r"(^|[\s,\[({:])-", r"\1minus", value.replace("e+", "e"))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-") or "empty"
