"""Test a trained run in another way, and add another row beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Model, build, refuse_other_images
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import Row, read_row
from ..runs.run import refuse_other_code, retest
from .independence import refuse_dependent
from .record import Files, Trained, record
from .repeatable import refuse_unrepeatable


class Evaluated(NamedTuple):
    """The row of another test and its file. `known` is True if the row existed before."""

    row: Row
    path: Path
    known: bool


def evaluate(run: Path, split: Split, changes: Mapping[str, Any]) -> Evaluated:
    """Test the finished run in the folder `run` in another way, and write another row beside its own.

    Args:
        run: folder of the run.
        split: the split whose classes are drawn.
        changes: values that differ, of way, shot, query, episodes, episode_seed, inner_steps, protocol, checkpoint.

    Raises:
        RunError: the run is not trained.
        SpecError: the changes do not fit it.
    """
    directory, trained, _, experiment, path = retest(run, split, changes)
    if path == directory.result:
        return Evaluated(trained, path, True)
    with directory.locked():
        if path.exists():
            return Evaluated(read_row(path), path, True)
        chosen = experiment.test.checkpoint
        without = experiment.model_copy(update={"published": None})  # the published number is that of the own test
        model = restored(directory, without, trained.seed, chosen, split)
        training = Trained(chosen, trained.train_steps, trained.seconds, trained.spec_digest)
        refuse_dependent(model)
        row = record(model, training, Files.of_retest(path), split)
        directory.failure.unlink(missing_ok=True)  # of an earlier attempt
    return Evaluated(row, path, False)


def restored(directory: RunDirectory, experiment: Experiment, seed: int, chosen: str, split: Split = "test") -> Model:
    """Return the model of a run with the weights of a checkpoint.

    Args:
        directory: the folder of the run.
        experiment: its experiment, with the test.
        seed: its seed.
        chosen: the checkpoint, "best" or "last".
        split: the split that is tested.

    Raises:
        RunError: the checkpoint is missing, or data or code of other packages are not those it was trained with.
    """
    model = build(experiment, seed, split)
    refuse_unrepeatable(model, split)
    state = checkpoint.restore(_weights(directory, chosen), model.learner.variables)
    refuse_other_images(state, model.source, directory)
    refuse_other_code(state.get("plugins", ""), experiment, directory)
    return model


def _weights(directory: RunDirectory, chosen: str) -> Path:
    if chosen == "best":
        return directory.best
    last = directory.checkpoint(read_row(directory.result).train_steps)
    if not last.is_file():
        raise RunError(f"{last} is missing, the checkpoint of the last step: train again with --fresh")
    return last
