"""Check what is asked of a trained classifier, before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...algorithms import ALGORITHMS
from ..config.experiment import Experiment
from ..errors import RunError
from ..runs.directory import RunDirectory
from ..runs.run import readable_spec
from ..runs.trained import Retest, retest

Protocol = Literal["inductive", "transductive"]


def trained_classifier(run: Path, protocol: Protocol = "inductive") -> Retest:
    """Return the trained run in the folder `run`, with its experiment under the protocol.

    Raises:
        RunError: the run is not trained to its end, as `metarun evaluate` says it, or is no classifier of images.
        SpecError: the protocol does not fit the run.
    """
    trained = retest(run, "test", {"protocol": protocol} if _has_protocol(run) else {})
    spec = trained.spec
    if spec.kind.plays_trials:
        raise RunError(f"{run}: {spec.algorithm.name} plays trials, and only images can be classified")
    if spec.dataset.regression:
        raise RunError(f"{run} is a regression on {spec.dataset.name}, and only images can be classified")
    return trained


def _has_protocol(run: Path) -> bool:
    """Return whether the run is one of few-shot learning; True if that cannot be told, so that `retest` says why."""
    spec = readable_spec(RunDirectory(run))
    return spec is None or not spec.kind.plays_trials


def refuse_other_way(experiment: Experiment, classes: Sequence[str], where: str) -> None:
    """Raise RunError if a learner cannot tell so many classes apart.

    Args:
        experiment: the experiment of the run.
        classes: the names of the classes.
        where: what has these classes, for the message.
    """
    own = experiment.train.way
    if len(classes) < 2:
        raise RunError(f"{where} has {len(classes) or 'no'} class: at least 2 are needed, one folder for each")
    if ALGORITHMS[experiment.algorithm.name].has_head and len(classes) != own:
        raise RunError(
            f"{where} has {len(classes)} classes, and {experiment.algorithm.name} was trained for exactly {own}: its "
            f"last layer has {own} outputs (protonet and matchingnet take any number of classes)"
        )
