"""Test a trained run in another way, and add another row beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...algorithms.heads.learner import with_head
from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..model import Model, refuse_other_tested_images
from ..runs.rows import Judged, Row, read_row
from ..runs.trained import Retest, retest
from .independence import refuse_dependent
from .judges import calibrated, temperature_of, unknown_of
from .measure import Evaluation, test_of
from .partial import FeatureFile
from .record import Files, advised, record
from .restore import refuse_missing, restored


class Evaluated(NamedTuple):
    """Hold the row of another test and its file. `known` is True if the row existed before."""

    row: Row
    path: Path
    known: bool


def evaluate(run: Path, split: Split, changes: Mapping[str, Any], judged: Judged = "") -> Evaluated:
    """Test the trained run in the folder `run` in another way, and write another row beside its own.

    If its own test is not done and nothing is changed, that test is done.

    Args:
        run: folder of the run.
        split: the split whose classes are drawn.
        changes: values that differ, of way, shot, query, episodes, episode_seed, inner_steps, protocol, checkpoint,
            dataset (plain data), convert.
        judged: what is judged besides, or in place of, the answers, see `Row.judged`.

    Raises:
        RunError: the run is not trained to its end, or cannot be judged so.
        SpecError: the changes do not fit it.
        DataError: data are missing or too few.
    """
    asked = retest(run, split, changes, judged)
    directory, trained, _, experiment, path = asked
    own = path == directory.result
    if own and path.exists():
        return _known(path, experiment, split)
    temperature = temperature_of(asked).temperature if judged == "calibrated" and not path.exists() else 1.0
    with directory.locked():
        if path.exists():
            return _known(path, experiment, split)
        chosen = experiment.test.checkpoint if experiment.kind.is_trained else "last"
        if not own:  # the published number is that of the own test
            experiment = experiment.model_copy(update={"published": None})
        model = restored(directory, experiment, trained.seed, chosen, split)
        refuse_dependent(model, split)
        smaller = "--episodes" if experiment.kind.plays_trials else "--query, --way or --shot"
        with advised(f"`metarun evaluate {run}` with a smaller {smaller}"):
            evaluation = _evaluation(model, asked, split, judged, temperature)
            files = Files.of_run(directory) if own else Files.of_retest(path)
            kept = None if own else FeatureFile(directory.features, asked.spec, model, split)
            row = record(model, trained, chosen, files, split, evaluation, kept)
        if kept:
            kept.save()
        if directory.finished:  # otherwise it says why the own test is missing
            directory.failure.unlink(missing_ok=True)  # of an earlier attempt
    return Evaluated(row, path, False)


def _known(path: Path, experiment: Experiment, split: Split) -> Evaluated:
    """Return a row that exists. Raises RunError if it is of other images than those that were asked for."""
    row = read_row(path)
    refuse_other_tested_images(experiment, split, row.test_content_digest, path)
    return Evaluated(row, path, True)


def _evaluation(model: Model, asked: Retest, split: Split, judged: Judged, temperature: float) -> Evaluation:
    """Return the evaluation of a test that is judged in some way.

    Raises:
        RunError: the learner lacks a method.
        DataError: the split has too few classes.
    """
    learner, where = with_head(model.learner, model.experiment.test.head), asked.directory.path
    if judged == "unknown":
        refuse_missing(learner, ("fit", "classify"), asked.experiment, where)
        return unknown_of(model, split)
    if judged == "calibrated":
        refuse_missing(learner, ("predict",), asked.experiment, where)
        return test_of(model, split, calibrated(temperature))
    return test_of(model, split)
