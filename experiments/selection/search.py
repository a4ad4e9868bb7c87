"""A search: the configurations of a spec among which validation chooses, and what cannot be chosen so. No TensorFlow.

All configurations are trained with one seed, the first of the spec, and are validated on the same tasks. Their tests
are withheld. With successive halving (Jamieson and Talwalkar 2016) all train up to a part of their steps, the better
half goes on to twice that, and so on; the last two train to the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..config.experiment import Experiment
from ..config.load import load
from ..config.messages import differences
from ..errors import SpecError
from ..runs.run import Run
from ..runs.sweep import every_combination, grid, refuse_too_many
from .results import half_of
from .space import drawn, ranges

SILENT = {"in_memory"}  # options of a dataset that change no validation task


class Configuration(NamedTuple):
    """Hold one of the configurations of a search."""

    settings: tuple[str, ...]  # what is its own, as -s takes it: ("optimizer.learning_rate=0.01", "train.way=5")
    run: Run  # of the seed of the search

    @property
    def text(self) -> str:
        """Return its settings as one text."""
        return " ".join(self.settings)

    @property
    def name(self) -> str:
        """Return the name of its experiment, which is that of the folder of its runs."""
        return self.run.experiment.name


class Search(NamedTuple):
    """Hold what is searched, and the seeds that the chosen configuration is trained with."""

    name: str  # of the spec, without the values of a configuration
    out: Path  # the folder of all runs
    configurations: tuple[Configuration, ...]  # in the order of the command
    seeds: tuple[int, ...]  # of the chosen one
    stops: tuple[int, ...] = ()  # the steps at which the better half goes on
    words: str = ""  # how the configurations were made

    @property
    def record(self) -> Path:
        """Return the path of the file that has the choice."""
        return self.out / self.name / "selection.csv"

    def at(self, out: Path) -> Search:
        """Return the search with its runs in another place."""
        configurations = (
            Configuration(each.settings, Run.at(out, each.run.experiment, each.run.seed))
            for each in self.configurations
        )
        return self._replace(out=out, configurations=tuple(configurations))

    def runs_until(self, stop: int | None, some: Sequence[Configuration]) -> list[Run]:
        """Return the runs of some configurations up to a step, or to their ends for None, without tests."""
        return [replace(each.run, until=stop or each.run.experiment.train.steps) for each in some]

    def counts(self) -> list[int]:
        """Return how many configurations train up to each stop, and to the end, if none fails."""
        counts = [len(self.configurations)]
        for _ in self.stops:
            counts.append(half_of(counts[-1]))
        return counts

    def runs_of(self, chosen: Configuration) -> list[Run]:
        """Return the runs of the chosen configuration, which are tested. That of the search's seed is continued."""
        runs = [Run.at(self.out, chosen.run.experiment, seed) for seed in self.seeds]
        return [replace(run, selected_of=len(self.configurations)) for run in runs]


def search_of(
    specs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], out: Path, draws: int = 0, halve: bool = False
) -> Search:
    """Return the search that a command asks for.

    Args:
        specs: the spec, a file or the name of one that ships.
        overrides: KEY=VALUE, KEY=A,B,C for several values, or with `draws` a range.
        seeds: those of the chosen configuration; none: the seeds of the spec.
        out: the folder of all runs.
        draws: number of configurations to draw at random; 0: all combinations of the values.
        halve: whether only the better half goes on, step by step.

    Raises:
        SpecError: the spec has mistakes, or its configurations cannot be compared by validation.
    """
    if len(specs) > 1:
        raise SpecError([f"--select chooses among the settings of one spec: give one SPEC, not {len(specs)}"])
    if draws:
        sweep, seed = drawn(specs[0], overrides, draws)
        words = f"{draws} configurations, drawn with seed {seed}, the first seed of the spec"
    else:
        if found := ranges(overrides):
            raise SpecError([f"-s {each} is a range: say how many to draw from it, --random N" for each in found])
        sweep = every_combination(overrides)
        words = f"{sweep.size} configurations"
    if not sweep.varied:
        raise SpecError(["--select has nothing to choose from: give several values, such as -s KEY=A,B,C"])
    refuse_too_many(sweep.size)
    combinations = list(sweep.combinations)
    runs: dict[str, Run] = {}
    for run in grid(specs, sweep._replace(combinations=combinations), [], out):
        runs.setdefault(run.experiment.name, run)  # that of the first seed
    configurations = tuple(map(Configuration, map(sweep.settings, combinations), runs.values()))
    if problems := [*dict.fromkeys(_without_validation(configurations)), *_incomparable(configurations)]:
        raise SpecError(problems)
    given = zip(sweep.keys, combinations[0], strict=True)
    plain = load(specs[0], [f"{key}={value}" for key, value in given]).experiment
    stops = halvings([each.run.experiment for each in configurations]) if halve else ()
    return Search(plain.name, out, configurations, tuple(dict.fromkeys(seeds)) or plain.seeds, stops, words)


def _without_validation(configurations: Sequence[Configuration]) -> Iterator[str]:
    for experiment in (each.run.experiment for each in configurations):
        if not experiment.kind.is_trained:
            yield f"--select: {experiment.algorithm.name} is not trained, so there is no validation to choose by"
        elif experiment.validation is None:
            yield "--select chooses by validation, and the spec has `validation: null`: give it a section `validation`"


def _incomparable(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Yield the first settings that change the validation itself, and the first that change nothing but the test."""
    first, *others = configurations
    for other in others:
        if words := differences(judged(first.run.experiment), judged(other.run.experiment)):
            yield (
                f"--select: {_apart(first, other)} are validated in different ways ({words}), so that their values "
                "cannot be compared: give that key one value"
            )
            break
    trainings: dict[str, Configuration] = {}
    for each in configurations:
        experiment = each.run.experiment
        same = trainings.setdefault(f"{experiment.training_digest} {judged(experiment)}", each)
        if same is not each:
            yield (
                f"--select: {_apart(same, each)} are one training with one validation: that key has no effect on what "
                "is chosen, so give it one value"
            )
            break


def _apart(one: Configuration, other: Configuration) -> str:
    """Return the settings in which two configurations differ: "train.shot=1 and train.shot=5"."""
    pairs = [pair for pair in zip(one.settings, other.settings, strict=True) if pair[0] != pair[1]]
    return " and ".join(" ".join(some) for some in zip(*pairs, strict=True))


def judged(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the tasks of a validation and how they are judged, as plain data."""
    dataset = experiment.dataset
    return {
        "validation": experiment.deciding_training.get("validation"),
        "protocol": experiment.protocol,
        "dataset": dataset.model_dump(mode="json", exclude_none=True, exclude=SILENT | dataset.of_network),
    }


def halvings(experiments: Sequence[Experiment]) -> tuple[int, ...]:
    """Return the steps at which the better half of the configurations goes on: about 1/2^k, ..., 1/4, 1/2 of all steps.

    There are as many as it takes until two are left. Each is a multiple of validation.every, so that a run that goes
    on is the same as one that never stopped.

    Raises:
        SpecError: there are fewer than three configurations, their lengths or schedules do not allow it, or the first
            stop comes before the first validation.
    """
    count, left, parts = len(experiments), len(experiments), 0
    while left > 2:
        left, parts = half_of(left), parts + 1
    if not parts:
        raise SpecError(["--halving needs three configurations or more: with two there is no half to leave"])
    problems = []
    for schedule in dict.fromkeys(each.optimizer.schedule for each in experiments if each.optimizer.depends_on_length):
        problems.append(
            f"--halving: optimizer.schedule {schedule} ends with the last step, so a training that stops in the middle "
            "says little of its end: use constant or step, or leave --halving out"
        )
    lengths = {each.train.steps for each in experiments}
    if len(lengths) > 1:
        problems.append("--halving divides train.steps into parts: give it one value")
    steps, validation = min(lengths), experiments[0].validation
    every = validation.every if validation else 1
    stops = tuple(steps // 2**part // every * every for part in range(parts, 0, -1))
    if not stops[0]:
        lower = f", or lower validation.every to {steps // 2**parts}" if steps >= 2**parts else ""
        problems.append(
            f"--halving of {count} configurations stops first at 1/{2**parts} of train.steps {steps}, before the first "
            f"validation (every {every} steps): raise train.steps to {2**parts * every}{lower}"
        )
    if problems:
        raise SpecError(problems)
    assert all(one < other for one, other in pairwise((*stops, steps)))
    return stops
