"""Build the model of a trained run with the weights of one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...algorithms.learner import Learner
from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Model, build, refuse_other_images
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import read_row
from ..runs.run import refuse_other_code, spec_of
from ..runs.trained import refuse_checkpoint_of_another_spec
from .repeatable import refuse_unrepeatable


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
    path = weights_file(directory, experiment, chosen)
    state = checkpoint.restore(path, learner.variables)
    if "training_digest" in state:
        refuse_checkpoint_of_another_spec(path, state, spec_of(directory))
    refuse_other_code(state.get("plugins", ""), experiment, directory)
    return state


def weights_file(directory: RunDirectory, experiment: Experiment, chosen: str) -> Path:
    """Return the path of a checkpoint of a run, `best` or `last`. Raises RunError if the last one is missing."""
    if chosen == "best":
        return directory.best
    steps = experiment.train.steps
    if experiment.train.patience:
        steps = read_row(directory.result).train_steps if directory.finished else directory.step
    last = directory.checkpoint(steps)
    if not last.is_file():
        raise RunError(f"{last} is missing, the checkpoint of the last step: train again with --fresh")
    return last


def refuse_missing(learner: Any, names: Sequence[str], experiment: Experiment, run: Path) -> None:
    """Raise RunError if a learner, of another package, lacks one of the methods `names`."""
    if missing := [name for name in names if not callable(getattr(learner, name, None))]:
        named = " and no ".join(missing)
        raise RunError(f"{run}: the learner of {experiment.algorithm.name} has no {named}, see docs/extending.md")
