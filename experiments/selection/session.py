"""Search: train the configurations without tests, choose one by validation, and keep the choice. No TensorFlow.

What is known of a configuration is in the folder of its run, so the same command goes on where a search stopped. A
configuration that failed is tried again, until one is chosen; then the same command keeps the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...datasets.errors import counted
from ..errors import RunError
from ..runs.run import Run
from .results import BEHIND, Result, better_half, choose, read, result_of, write
from .search import Search

# trains the runs that are not finished up to `until`, without tests; those that fail leave their reason
Trainer = Callable[[Sequence[Run]], object]


def select(search: Search, train: Trainer) -> list[Result]:
    """Train the configurations, choose one, and return the results of all, in the order of the search.

    Args:
        search: what is searched.
        train: trains runs. One that fails does not stop the others.

    Raises:
        RunError: all configurations failed; some are neither trained nor failed, since another process has them; the
            folder has results of configurations that this search does not have, or a run of another spec.
        Interrupted: `train` was stopped.
    """
    if known := decided(search):
        return known
    left, found = list(search.configurations), dict[str, Result]()
    for stop in (*search.stops, None):
        runs = search.runs_until(stop, left)
        train(runs)
        for each, run in zip(left, runs, strict=True):
            if (result := result_of(run, each.text)) is None:
                raise RunError(f"{run.directory.path} is not trained up to step {run.until}: the same command goes on")
            found[each.name] = result
        results = [found[each.name] for each in left]
        if all(result.validation is None for result in results):
            write(search.record, _ordered(search, found))
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
        write(search.record, _ordered(search, found))
    return _ordered(search, found)


def decided(search: Search) -> list[Result]:
    """Return the results of this search if it has chosen already, and none otherwise.

    A search may grow: results of fewer configurations are no obstacle, and those of fewer steps neither.

    Raises RunError if the folder has results that do not belong to this search, or runs of another spec.
    """
    runs = search.runs_until(None, search.configurations)
    for run in runs:
        run.refuse_another_spec()
    known, names = read(search.record), {each.name for each in search.configurations}
    valued = [each for each in known if each.validation is not None]
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


def _ordered(search: Search, found: Mapping[str, Result]) -> list[Result]:
    return [found[each.name] for each in search.configurations if each.name in found]


def runs_of_chosen(search: Search, results: Sequence[Result]) -> list[Run]:
    """Return the runs of the chosen configuration, which are trained to their end and tested."""
    (name,) = [each.configuration for each in results if each.chosen]
    return search.runs_of(next(each for each in search.configurations if each.name == name))
