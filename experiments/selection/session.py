"""Search: train the configurations without tests, choose one by validation, and keep the choice. No TensorFlow.

What is known of a configuration is in the folder of its run, so the same command goes on where a search stopped. The
record has all configurations from the beginning, so that none can be left out once its validation is known. A
configuration that diverged is tried again, until one is chosen; then the same command keeps the choice. While one has
failed for another reason, such as a full disk, nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...datasets.errors import counted, first_of
from ..errors import RunError, warn
from ..runs.directory import RunDirectory, runs_below
from ..runs.run import Run, is_searched, readable_spec
from .results import BEHIND, Result, better_half, choose, read, result_before, result_of, write
from .search import Configuration, Search
from .table import why_unknown

# trains the runs that are not finished up to `until`, without tests; those that fail leave their reason
Trainer = Callable[[Sequence[Run]], object]


def select(search: Search, train: Trainer) -> list[Result]:
    """Train the configurations, choose one, and return the results of all, in the order of the search.

    Args:
        search: what is searched.
        train: trains runs. One that diverges does not stop the others.

    Raises:
        RunError: all configurations diverged; one is not trained, since it failed for another reason or another process
            has it; the folder has results that do not belong to this search, or a run of another spec.
        Interrupted: `train` was stopped.
    """
    if known := decided(search):
        return known
    left, found = list(search.configurations), begin(search)
    for stop in (*search.stops, None):
        runs = search.runs_until(stop, left)
        try:
            train(runs)
        finally:
            now = [result_of(run, each.text) for each, run in zip(left, runs, strict=True)]
            found |= {result.configuration: result for result in now if result}
            write(search.record, [*found.values()])
        for run, result in zip(runs, now, strict=True):
            if result is None:
                raise RunError(why_unknown(run))
        results = [found[each.name] for each in left]
        if all(result.validation is None for result in results):
            those = f"all {counted(len(results), 'configuration')}{' that went on' if len(found) > len(left) else ''}"
            raise RunError(f"{those} failed; the first, {results[0].settings}, {results[0].why}")
        if stop is None:
            found |= {result.configuration: result for result in choose(results)}
        else:
            better = better_half(results)
            for number, result in enumerate(results):
                if number not in better and not result.why:
                    found[result.configuration] = result._replace(why=f"{BEHIND} at step {stop}")
            left = [left[number] for number in better]
        write(search.record, [*found.values()])
    return [*found.values()]


def left_at(search: Search, stage: int) -> list[Configuration]:
    """Return the configurations that go on after so many stops of a search with halving, in its order.

    It is the same for every process, and while these configurations train on: a stop counts no later validation.

    Raises RunError if one has not been trained up to one of these stops.
    """
    left = list(search.configurations)
    for stop in search.stops[:stage]:
        results = []
        for each, run in zip(left, search.runs_until(stop, left), strict=True):
            result = result_of(run, each.text)
            if result is None:
                raise RunError(why_unknown(run))
            results.append(result)
        left = [left[number] for number in better_half(results)]
    return left


def begin(search: Search) -> dict[str, Result]:
    """Write the record of a search that begins or grows, and return what it has of each configuration, by its name.

    All configurations are in the record from now on. So the search cannot be made smaller, even if it is killed. Warns
    of those that were tested before.
    """
    names = [each.name for each in search.configurations]
    if tested := [str(run.path) for run in runs_below([search.out / name for name in names]) if run.finished]:
        those = f"{first_of(tested, 3)} had a test before this choice"
        warn(f"{those}, which was not withheld: say so where you report `selected of {len(names)}`")
    known = {each.configuration: each for each in read(search.record) if each.validation is not None}
    found = {
        each.name: known.get(each.name) or result_before(run, each.text)
        for each, run in zip(search.configurations, search.runs_until(None, search.configurations), strict=True)
    }
    found = {name: each._replace(chosen=False, why="" if each.chosen else each.why) for name, each in found.items()}
    write(search.record, [*found.values()])
    return found


def decided(search: Search) -> list[Result]:
    """Return the results of this search if it has chosen already, and none otherwise.

    A search may grow: results of fewer configurations are no obstacle, and those of fewer steps neither.

    Raises RunError if the folder has results that do not belong to this search, or runs of another spec.
    """
    runs = search.runs_until(None, search.configurations)
    for run in runs:
        run.refuse_another_spec()
    known, names = read(search.record), {each.name for each in search.configurations}
    valued = [each for each in known if each.validation is not None or _is_trained(search, each)]
    own = {run.experiment.name: (run.seed, run.as_trained().experiment.training_digest) for run in runs}
    for each in valued:
        seed, digest = own.get(each.configuration, (each.seed, each.training_digest))
        if (seed, digest) != (each.seed, each.training_digest):
            raise RunError(
                f"{search.record} is of another search: {each.settings} had seed {each.seed} (digest of the training "
                f"{each.training_digest}), and now has seed {seed} ({digest}): give this search a name of its own (-s "
                "name=...), choose another --out, or move that file away"
            )
    if foreign := [each for each in valued if each.configuration not in names]:
        raise RunError(
            f"{search.record} has results of {counted(len(foreign), 'configuration')} that this search does not have, "
            f"such as {foreign[0].settings}, and the row would count too few: search among those too, give this search "
            "a name of its own (-s name=...), or choose another --out"
        )
    whole = not any(each.why.startswith(BEHIND) for each in known)
    chosen = any(each.chosen for each in known) and {each.configuration for each in known} == names
    return known if chosen and (search.stops or whole) else []


def _is_trained(search: Search, result: Result) -> bool:
    """Return whether a configuration of the record was trained since, up to where the search stopped it."""
    directory = RunDirectory(search.out / result.configuration / f"seed-{result.seed}")
    until, spec = directory.until, readable_spec(directory)
    return directory.finished or bool(until is not None and spec and is_searched(directory, spec, until))


def runs_of_chosen(search: Search, results: Sequence[Result]) -> list[Run]:
    """Return the runs of the chosen configuration, which are trained to their end and tested."""
    (name,) = [each.configuration for each in results if each.chosen]
    return search.runs_of(next(each for each in search.configurations if each.name == name))
