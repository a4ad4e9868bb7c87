"""Derive experiments from an experiment: with another test, or with part of the training. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...datasets import DATASETS
from ..errors import SpecError, suggest
from .checks import problems
from .document import plain
from .experiment import Experiment, effective, settled
from .kinds import shipped_specs
from .load import load
from .messages import mistakes
from .sections import SHAPE


def dataset_named(given: str) -> dict[str, Any]:
    """Return the section `test.dataset` as plain data.

    Args:
        given: the name of a dataset, which then has its default options; or a folder of images; or a spec, by its path
            or the name of one that ships, whose dataset is taken.

    Raises:
        SpecError: it is none of them, or the spec has mistakes.
    """
    if given in DATASETS:
        fields = DATASETS[given].model_fields
        if needed := [option for option, field in fields.items() if field.is_required()]:
            way_out = "give the folder itself" if needed == ["path"] else "give a spec that has it"
            raise SpecError([f"--dataset {given} lacks its {', '.join(needed)}: {way_out}"])
        return {"name": given}
    if Path(given).is_dir():
        return {"name": "imagefolder", "path": str(Path(given).resolve())}
    try:
        dataset: Any = load(given).experiment.dataset
    except SpecError as error:
        if Path(given).exists() or given in shipped_specs():
            raise
        raise SpecError([f"--dataset {given}: {_expected(given)}"]) from error
    return dataset.model_dump(mode="json", exclude=set(dataset.of_network))


def head_named(given: str) -> Any:
    """Return the section `test.head` as plain data.

    Args:
        given: the name of a head, which then has its default options; or the section in YAML; null: the method's own.

    Raises:
        SpecError: it is no YAML.
    """
    values = plain(given, f"--head {given}")
    return {"name": values} if isinstance(values, str) else values


def _expected(given: str) -> str:
    known = [*DATASETS, *shipped_specs()]
    return f"expected a dataset, a folder of images or a spec; {suggest(given, known, 'see `metarun list`')}"


def with_test(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """Return the experiment with another test.

    Args:
        experiment: the experiment, as it was trained.
        changes: values of the section test that differ; protocol and inner_steps; split, if it is not test. `dataset`
            is plain data.

    Raises:
        SpecError: the trained model cannot be tested in this way.
    """
    values = effective(experiment)
    changes = dict(changes)
    if (split := changes.pop("split", "test")) not in ("test", "val", "train"):
        changes |= _fixed(experiment, split, changes)
        values["test"].pop("dataset", None)  # of the run's own test
        values["test"].pop("convert", None)
    if (protocol := changes.pop("protocol", experiment.protocol)) is not None:
        values["protocol"] = protocol
    if (inner_steps := changes.pop("inner_steps", None)) is not None:
        if not hasattr(experiment.algorithm, "test_inner_steps"):
            raise SpecError([f"--inner-steps has no effect: {experiment.algorithm.name} has no inner loop"])
        if changes.get("head", experiment.test.head):
            raise SpecError(
                ["--inner-steps has no effect beside a head, which reads features without an inner loop: leave it out"]
            )
        values["algorithm"]["test_inner_steps"] = inner_steps
    if "dataset" in changes:
        values["test"].pop("convert", None)  # of the run's own test
    values["test"].update(changes)
    try:
        result = settled(Experiment.model_validate(values))
    except ValidationError as error:
        found = mistakes(error, values)
        raise SpecError([f"{'.'.join(map(str, key))}: {message}" for key, message in found]) from None
    # the network is trained already
    tested = [(key, message) for key, message in problems(result) if not key.startswith(("network.", "train."))]
    if tested:
        raise SpecError([f"{key}: {message}" for key, message in tested])
    return result


def _fixed(experiment: Experiment, split: str, changes: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the settings of the test that one of the dataset's further tests fixes.

    Raises:
        SpecError: there is no such split, it is no test of this training, or `changes` has other values.
    """
    dataset = experiment.dataset
    if "dataset" in changes:
        raise SpecError([f"--split {split} is a test of the dataset of the training: leave --dataset out"])
    if split not in dataset.further_tests:
        of = [name for name, options in DATASETS.items() if split in options.further_tests]
        where = f"is a test of runs trained on {', '.join(of)}, and this one is trained on" if of else "is no split of"
        raise SpecError([f"--split {split} {where} {dataset.name}"])
    if reason := dataset.invalid_test(split):
        raise SpecError([f"--split {split} says nothing of this run: {reason}"])
    fixed = dataset.further_tests[split]
    for key, value in changes.items():
        if key in fixed and value != fixed[key]:
            raise SpecError([f"--{key} {value}: {split} has {fixed[key]}"])
        if key == "episode_seed" and fixed:
            raise SpecError([f"--episode-seed has no effect: nothing in {split} is drawn at random"])
    return fixed


def with_validation_of(trained: Experiment, experiment: Experiment) -> Experiment:
    """Return the experiment with the validation tasks of a training that differs from it in the test alone.

    Where a spec leaves way, shot or query of the validation open, they are those of the test. If the test has changed
    since the training began, they are written out. Any other experiment is returned as it is.

    Args:
        trained: the experiment that was trained, or is being trained.
        experiment: the experiment with the changed test.
    """
    if trained.validation is None or experiment.validation is None:
        return experiment
    before, now = trained.validation.filled(trained.test), experiment.validation.filled(experiment.test)
    kept = {
        key: getattr(before, key)
        for key in SHAPE
        if getattr(experiment.validation, key) is None and getattr(before, key) != getattr(now, key)
    }
    result = experiment.model_copy(update={"validation": experiment.validation.model_copy(update=kept)})
    return result if kept and result.training_digest == trained.training_digest else experiment


def is_beginning(shorter: Experiment, longer: Experiment) -> bool:
    """Return whether a training is the first part of a longer one, if it ended before the longer one's last step.

    The longer one has more steps, or more patience, or both, and differs in nothing else. With more steps two further
    conditions hold: the learning rates do not depend on the length; the longer one also logs and validates at the step
    at which the shorter one ends. The tests may differ.
    """
    steps, patience = shorter.train.steps, shorter.train.patience
    every = [longer.train.log_every, *([longer.validation.every] if longer.validation else [])]
    cut = longer.model_copy(update={"train": longer.train.model_copy(update={"steps": steps, "patience": patience})})
    more_steps = steps < longer.train.steps
    more_patience = (patience or math.inf) < (longer.train.patience or math.inf)
    return (
        (more_steps or more_patience)
        and (more_patience or patience == longer.train.patience)
        and steps <= longer.train.steps
        and cut.training_digest == shorter.training_digest
        and cut.compiles == longer.compiles
        and not (more_steps and (longer.optimizer.depends_on_length or any(steps % each for each in every)))
    )


def within_budget(
    spec: str,
    budget: float,
    overrides: Sequence[str] = (),
    variant: Sequence[str] = (),
    precision: str | None = None,
) -> tuple[Experiment, Experiment]:
    """Return the recipe with a part of its training steps or in another precision, and the whole recipe.

    An experiment that trains less, or in another precision, has a name of its own. What a schedule places within the
    training follows: linear and cosine end with the last step, and listed steps of `step` shrink with the training. The
    interval `decay_every` is a number of steps and stays: a decay that comes sooner stops the learning, and a larger
    budget could not go on.

    Args:
        spec: name or path of the spec.
        budget: part of the training steps, above 0 and at most 1.
        overrides: changes of the first experiment alone, such as "train.steps=100".
        variant: overrides that make the recipe from the spec.
        precision: replaces that of the recipe, if it is trained.

    Raises:
        SpecError: the spec is missing or has mistakes, or cannot be trained in the precision.
    """
    full = load(spec, variant, "overrides").experiment
    whole = load(spec, [*variant, *overrides], "overrides").experiment if overrides else full
    another = precision if precision != whole.precision else None
    if budget == 1 and not another or whole.train.steps == 0:
        return whole, full
    changes = [f"name={whole.name}{suffix(budget, another)}"]
    if budget < 1:
        changes.append(f"train.steps={share(whole.train.steps, budget)}")
        if whole.optimizer.decay_steps:
            changes.append(f"optimizer.decay_steps={_shares(whole.optimizer.decay_steps, budget)}")
    if another:
        changes.append(f"precision={another}")
    return load(spec, [*variant, *overrides, *changes], "overrides").experiment, full


def suffix(budget: float, precision: str | None = None) -> str:
    """Return the ending of the names of runs and tables that have a part of the training or another precision."""
    return ("" if budget == 1 else f"-budget-{budget:g}") + (f"-{precision}" if precision else "")


def share(steps: int, budget: float) -> int:
    """Return the number of steps in a part `budget` of `steps`, at least one."""
    return max(1, round(steps * budget))


def _shares(steps: Sequence[int], budget: float) -> list[int]:
    """Return the share of each of several rising steps, which rise still."""
    return list(accumulate((share(step, budget) for step in steps), lambda before, step: max(before + 1, step)))
