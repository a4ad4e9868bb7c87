"""Check settings that are valid one by one: do they contradict each other, and do they have an effect?

Each check yields (dotted key, message). A setting counts only if the user wrote it and it is not the default,
so a resolved spec, which spells out every default, passes as well. Intervals longer than the run (validation.every,
train.log_every, optimizer.decay_every) are no mistakes, so that `-s train.steps=100` alone is enough to try a spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...algorithms import Kind
from .experiment import Experiment

Mistake = tuple[str, str]
Check = Callable[[Experiment], Iterator[Mistake]]


def problems(experiment: Experiment, partial: bool = False) -> Iterator[Mistake]:
    """Yield contradictions between settings that are valid one by one.

    With `partial`, invalid settings are missing from `experiment`, and checks that need them are skipped.
    """
    checks = [_sections, _options("algorithm"), _options("optimizer"), _checkpoint, _options("dataset"), _seeds]
    if not partial or "algorithm" in vars(experiment):
        checks += _of_kind(experiment.kind)
    for check in checks:
        try:
            yield from check(experiment)
        except AttributeError:
            if not partial:
                raise


def _of_kind(kind: Kind) -> list[Check]:
    """Return the checks for the algorithms of one kind."""
    if not kind.is_trained:
        return [_trials, _untrained]
    if kind.plays_trials:
        return [_trials, _options("network"), _precision]
    return [_episodes, _ways, _options("network")]


def _options(section: str) -> Check:
    """Return the check that asks the options of a section."""

    def check(experiment: Experiment) -> Iterator[Mistake]:
        if (options := getattr(experiment, section)) is not None:
            yield from options.conflicts(experiment)

    return check


def _sections(experiment: Experiment) -> Iterator[Mistake]:
    """Yield sections that are missing: all but classical methods need a network, a protocol and a training."""
    if not experiment.kind.is_trained:
        return
    name, there = experiment.algorithm.name, vars(experiment)
    if there.get("network", ...) is None:
        yield "network", f"is missing: {name} has a network"
    if not experiment.kind.plays_trials and there.get("protocol", ...) is None:
        yield "protocol", f"is missing: {Experiment.model_fields['protocol'].description}"
    if "train" not in experiment.model_fields_set:
        yield "train", f"is missing: {name} learns by training"
    elif experiment.train.steps == 0:
        yield "train.steps", f"is 0: {name} learns by training"


def _trials(experiment: Experiment) -> Iterator[Mistake]:
    """Yield settings of episodes in an experiment with trials, which have no ways, shots, queries or images."""
    name = experiment.algorithm.name
    if experiment.dataset.has_trials is False:
        yield "dataset.name", f"{name} plays trials: use bandits or mdps, not {experiment.dataset.name}"
    for section in ("train", "validation", "test"):
        values = getattr(experiment, section)
        for option in ("way", "shot", "query"):
            if values is not None and values.is_changed(option):
                yield f"{section}.{option}", f"has no effect: {name} plays trials, whose size is the dataset's"
    if experiment.protocol is not None:
        yield "protocol", f"has no effect: {name} plays trials, which have no queries"


def _precision(experiment: Experiment) -> Iterator[Mistake]:
    """Refuse bfloat16, which recurrent networks do not have."""
    if experiment.precision == "bfloat16":
        yield "precision", f"bfloat16 is for images: {experiment.algorithm.name} has float32 and float64"


def _untrained(experiment: Experiment) -> Iterator[Mistake]:
    """Yield settings of a training that does not take place."""
    name = experiment.algorithm.name
    for section in ("network", "train", "optimizer"):
        if experiment.is_changed(section):
            yield section, f"has no effect: {name} is not trained"
    if experiment.precision != "float32":
        yield "precision", f"has no effect: {name} has no network"
    if experiment.jit not in (None, "auto"):
        yield "jit", f"has no effect: {name} is not trained"
    if len(experiment.seeds) > 1:
        yield "seeds", f"has no effect: the random choices of {name} depend on test.episode_seed alone"


def _episodes(experiment: Experiment) -> Iterator[Mistake]:
    """Yield datasets that the algorithm cannot learn, and wrong numbers of classes."""
    name, dataset = experiment.algorithm.name, experiment.dataset
    if dataset.has_trials:
        yield "dataset.name", f"{dataset.name} are trials: {name} is a few-shot learner, use rl2"
    if dataset.regression and not experiment.entry.has_head:
        yield "algorithm.name", f"{name} is a classifier; {dataset.name} is regression: use maml or reptile"
    for section in ("train", "validation", "test"):
        way = getattr(getattr(experiment, section), "way", None)
        if dataset.regression and way not in (1, None):
            yield f"{section}.way", f"is {way}; a regression task has way: 1"
        if way == 1 and dataset.has_trials is False and not dataset.regression:
            yield f"{section}.way", "is 1: there is nothing to choose from"


def _ways(experiment: Experiment) -> Iterator[Mistake]:
    if not experiment.entry.has_head:
        return
    way, name = experiment.train.way, experiment.algorithm.name
    reason = f"the last layer of {name} has train.way = {way} outputs, so train and test have the same way"
    if experiment.test.way != way:
        yield "test.way", f"is {experiment.test.way}: {reason}"
    if experiment.validation and experiment.validation.way not in (None, way):
        yield "validation.way", f"is {experiment.validation.way}: {reason}"


def _checkpoint(experiment: Experiment) -> Iterator[Mistake]:
    test = experiment.test
    if experiment.validation is None and test.checkpoint == "best" and "checkpoint" in test.model_fields_set:
        yield "test.checkpoint", "best needs a validation: write last, or give a validation section"


def _seeds(experiment: Experiment) -> Iterator[Mistake]:
    seeds = experiment.seeds
    if len(set(seeds)) < len(seeds):
        yield "seeds", f"has a seed twice: {list(seeds)}"


def unshareable(experiment: Experiment, workers: int) -> str | None:
    """Return why so many workers cannot share the training of an experiment; None if they can."""
    algorithm = experiment.algorithm
    if not experiment.kind.is_trained:
        return f"{algorithm.name} is not trained, {workers} workers have nothing to divide: start it alone"
    return algorithm.unshareable(experiment.train, workers)
