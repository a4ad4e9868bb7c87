"""A sweep: specs x values of overrides x seeds, each run with a name of its own. Pure; no TensorFlow."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config.load import load, told_apart
from ..errors import SpecError
from .run import Run

LARGEST = 100_000  # runs; more is a mistyped range


def grid(specs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], out: Path) -> list[Run]:
    """Every run, spec after spec; an override KEY=A,B,C stands for one value after the other, and the name of the
    experiment then ends in -KEY-A. `seeds` replace those of the specs. SpecError lists all mistakes."""
    choices = [_choices(override) for override in overrides]
    if len(specs) * len(seeds or "1") * math.prod(map(len, choices)) > LARGEST:
        raise SpecError([f"more than {LARGEST} runs: submit them in parts"])
    keys = [override.partition("=")[0].strip() for override in overrides]
    varied = [number for number, values in enumerate(choices) if len(values) > 1]
    short = _short([keys[number] for number in varied])
    runs, problems = [], []
    for spec in specs:
        for values in itertools.product(*choices):
            told = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
            try:
                experiment = load(spec, told).experiment
                parts = [f"-{key}-{_safe(values[number])}" for key, number in zip(short, varied, strict=True)]
                experiment = experiment.model_copy(update={"name": experiment.name + "".join(parts)})
                if len(experiment.name) > 100:
                    raise SpecError([f"{experiment.name} is too long a name: shorten the spec's own, or the values"])
            except SpecError as error:
                problems += told_apart(spec, error.problems, specs)
                continue
            for seed in dict.fromkeys(seeds) or experiment.seeds:
                runs.append(Run.at(out, experiment, seed))
    twice = [path for path, count in Counter(run.directory.path for run in runs).items() if count > 1]
    problems += [f"two runs would be in {path}: rename a spec, or leave one value out" for path in twice]
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return runs


def parse_seeds(text: str) -> list[int]:
    """`0-4` or `0,2,5` or both; ValueError for anything else."""
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


def _choices(override: str) -> list[str]:
    """The values of KEY=A,B,C; commas within brackets and quotes part nothing."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError([f"-s {override}: expected key=value or key=value,value,..."])
    values = [value.strip() for value in _split(text)]
    if len(values) > 1 and not all(values):
        raise SpecError([f"-s {override}: a value is missing between two commas"])
    if doubles := [value for value, count in Counter(values).items() if count > 1]:
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


def _short(keys: Sequence[str]) -> list[str]:
    """The last word of each key, or all of it where two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for word, key in zip(last, keys, strict=True)]


def _safe(value: str) -> str:
    """As a part of a name, in which 1, -1, 1e3 and 1e-3 differ."""
    value = re.sub(r"(^|[\s,\[({:])-", r"\1minus", value.replace("e+", "e"))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-") or "empty"
