"""What filling a paper's table would take: state, hours and data of each cell. No TensorFlow, but in `hours`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ..datasets import cache
from ..datasets.errors import DataError
from ..datasets.options import ImageFolderOptions
from .errors import RunError
from .plan import BLOCKED, Planned, by_cell
from .spec import Experiment


def listing(
    planned: Sequence[Planned], hours: Callable[[Experiment], float], alive: Collection[Path] = ()
) -> Iterator[str]:
    """One line a cell as soon as it is known, then the sum. `hours` measures one seed of an experiment; it is asked
    once for each model that is not finished and whose data are here. `alive` are the folders of submitted runs."""
    cells = by_cell(planned)
    width = max(map(len, cells))
    names = {one.directory.path: one.cell.name for one in reversed(planned)}  # the first cell of each model
    yield f"{'cell':<{width}}  {'hours':>6}  state; data"
    total, unknown = 0.0, []
    for name, seeds in cells.items():
        first = seeds[0]
        states = [
            "queued or running" if one.directory.path.resolve() in alive and not one.directory.finished else one.state
            for one in seeds
        ]
        state = ", ".join(told if len(seeds) == 1 else f"{count} {told}" for told, count in Counter(states).items())
        todo = [one for one, told in zip(seeds, states, strict=True) if told not in BLOCKED]
        left, shared, data = _left(todo), names[first.directory.path], needs(first.experiment)
        shown = ""
        if shared != name:
            state += f" (the model of {shared})"
        elif left and absent(first.experiment):
            unknown.append(name)
            shown = "?"
        elif left:
            try:
                took = left * hours(first.experiment)
            except (DataError, RunError) as error:
                unknown.append(name)
                shown, state = "?", f"{state}; cannot start: {error}"
            else:
                total += took
                shown = f"{took:.2f}" if took >= 0.005 else "<0.01"
        yield f"{name:<{width}}  {shown:>6}  {state}; {data}"
    missing = f", without {', '.join(unknown)}" if unknown else ""
    yield f"about {total:.2f} hours of training on this machine, by a short measurement{missing}"


def needs(experiment: Experiment) -> str:
    """What data an experiment reads, and how they come where they are not here."""
    name = experiment.dataset.name
    if isinstance(experiment.dataset, ImageFolderOptions) and absent(experiment):
        return f"{name}, not here: {experiment.dataset.path} is not a folder"
    if name not in cache.PARTS:
        return f"{name}, nothing to fetch"
    if not absent(experiment):
        return f"{name}, ready"
    way = "`metarun data fetch` or `import`" if name == "omniglot" else "`metarun data import`"
    return f"{name}, not here: {way} {name}"


def absent(experiment: Experiment) -> bool:
    """Whether it reads data that are not in the cache, or in no folder."""
    if isinstance(experiment.dataset, ImageFolderOptions):
        return not experiment.dataset.path.is_dir()
    return not all(map(cache.read, cache.PARTS.get(experiment.dataset.name, ())))


def _left(seeds: Sequence[Planned]) -> float:
    """Trainings that are still to be done, parts of them included."""
    total = ((one, one.experiment.train.steps) for one in seeds if not one.directory.finished)
    return sum(1 - one.step / steps if steps else 1.0 for one, steps in total)
