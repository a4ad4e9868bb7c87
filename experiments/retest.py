"""Another test of a trained model: what may change, and where its row is. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .checks import problems
from .load import SpecError, effective
from .rundir import RunDirectory
from .spec import Experiment
from .wording import explain


def changed(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The experiment with another test; SpecError where the trained model cannot be tested so."""
    told = effective(experiment)
    changes = dict(changes)
    if (protocol := changes.pop("protocol", experiment.protocol)) is not None:
        told["protocol"] = protocol
    if (inner_steps := changes.pop("inner_steps", None)) is not None:
        if not hasattr(experiment.algorithm, "test_inner_steps"):
            raise SpecError([f"--inner-steps has no effect: {experiment.algorithm.name} has no inner loop"])
        told["algorithm"]["test_inner_steps"] = inner_steps
    told["test"].update(changes)
    try:
        result = Experiment.model_validate(told)
    except ValidationError as error:
        raise SpecError([f"{'.'.join(map(str, key))}: {message}" for key, message in explain(error, told)]) from None
    tested = [(key, message) for key, message in problems(result) if not key.startswith("network.")]  # that is trained
    if tested:
        raise SpecError([f"{key}: {message}" for key, message in tested])
    return result


def place(directory: RunDirectory, trained: Experiment, experiment: Experiment, split: str = "test") -> Path:
    """Where the row of a test by `experiment` of a run of `trained` is: the run's own, or one in its evaluations."""
    name = _name(experiment, split)
    own = name == _name(trained, "test")
    return directory.result if own else directory.evaluations / f"{name}.json"


def _name(experiment: Experiment, split: str) -> str:
    """A file name that holds everything that may differ between two measurements of a run."""
    test, algorithm = experiment.test, experiment.algorithm
    steps = getattr(algorithm, "test_inner_steps", None)
    steps = getattr(algorithm, "inner_steps", None) if steps is None else steps
    inner = "" if steps is None else f"-{steps}steps"
    few_shot = f"-{test.way}way-{test.shot}shot-{test.query}query-{experiment.protocol}"
    tasks = few_shot if experiment.kind == "few-shot" else ""
    return f"{split}{tasks}-{test.checkpoint}{inner}-{test.episodes}episodes-seed{test.episode_seed}"
