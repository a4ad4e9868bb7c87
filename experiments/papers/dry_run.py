"""List the state, hours and data of each cell of a paper's table. TensorFlow is used only to measure hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ...datasets.availability import absent, needs
from ...datasets.errors import DataError
from ..config.experiment import Experiment
from ..config.variants import with_test
from ..errors import RunError
from .plan import Planned, Stage, State, by_cell, trainings

Hours = Callable[[Experiment, bool], tuple[float, float]]


def listing(planned: Sequence[Planned], hours: Hours, alive: Collection[Path] = ()) -> Iterator[str]:
    """Yield one line per cell as soon as it is known, then the sum.

    Args:
        planned: the cells and their seeds.
        hours: measures the hours of training and of testing one seed of an experiment; its second argument is whether
            the training is done. It is called once for each unfinished model and each further test whose data are on
            this machine.
        alive: folders of runs that are queued or running.
    """
    cells = by_cell(planned)
    width = max(map(len, cells))
    names = {one.directory.path: one.cell.name for one in reversed(planned)}  # the first cell of each model
    yield f"{'cell':<{width}}  {'hours':>6}  state; data"
    total, unknown = 0.0, []
    for name, seeds in cells.items():
        first = seeds[0]
        states = [
            State(Stage.QUEUED) if one.directory.path.resolve() in alive and not one.directory.finished else one.state
            for one in seeds
        ]
        state = ", ".join(f"{count} {each}" if len(seeds) > 1 else str(each) for each, count in Counter(states).items())
        todo = [one for one, each in zip(seeds, states, strict=True) if not each.is_blocked]
        datasets = trainings([first])[0].datasets
        shared, data, shown = names[first.directory.path], "; ".join(map(needs, datasets)), ""
        models = [one for one in todo if shared == name and not one.directory.finished]
        tests = [one for one in todo if one.row_path != one.directory.result and not one.row_path.is_file()]
        if shared != name:
            state += f" (the model of {shared})"
        if (models or tests) and any(map(absent, datasets)):
            unknown.append(name)
            shown = "?"
        elif models or tests:
            try:
                took = _hours(models, tests, hours)
            except (DataError, RunError) as error:
                unknown.append(name)
                shown, state = "?", f"{state}; cannot start: {error}"
            else:
                total += took
                shown = f"{took:.2f}" if took >= 0.005 else "<0.01"
        yield f"{name:<{width}}  {shown:>6}  {state}; {data}"
    missing = f", without {', '.join(unknown)}" if unknown else ""
    yield f"about {total:.2f} hours on this machine, by short measurements{missing}"


def _hours(models: Sequence[Planned], tests: Sequence[Planned], hours: Hours) -> float:
    """Return the hours of the trainings left, of their tests, and of the further `tests` of one cell."""
    total = 0.0
    if models:
        experiment = models[0].experiment
        left = [one.left for one in models]
        training, test = hours(experiment, not any(left))
        total += sum(left) * training + len(models) * test
    if tests:
        total += len(tests) * hours(with_test(tests[0].experiment, tests[0].cell.changes), True)[1]
    return total
