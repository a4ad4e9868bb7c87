"""A trained run: the state of its training, and other tests of it. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.errors import DataError
from ..config.experiment import Experiment
from ..config.load import former_digest
from ..config.messages import differences
from ..config.sections import SHAPE
from ..config.variants import with_test
from ..errors import RunError
from . import checkpoint
from .directory import RunDirectory
from .rows import Judged, read_row
from .run import digest_of, refuse_other_code, spec_of, training_is_done


class TrainedRun(NamedTuple):
    """Hold a training that is done."""

    seed: int
    step: int  # meta-updates
    seconds: float  # of training and validation
    spec_digest: str  # of the spec that was trained
    selected_of: int | None = None  # the configurations among which validation chose it


class Retest(NamedTuple):
    """Hold another test of a trained run, as `metarun evaluate` asks for it."""

    directory: RunDirectory
    trained: TrainedRun
    spec: Experiment  # as it was trained
    experiment: Experiment  # with the other test
    path: Path  # the file of the other test's row


def retest(run: Path, split: str, changes: Mapping[str, Any], judged: Judged = "") -> Retest:
    """Return another test of the trained run in the folder `run`. Its own test need not be done.

    Args:
        run: the folder of the run.
        split: the split whose classes are drawn.
        changes: options of the test that differ, as `evaluate` takes them.
        judged: what is judged besides the answers, see `Row.judged`.

    Raises:
        RunError: the run is not trained to its end, or its spec or the code of another package was changed afterwards;
            or it cannot be judged so.
        SpecError: the changes do not fit the run.
        DataError: the split has too few classes for unknown ones.
    """
    directory = RunDirectory(run)
    if not (directory.finished or directory.spec.exists()):
        raise RunError(f"{run} has no result.json: give the folder of a trained run, such as runs/NAME/seed-0")
    spec = spec_of(directory)
    if not spec.kind.is_trained and (spec.kind.plays_trials or not directory.finished):
        raise RunError(f"{run}: {spec.algorithm.name} is not trained: run `metarun train` on a spec with another test")
    trained = _finished_training(directory, spec) if directory.finished else _last_checkpoint(directory, spec)
    if directory.finished:
        refuse_other_code(read_row(directory.result).plugins, spec, directory)
    experiment = with_test(spec, {**changes, "split": split})
    if judged:
        refuse_no_classifier(run, spec)
    if judged == "calibrated":
        refuse_no_validation(run, spec)
    if judged == "unknown" and spec.dataset.further_tests.get(split):
        raise RunError(f"the tasks of {split} are given, and have no classes outside the task: leave out --unknown")
    path = directory.row_of(spec, experiment, split, judged)
    if judged == "unknown" and not path.exists():
        _refuse_too_few_classes(experiment, split)
    return Retest(directory, trained, spec, experiment, path)


def _refuse_too_few_classes(experiment: Experiment, split: str) -> None:
    """Raise DataError if a split has fewer than twice the classes of a test task, as far as they can be counted now."""
    from ...datasets.sizes import sizes_of  # it imports NumPy, which the quick verbs do without

    way, size = experiment.test.way, sizes_of(experiment.tested).get(split)
    if size and size.classes is not None and size.classes < 2 * way:
        raise DataError(
            f"--unknown draws {way} classes inside and {way} outside the task: {experiment.tested.name} has "
            f"{size.classes}, the classes of {size.group}{split}, fewer than way {2 * way}: lower --way, or add classes"
        )


def refuse_no_classifier(run: Path, spec: Experiment) -> None:
    """Raise RunError if the run with this spec is no trained classifier of images."""
    if spec.kind.plays_trials:
        raise RunError(f"{run}: {spec.algorithm.name} plays trials, and only images can be classified")
    if not spec.kind.is_trained:
        raise RunError(f"{run}: {spec.algorithm.name} is not trained, so it has no weights to classify with")
    if spec.dataset.regression:
        raise RunError(f"{run} is a regression on {spec.dataset.name}, and only images can be classified")


def refuse_no_validation(run: Path, spec: Experiment) -> None:
    """Raise RunError if the run with this spec has no validation tasks, on which a temperature is fitted."""
    if spec.validation is None:
        raise RunError(
            f"{run} has no validation tasks (`validation: null`), on which a temperature is fitted: leave out "
            "--calibrated, or train with a validation"
        )


def _finished_training(directory: RunDirectory, spec: Experiment) -> TrainedRun:
    """Return the training of a finished run. Raises RunError if its spec was changed afterwards."""
    row = read_row(directory.result)
    older = spec.dataset.located and "training_digest" not in _newest_state(directory)
    if digest_of(directory, row) != spec.digest and not older:  # whose digest has the place of the data
        tested = {key: value for key in (*SHAPE, "episodes") if (value := getattr(row, key)) is not None}
        now = {key: getattr(spec.test, key) for key in tested}
        before = _newest_state(directory).get("spec")
        words = [
            differences(before, spec.deciding_training) if before else "",
            differences({"test": tested}, {"test": now}),
            f"digest {spec.digest}, its row has {row.spec_digest}",
        ]
        raise RunError(
            f"{directory.spec} is not the spec that the run was trained with ({', '.join(filter(None, words))}): "
            "restore it, and change the test by options of `metarun evaluate`; another training needs a name of its "
            "own (-s name=...)"
        )
    return TrainedRun(row.seed, row.train_steps, row.seconds, row.spec_digest, row.selected_of)


def _last_checkpoint(directory: RunDirectory, spec: Experiment) -> TrainedRun:
    """Return the training of a run without a row from its last checkpoint. Raises RunError if it is not trained."""
    if not training_is_done(directory, spec):
        raise RunError(
            f"{directory.path} has no result.json and is trained up to step {directory.step} of {spec.train.steps}: "
            "`metarun train` finishes it first"
        )
    path = directory.checkpoint(directory.step)
    state, _ = checkpoint.read(path)
    refuse_checkpoint_of_another_spec(path, state, spec, former_digest(directory.spec, spec))
    return TrainedRun(state["seed"], state["step"], state["seconds"], spec.digest, directory.selected_of)


def _newest_state(directory: RunDirectory) -> Mapping[str, Any]:
    """Return the state of the newest checkpoint that can be read, or nothing."""
    for path in directory.newest_checkpoints():
        try:
            return checkpoint.read(path)[0]
        except RunError:
            continue
    return {}


def labels(experiment: Experiment) -> dict[str, Any]:
    """Return what the state of a checkpoint says of its spec; older versions wrote only `digest`."""
    return {
        "digest": experiment.digest,
        "training_digest": experiment.training_digest,
        "spec": experiment.deciding_training,
    }


def refuse_checkpoint_of_another_spec(
    path: Path, state: Mapping[str, Any], experiment: Experiment, former: str = ""
) -> None:
    """Raise RunError if a checkpoint is of another training.

    Args:
        path: the checkpoint.
        state: its state. Older versions wrote the digest of the whole spec, without that of the training.
        experiment: the experiment that is trained or tested.
        former: another digest that older versions may have given to it.
    """
    own = {experiment.digest, experiment.former_digest, former}
    if "training_digest" in state:
        own = {experiment.training_digest}
    if state.get("training_digest", state.get("digest")) not in own:
        words = differences(state["spec"], experiment.deciding_training) if "spec" in state else ""
        raise RunError(
            f"{path} is a checkpoint of another spec{words and f' ({words})'}: move it away, give this experiment a "
            "name of its own (-s name=...), or use --fresh"
        )
