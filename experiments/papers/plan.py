"""Plan a paper's table: the finished and the missing cells, before anything runs. No TensorFlow."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path

from ..config.checks import published_mistakes, too_small
from ..config.experiment import Experiment
from ..config.variants import with_test, within_budget
from ..errors import RunError, SpecError
from ..runs.continuation import shorter_run
from ..runs.directory import RunDirectory
from ..runs.rows import Row, read_row
from ..runs.run import Run, training_is_done
from ..system import lock
from .definition import Cell, PaperTable, TableError, load_table


class Stage(Enum):
    """Hold the progress of a cell's run, or the reason why it cannot be trained."""

    MISSING = "missing"
    QUEUED = "queued or running"
    IN_USE = "in use"
    INTERRUPTED = "interrupted"
    UNTESTED = "trained, not tested so"
    FINISHED = "finished"
    DAMAGED = "damaged"
    OTHER_SPEC = "another spec in its folder"
    OTHER_SEED = "another seed in its folder"


@dataclass(frozen=True)
class State:
    """Hold the stage of a cell, and details."""

    stage: Stage
    more: str = ""

    @property
    def is_blocked(self) -> bool:
        """Return whether what is in the folder keeps the cell from being trained."""
        return self.stage in (Stage.DAMAGED, Stage.OTHER_SPEC, Stage.OTHER_SEED)

    def __str__(self) -> str:
        return self.stage.value + self.more


@dataclass(frozen=True)
class Planned:
    """Hold a cell for one seed, and the run that fills it."""

    cell: Cell
    run: Run  # trained within the budget
    full: Experiment  # the cell's whole recipe

    @property
    def experiment(self) -> Experiment:
        """Return the experiment that is trained."""
        return self.run.experiment

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return self.run.seed

    @property
    def directory(self) -> RunDirectory:
        """Return the folder of the run."""
        return self.run.directory

    @cached_property
    def row_path(self) -> Path:
        """Return the file of the cell's row, which need not exist yet."""
        changed = with_test(self.experiment, self.cell.changes)
        return self.directory.row_of(self.experiment, changed, self.cell.split)

    @property
    def state(self) -> State:
        """Return the state of the cell, read from its folder now."""
        try:
            found = self.run.stored()
            another = self.run.holds_another_spec(found) and not self.run.replaces_failure()
            if self.directory.finished and self.row_path.is_file():
                read_row(self.row_path)
        except RunError:
            return State(Stage.DAMAGED)
        if another:
            return State(Stage.OTHER_SPEC)
        if found and self.seed not in found.seeds:
            return State(Stage.OTHER_SEED)
        if self.directory.finished:
            return State(Stage.FINISHED if self.row_path.is_file() else Stage.UNTESTED)
        if holder := lock.holder(self.directory.lock):
            return State(Stage.IN_USE, f" by {holder}")
        if self.directory.spec.exists():
            return State(Stage.INTERRUPTED, f" at step {self.step} of {self.experiment.train.steps}")
        if shorter := shorter_run(self.experiment, self.directory):
            return State(Stage.MISSING, f", continues from step {shorter.step} of {shorter.path.parent.name}")
        return State(Stage.MISSING)

    @property
    def finished(self) -> bool:
        """Return whether the cell has its row."""
        return self.state.stage is Stage.FINISHED

    @property
    def step(self) -> int:
        """Return the number of meta-updates that are done already."""
        if self.directory.finished:
            return self.experiment.train.steps
        shorter = shorter_run(self.experiment, self.directory)
        return (shorter or self.directory).step

    @property
    def left(self) -> float:
        """Return the share of the training that is left; 1 of a method without training."""
        steps = self.experiment.train.steps
        if steps and training_is_done(self.directory, self.experiment):
            return 0.0
        return 1 - self.step / steps if steps else 1.0

    @property
    def row(self) -> Row | None:
        """Return the cell's row; None unless it is finished."""
        return read_row(self.row_path) if self.finished else None

    @property
    def budget(self) -> float | None:
        """Return the training tasks as a share of those of the whole recipe; None for a method without training."""
        whole = self.full.train.steps * self.full.train.meta_batch
        return self.experiment.train.steps * self.experiment.train.meta_batch / whole if whole else None


def plan_of(
    name: str, out: Path, seeds: Sequence[int] = (), budget: float = 1.0, precision: str | None = None
) -> list[Planned]:
    """Load a table and plan it, see `load_table` and `plan`.

    Raises:
        SpecError: lists all mistakes, those of the table and those of its cells that can be read.
    """
    try:
        return plan(load_table(name), out, seeds, budget, precision)
    except TableError as error:
        problems = error.problems
        try:
            plan(error.part, out, seeds, budget, precision) if error.part else ()
        except SpecError as more:
            problems += more.problems
        raise SpecError(problems) from None


def check(name: str) -> tuple[int, int]:
    """Return the numbers of cells and of trained models of a table.

    Raises:
        SpecError: lists all mistakes, and all settings that ask for more classes or images than there are.
    """
    planned = plan_of(name, Path())
    problems = []
    for one in planned:
        changed = with_test(one.experiment, one.cell.changes)
        problems += [f"{one.cell.name}: {key}: {message}" for key, message in too_small(changed)]
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return len(by_cell(planned)), len({one.experiment.name for one in planned})


def plan(
    table: PaperTable, out: Path, seeds: Sequence[int] = (), budget: float = 1.0, precision: str | None = None
) -> list[Planned]:
    """Return every cell and seed, in the table's order.

    Args:
        table: the table to fill.
        out: the folder of the runs.
        seeds: replace those of the specs, unless empty. Classical methods keep theirs.
        budget: share of each spec's training steps.
        precision: replaces that of the specs that are trained.

    Raises:
        SpecError: a spec is missing, or cannot be tested as its cell says.
    """
    specs: dict[tuple[str, tuple[str, ...], tuple[str, ...]], tuple[Experiment, Experiment]] = {}
    names: dict[str, tuple[str, str]] = {}  # of experiments -> digest, cell
    planned, problems = [], []
    for cell in table.cells:
        place = f"{table.places[cell.name]}: " if cell.name in table.places else ""
        try:
            model = cell.spec, cell.overrides, cell.variant
            if model not in specs:
                specs[model] = within_budget(cell.spec, budget, cell.overrides, cell.variant, precision)
            experiment, full = specs[model]
            tested = with_test(experiment, cell.changes)
            wrong = published_mistakes(cell.published, tested)
            problems += [f"{cell.name}: published.{key}: {message}" for key, message in wrong]
        except SpecError as error:
            problems += [f"{place}{cell.name}: {problem}" for problem in error.problems]
            continue
        digest, first = names.setdefault(experiment.name, (experiment.digest, cell.name))
        if digest != experiment.digest:
            problems.append(f"{place}{first} and {cell.name} are two models of one name, {experiment.name}: rename one")
        seeded = experiment.kind.is_trained  # otherwise no seed changes its result
        for seed in seeds if seeded and seeds else experiment.seeds:
            planned.append(Planned(cell, Run.at(out, experiment, seed), full))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return planned


def choose(planned: Sequence[Planned], pattern: str) -> list[Planned]:
    """Return the cells whose names match the glob; raises SpecError, with all names, if none does."""
    chosen = [one for one in planned if fnmatch.fnmatchcase(one.cell.name, pattern)]
    if not chosen:
        names = dict.fromkeys(one.cell.name for one in planned)
        raise SpecError([f"--cells {pattern}: no cell has such a name; the cells are {', '.join(names)}"])
    return chosen


def by_model(planned: Sequence[Planned]) -> Mapping[Path, list[Planned]]:
    """Return the cells that each trained model fills, by its folder."""
    models: dict[Path, list[Planned]] = {}
    for one in planned:
        models.setdefault(one.directory.path, []).append(one)
    return models


def trainings(planned: Sequence[Planned]) -> list[Run]:
    """Return one run per model, with the tests of its cells other than its own test."""
    return [
        replace(cells[0].run, tests=tuple(one.cell.changes for one in cells if one.row_path != one.directory.result))
        for cells in by_model(planned).values()
    ]


def by_cell(planned: Sequence[Planned]) -> Mapping[str, list[Planned]]:
    """Return the seeds of each cell, by its name."""
    cells: dict[str, list[Planned]] = {}
    for one in planned:
        cells.setdefault(one.cell.name, []).append(one)
    return cells


def without_blocked(planned: Sequence[Planned]) -> tuple[list[Planned], list[tuple[Planned, RunError]]]:
    """Return the cells that are finished or can be trained, and the others, each with the reason as an error."""
    good, blocked = [], []
    for one in planned:
        try:
            one.run.refuse_another_spec()
            if one.row_path.is_file():
                read_row(one.row_path)
            good.append(one)
        except RunError as error:
            blocked.append((one, error))
    return good, blocked
