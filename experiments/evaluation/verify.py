"""Verify a finished run: are its files those of one run, and does its checkpoint give the values that it reports?"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Model, build
from ..runs import checkpoint, environments
from ..runs.archive import checked, tested_checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import Row
from ..runs.run import refuse_other_code
from ..stats import exact_sum, expected_calibration_error, mean_and_ci95, t_quantile
from .independence import TOLERANCE
from .measure import Measurement, test_of
from .repeatable import refuse_unrepeatable
from .restore import restored
from .tuning import chosen_value

NORMAL = 1.959963984540054  # of the intervals in rows of older versions
DIGITS = 1e-6  # relative, of means; files have nine digits
SHOWN = 5  # differences that a message lists
FEW_TRIALS = 0.05  # share of trials that rounding may turn elsewhere: one other action changes all that follows
Lines = list[dict[str, str]]


class Verified(NamedTuple):
    """Hold a run whose files and values agree."""

    tested: int  # episodes that were tested again
    episodes: int  # of the run's test
    how: str  # bit for bit, or the tolerance and why


def verify(directory: RunDirectory, episodes: int) -> Verified:
    """Check the files of a run against each other, then test its first episodes again and compare their values.

    Values are equal bit for bit, to the nine digits of episodes.csv, where the run was tested on a machine of this
    kind, see `environments.unlike`. Elsewhere they are within a tolerance.

    Args:
        directory: the folder of a finished run.
        episodes: the number of episodes.

    Raises:
        RunError: files contradict each other, or values differ; the message lists the first ones.
        DataError: the data are missing, or are not those of the run.
    """
    row, spec = checked(directory)
    refuse_other_code(row.plugins, spec, directory)
    lines = _lines(directory, row)
    if problems := list(_contradictions(directory, row, spec, lines)):
        raise RunError(_told(f"{directory.path} was changed after its test", problems))
    model = _model(directory, row, spec)
    if row.content_digest and row.content_digest != (now := model.source.content_digest[:16]):
        raise RunError(f"{model.source.name} has other data (digest {now}) than the run (digest {row.content_digest})")
    tested = min(episodes, row.episodes)
    measurement = (
        test_of(model).ready(model.training_source).measure(f"{spec.name} seed {row.seed} again", first=tested)
    )
    unlike = environments.unlike(directory.environment)
    how = "bit for bit, as on a machine of the same kind"
    if unlike:
        how = f"within {_tolerance(spec)}, because the run was tested elsewhere ({unlike})"
    differing = list(_differing(lines, measurement, bool(unlike), row, spec))
    if tested == row.episodes and measurement.episodes_digest != row.episodes_digest:
        differing.append(f"episodes_digest is {row.episodes_digest}, of these tasks {measurement.episodes_digest}")
    elif unlike and spec.kind.plays_trials and len(differing) <= math.ceil(FEW_TRIALS * tested):
        differing = []
    if differing:
        raise RunError(_told(f"{directory.path} differs when it is tested again, compared {how}", differing))
    return Verified(tested, row.episodes, how)


def _told(heading: str, problems: Sequence[str]) -> str:
    """Return a message with the first problems, a line each."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n".join([f"{heading}:", *(f"  {each}" for each in [*problems[:SHOWN], *more])])


def _model(directory: RunDirectory, row: Row, spec: Experiment) -> Model:
    """Return the model of a run with the weights, or the tuned parameter, that its row measures."""
    if spec.kind.is_trained:
        return restored(directory, spec, row.seed, row.checkpoint)
    model = build(spec, row.seed, "test")
    refuse_unrepeatable(model)
    learner = model.learner
    if learner.grid:
        with directory.tuning.open(newline="", encoding="utf-8") as file:
            means = [float(line["total_reward"]) for line in csv.DictReader(file)]
        learner.chosen = learner.grid[means.index(max(means))]
    if chosen_value(learner, spec) != row.tuned:
        raise RunError(f"{directory.path}: the row has {row.tuned}, tuning.csv {chosen_value(learner, spec)}")
    return model


def _lines(directory: RunDirectory, row: Row) -> Lines:
    """Return the lines of episodes.csv. Raises RunError if it is not the file of so many episodes."""
    try:
        with directory.episodes.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file, strict=True))
        if [line["episode"] for line in lines] != [str(number) for number in range(row.episodes)]:
            raise ValueError(f"its lines are not those of {row.episodes} episodes in order")
        for line in lines:
            [float(value) for value in line.values()]
        if row.metric not in lines[0]:
            raise ValueError(f"it has no column {row.metric}")
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{directory.episodes} is not whole: {error}") from None
    return lines


def _contradictions(directory: RunDirectory, row: Row, spec: Experiment, lines: Lines) -> Iterator[str]:
    """Yield in what the row of a run differs from its other files, whose digests it has or whose means it is."""
    columns = {name: [float(line[name]) for line in lines] for name in lines[0]}
    for name in dict.fromkeys([row.metric, "negative_log_likelihood", "regret", "optimal_actions"]):
        told = row.mean if name == row.metric else getattr(row, name, None)
        mean = exact_sum(columns[name]) / row.episodes if name in columns else math.nan
        if not _close(told, mean):
            label = "mean" if name == row.metric else name
            yield f"{label} of the row is {told}, and the mean of {name} in {directory.episodes.name} {mean:.9g}"
    _, ci95 = mean_and_ci95(columns[row.metric])
    older = ci95 * NORMAL / t_quantile(0.975, row.episodes - 1)
    if not (_close(row.ci95, ci95) or _close(row.ci95, older)):
        yield f"ci95 of the row is {row.ci95}, and that of {row.metric} in {directory.episodes.name} {ci95:.9g}"
    decisive = [columns[name] for name in (row.metric, "negative_log_likelihood") if name in columns]
    diverged = sum(not all(map(math.isfinite, values)) for values in zip(*decisive, strict=True))
    if row.diverged not in (None, diverged):
        yield f"diverged of the row is {row.diverged}, and {diverged} in {directory.episodes.name}"
    if row.expected_calibration_error is not None and directory.calibration.is_file():
        told, found = row.expected_calibration_error, _calibration_error(directory)
        if not _close(told, found):
            yield f"expected_calibration_error of the row is {told}, and that of {directory.calibration.name} {found}"
    weights = tested_checkpoint(directory, spec, row)
    if weights and row.weights_digest:
        found = checkpoint.digest_of(checkpoint.read(weights)[1])
        if found != row.weights_digest:
            yield f"{weights.name} has weights of digest {found}, the row is of {row.weights_digest}"
    init = getattr(spec.network, "init_digest", None) or ""
    if row.init != init:
        yield f"init of the row is {row.init or 'empty'}, and {init or 'empty'} in the spec"


def _calibration_error(directory: RunDirectory) -> float:
    try:
        with directory.calibration.open(newline="", encoding="utf-8") as file:
            bins = list(csv.DictReader(file))
        columns = ([float(each[name]) for each in bins] for name in ("queries", "confidence", "right"))
        return expected_calibration_error(*columns)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{directory.calibration} is not whole: {error}") from None


def _close(told: float | None, found: float, relative: float = DIGITS) -> bool:
    """Return whether a value of a row is that of its episodes; a row has None for what is not finite."""
    if told is None or not math.isfinite(found):
        return told is None and not math.isfinite(found)
    return math.isclose(told, found, rel_tol=relative, abs_tol=relative)


def _differing(
    lines: Sequence[Mapping[str, str]], measurement: Measurement, elsewhere: bool, row: Row, spec: Experiment
) -> Iterator[str]:
    """Yield the episodes whose values differ, each with its first such value."""
    answer = 1 / ((row.way or 1) * (row.query or 1))  # one of the queries
    tolerance = TOLERANCE[spec.precision]
    for number, values in enumerate(zip(*measurement.values.values(), strict=True)):
        for name, value in zip(measurement.values, values, strict=True):
            told, found = lines[number].get(name, "missing"), f"{value:.9g}"
            if told == found:
                continue
            if elsewhere and told != "missing":
                allowed = tolerance * max(1.0, abs(value)) + (answer if name.startswith("accuracy") else 0.0)
                if abs(float(told) - value) <= allowed:
                    continue
            yield f"episode {number}: {name} is {told} in episodes.csv, and {found} now"
            break


def _tolerance(spec: Experiment) -> str:
    """Return the tolerance of another kind of machine in words."""
    words = f"{TOLERANCE[spec.precision]:g} of a value, or of 1 if that is more"
    if spec.kind.plays_trials:
        return f"{words}, in all but {100 * FEW_TRIALS:g} % of the trials"
    return words if spec.dataset.regression else f"{words}, and one query in accuracies"
