"""Test a trained run in another way, and add another row beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...algorithms.learner import Learner
from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Model, build, refuse_other_images, refuse_other_tested_images
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import Row, read_row
from ..runs.run import refuse_other_code, spec_of
from ..runs.trained import refuse_checkpoint_of_another_spec, retest
from .independence import refuse_dependent
from .record import Files, Trained, advised, record
from .repeatable import refuse_unrepeatable


class Evaluated(NamedTuple):
    """The row of another test and its file. `known` is True if the row existed before."""

    row: Row
    path: Path
    known: bool


def evaluate(run: Path, split: Split, changes: Mapping[str, Any]) -> Evaluated:
    """Test the trained run in the folder `run` in another way, and write another row beside its own.

    If its own test is not done and nothing is changed, that test is done.

    Args:
        run: folder of the run.
        split: the split whose classes are drawn.
        changes: values that differ, of way, shot, query, episodes, episode_seed, inner_steps, protocol, checkpoint,
            dataset (plain data), convert.

    Raises:
        RunError: the run is not trained to its end.
        SpecError: the changes do not fit it.
    """
    directory, trained, _, experiment, path = retest(run, split, changes)
    own = path == directory.result
    if own and path.exists():
        return _known(path, experiment, split)
    with directory.locked():
        if path.exists():
            return _known(path, experiment, split)
        chosen = experiment.test.checkpoint if experiment.kind.is_trained else "last"
        if not own:  # the published number is that of the own test
            experiment = experiment.model_copy(update={"published": None})
        model = restored(directory, experiment, trained.seed, chosen, split)
        training = Trained(chosen, trained.step, trained.seconds, trained.spec_digest)
        refuse_dependent(model, split)
        smaller = "--episodes" if experiment.kind.plays_trials else "--query, --way or --shot"
        with advised(f"`metarun evaluate {run}` with a smaller {smaller}"):
            row = record(model, training, Files.of_run(directory) if own else Files.of_retest(path), split)
        if directory.finished:  # otherwise it says why the own test is missing
            directory.failure.unlink(missing_ok=True)  # of an earlier attempt
    return Evaluated(row, path, False)


def _known(path: Path, experiment: Experiment, split: Split) -> Evaluated:
    """Return a row that exists. Raises RunError if it is of other images than those that were asked for."""
    row = read_row(path)
    refuse_other_tested_images(experiment, split, row.test_content_digest, path)
    return Evaluated(row, path, True)


def restored(directory: RunDirectory, experiment: Experiment, seed: int, chosen: str, split: Split = "test") -> Model:
    """Return the model of a run with the weights of a checkpoint.

    Args:
        directory: the folder of the run.
        experiment: its experiment, with the test.
        seed: its seed.
        chosen: the checkpoint, "best" or "last".
        split: the split that is tested.

    Raises:
        RunError: the checkpoint is missing or of another spec, or data or code of other packages are not those it was
            trained with.
    """
    model = build(experiment, seed, split)
    refuse_unrepeatable(model, split)
    if not experiment.kind.is_trained:
        return model
    state = restore_weights(model.learner, directory, experiment, chosen)
    refuse_other_images(state, model.source, directory)
    return model


def restore_weights(
    learner: Learner, directory: RunDirectory, experiment: Experiment, chosen: str
) -> Mapping[str, Any]:
    """Assign the weights of a run's checkpoint to a learner, and return the state of the checkpoint.

    Args:
        learner: the learner of the run, with other weights.
        directory: the folder of the run.
        experiment: its experiment.
        chosen: the checkpoint, "best" or "last".

    Raises:
        RunError: the checkpoint is missing or of another spec, or the code of other packages is not that which it was
            trained with.
    """
    path = _weights(directory, experiment, chosen)
    state = checkpoint.restore(path, learner.variables)
    if "training_digest" in state:
        refuse_checkpoint_of_another_spec(path, state, spec_of(directory))
    refuse_other_code(state.get("plugins", ""), experiment, directory)
    return state


def _weights(directory: RunDirectory, experiment: Experiment, chosen: str) -> Path:
    if chosen == "best":
        return directory.best
    last = directory.checkpoint(experiment.train.steps)
    if not last.is_file():
        raise RunError(f"{last} is missing, the checkpoint of the last step: train again with --fresh")
    return last
