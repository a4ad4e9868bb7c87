"""The seeds of one experiment as one line: which runs belong together, and their mean and range."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...datasets import DATASETS
from ..errors import RunError
from ..runs.run import digest_of
from .finished import FinishedRun
from .style import Curve, plain


class Spec(NamedTuple):
    """Hold the digests that tell the specs of one experiment apart; the names of the fields are words of labels."""

    spec: str
    images: str


class SeedGroup(NamedTuple):
    """Hold the runs of one experiment, which differ in their seed alone."""

    name: str
    runs: tuple[FinishedRun, ...]
    begun: int  # seeds of the experiment, also those that have no row, or not the numbers of a figure

    @property
    def label(self) -> str:
        """Return the label for the legend: the name, and the number of seeds, or the only seed unless it is 0."""
        first, *others = (run.row.seed for run in self.runs)
        if self.begun > len(self.runs):
            return f"{self.name} ({len(self.runs)} of {self.begun} seeds)"
        if others:
            return f"{self.name} ({len(self.runs)} seeds)"
        return f"{self.name}, seed {first}" if first else self.name


def with_interval(x: np.ndarray, y: np.ndarray, ci95: np.ndarray) -> Curve:
    """Return the curve of one run, whose band is its 95% interval over tasks, `y` plus and minus `ci95`.

    It has a gap where tasks diverged and `y` is not finite.
    """
    y = np.where(np.isfinite(y), y, np.nan)
    return Curve(x, y, y - ci95, y + ci95)


def over_seeds(curves: Sequence[Curve], label: str) -> Curve:
    """Return the mean of several curves, whose band reaches from the lowest to the highest; one curve as it is.

    Only points x that all curves have are kept. Raises RunError, with `label` in its message, if there are none.
    """
    if len(curves) == 1:
        return curves[0]
    x = reduce(np.intersect1d, [curve.x for curve in curves])
    if not len(x):
        raise RunError(f"{label}: its seeds were measured at no common step, draw them one by one")
    values = np.stack([curve.y[np.searchsorted(curve.x, x)] for curve in curves])  # [seeds, N]
    return Curve(x, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def seed_groups(runs: Sequence[FinishedRun]) -> list[SeedGroup]:
    """Group the runs by experiment, spec and images, and by folder if several folders have the same seed."""
    specs: defaultdict[tuple[str, Spec], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        specs[run.row.experiment, _spec_of(run)].append(run)
    groups: dict[tuple[str, Spec, Path | None], list[FinishedRun]] = {}
    for key, members in specs.items():
        for folder, part in _by_folder(members).items():
            groups[(*key, folder)] = part
    spellings = Counter(experiment for experiment, *_ in groups)
    beside = {
        (experiment, folder): {spec for other, spec, place in groups if (other, place) == (experiment, folder)}
        for experiment, _, folder in groups
    }
    alone = len({run.row.algorithm for run in runs}) == len(spellings)
    named = []
    for (experiment, spec, folder), members in groups.items():
        name = members[0].row.algorithm if alone else experiment  # where the algorithm says which experiment is meant
        if spellings[experiment] > 1:
            name = str(folder) if folder else experiment
            known = beside[experiment, folder]
            for place, heading in enumerate(Spec._fields):
                if len({each[place] for each in known}) > 1:
                    name += f", {heading} {spec[place][:6]}"
        begun = len(members) + sum({run.directory.path.parent: run.beside for run in members}.values())
        named.append(SeedGroup(plain(name), tuple(sorted(members, key=lambda run: run.row.seed)), begun))
    return named


def _spec_of(run: FinishedRun) -> Spec:
    """Return the spec of a run; the images tell runs apart if they are a folder of the user."""
    dataset = DATASETS.get(run.row.trained_on)
    return Spec(digest_of(run.directory, run.row), run.row.content_digest if dataset and dataset.located else "")


def _by_folder(runs: Sequence[FinishedRun]) -> dict[Path | None, list[FinishedRun]]:
    """Group the runs of one spec so that no group has a seed twice.

    The key is None if each seed is there once. Otherwise it is the folder of the experiment, or that of the run.
    """
    folders = (lambda run: None, lambda run: run.directory.path.parent, lambda run: run.directory.path)
    parts: dict[Path | None, list[FinishedRun]] = {}
    for folder in folders:
        parts = {}
        for run in runs:
            parts.setdefault(folder(run), []).append(run)
        if all(len({run.row.seed for run in part}) == len(part) for part in parts.values()):
            break
    return parts
