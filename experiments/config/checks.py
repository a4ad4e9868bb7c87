"""Mistakes that no single value shows: settings that contradict each other, and settings without effect.

Each check yields (dotted key, message). A setting is what the user wrote and is not the default, so a resolved spec,
which spells out every default, passes as well. Intervals longer than the run (validation.every, train.log_every,
optimizer.decay_every) are no mistakes, so that `-s train.steps=100` alone tries a spec out.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...algorithms import ALGORITHMS
from ...algorithms.classical.options import ClassicalOptions
from ...algorithms.networks.options import Conv4Options, GRUOptions, NetworkOptions
from ...algorithms.options import (
    MAMLOptions,
    MatchingNetworkOptions,
    OptimizerOptions,
    PrototypicalNetworkOptions,
    ReptileOptions,
    RL2Options,
)
from ...datasets.options import (
    BanditsOptions,
    GlyphsOptions,
    ImageFolderOptions,
    MDPsOptions,
    MiniImagenetOptions,
    OmniglotOptions,
    Options,
    SinusoidOptions,
)
from .experiment import Experiment, Train

Problem = tuple[str, str]
EPISODES = (GlyphsOptions, OmniglotOptions, MiniImagenetOptions, ImageFolderOptions, SinusoidOptions)


def problems(experiment: Experiment, partial: bool = False) -> Iterator[Problem]:
    """Everything that is wrong with an experiment whose single values are all right; a `partial` one lacks those that
    are not, and a check has nothing to say where it would need one of them."""
    checks = [_sections, _algorithm, _optimizer, _checkpoint, _dataset, _seeds]
    if not partial or "algorithm" in vars(experiment):
        kind = experiment.kind
        checks += [_trials] if kind.plays_trials else [_tasks, _ways, _network, _protocol]
        checks += [] if kind.is_trained else [_untrained]
        checks += [_recurrent] if kind.is_trained and kind.plays_trials else []
    for check in checks:
        try:
            yield from check(experiment)
        except AttributeError:
            if not partial:
                raise


def _sections(experiment: Experiment) -> Iterator[Problem]:
    """What every kind of experiment but the classical ones must say."""
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


def _trials(experiment: Experiment) -> Iterator[Problem]:
    """Trials have no ways, shots and queries, and no images."""
    name = experiment.algorithm.name
    if isinstance(experiment.dataset, EPISODES):
        yield "dataset.name", f"{name} plays trials: use bandits or mdps, not {experiment.dataset.name}"
    for section in ("train", "validation", "test"):
        told = getattr(experiment, section)
        for option in ("way", "shot", "query"):
            if told is not None and _said(told, option):
                yield f"{section}.{option}", f"has no effect: {name} plays trials, whose size is the dataset's"
    if experiment.protocol is not None:
        yield "protocol", f"has no effect: {name} plays trials, which have no queries"


def _recurrent(experiment: Experiment) -> Iterator[Problem]:
    if experiment.network is not None and not isinstance(experiment.network, GRUOptions):
        yield "network.name", f"{experiment.algorithm.name} remembers: use gru, not {experiment.network.name}"
    if experiment.precision == "bfloat16":
        yield "precision", f"bfloat16 is for images: {experiment.algorithm.name} has float32 and float64"


def _untrained(experiment: Experiment) -> Iterator[Problem]:
    """Settings of a training that does not take place."""
    name = experiment.algorithm.name
    for section, default in (("network", None), ("train", Train(steps=0)), ("optimizer", OptimizerOptions())):
        if getattr(experiment, section) != default:
            yield section, f"has no effect: {name} is not trained"
    if experiment.precision != "float32":
        yield "precision", f"has no effect: {name} has no network"
    if experiment.jit not in (None, "auto"):
        yield "jit", f"has no effect: {name} is not trained"
    options = experiment.algorithm
    assert isinstance(options, ClassicalOptions)
    if experiment.dataset.name not in options.grids and not isinstance(experiment.dataset, EPISODES):
        yield "algorithm.name", f"{name} is not for {experiment.dataset.name}"
    given = options.parameter is None or getattr(options, options.parameter) is not None
    tuned_on = getattr(options, "tuned_on", None)
    if given and tuned_on == "test":
        yield "algorithm.tuned_on", f"has no effect: {options.parameter} is given"
    elif not given and tuned_on == "validation" and experiment.validation is None:
        yield "validation", f"is null: {options.parameter} is tuned on validation trials"
    if (
        experiment.dataset.name == "bandits"
        and "prior_mean" in type(options).model_fields
        and _said(options, "prior_mean")
    ):
        yield "algorithm.prior_mean", "has no effect on bandits"
    if len(experiment.seeds) > 1:
        yield "seeds", f"has no effect: what {name} draws follows from the trials, test.episode_seed"


def _tasks(experiment: Experiment) -> Iterator[Problem]:
    algorithm, regression = experiment.algorithm, isinstance(experiment.dataset, SinusoidOptions)
    if isinstance(experiment.dataset, BanditsOptions | MDPsOptions):
        yield "dataset.name", f"{experiment.dataset.name} are trials: {algorithm.name} is a few-shot learner, use rl2"
    if isinstance(experiment.network, GRUOptions):
        yield "network.name", f"gru is for rl2: {algorithm.name} has conv4 and mlp"
    if regression and isinstance(algorithm, PrototypicalNetworkOptions | MatchingNetworkOptions):
        yield "algorithm.name", f"{algorithm.name} is a classifier; sinusoid is regression: use maml or reptile"
    if regression and isinstance(experiment.network, Conv4Options):
        yield "network.name", "conv4 reads images; sinusoid has numbers: use mlp"
    for section in ("train", "validation", "test"):
        way = getattr(getattr(experiment, section), "way", None)
        if regression and way not in (1, None):
            yield f"{section}.way", f"is {way}; a regression task has way: 1"
        if way == 1 and not regression and isinstance(experiment.dataset, EPISODES):
            yield f"{section}.way", "is 1: there is nothing to choose from"


def _ways(experiment: Experiment) -> Iterator[Problem]:
    if not ALGORITHMS[experiment.algorithm.name].has_head:
        return
    way, name = experiment.train.way, experiment.algorithm.name
    reason = f"the last layer of {name} has train.way = {way} outputs, so train and test have the same way"
    if experiment.test.way != way:
        yield "test.way", f"is {experiment.test.way}: {reason}"
    if experiment.validation and experiment.validation.way not in (None, way):
        yield "validation.way", f"is {experiment.validation.way}: {reason}"


def _algorithm(experiment: Experiment) -> Iterator[Problem]:
    algorithm, train = experiment.algorithm, experiment.train
    if isinstance(algorithm, MAMLOptions) and algorithm.first_order and algorithm.inner_steps == 0:
        yield "algorithm.first_order", "has no effect with inner_steps: 0"
    if isinstance(algorithm, MAMLOptions) and algorithm.first_order and algorithm.recompute_inner:
        yield "algorithm.recompute_inner", "has no effect with first_order: true, which keeps nothing of a step"
    if isinstance(algorithm, MAMLOptions) and algorithm.inner_steps == 0 and algorithm.recompute_inner:
        yield "algorithm.recompute_inner", "has no effect with inner_steps: 0"
    chunk = algorithm.tasks_per_chunk if isinstance(algorithm, MAMLOptions) else None
    if chunk and train.meta_batch % chunk:
        yield "algorithm.tasks_per_chunk", f"is {chunk}, which does not divide train.meta_batch: {train.meta_batch}"
    if chunk and chunk == train.meta_batch:
        yield "algorithm.tasks_per_chunk", f"has no effect: it is train.meta_batch, {train.meta_batch}"
    contextual = isinstance(algorithm, MatchingNetworkOptions) and algorithm.full_context_embeddings
    if isinstance(algorithm, MatchingNetworkOptions) and not contextual and _said(algorithm, "attention_steps"):
        yield "algorithm.attention_steps", "has no effect without full_context_embeddings: true"
    if isinstance(algorithm, ReptileOptions):
        if _said(train, "query"):
            yield "train.query", "has no effect: reptile has no query set in training"
        if algorithm.inner_batch > train.way * train.shot:
            yield (
                "algorithm.inner_batch",
                (
                    f"is {algorithm.inner_batch}, more than the {train.way * train.shot} images of a support set "
                    "(train.way x train.shot)"
                ),
            )
        if algorithm.serial and train.meta_batch == 1:
            yield "algorithm.serial", "has no effect with train.meta_batch: 1"
        elif algorithm.serial and algorithm.task_reduction == "sum":
            yield "algorithm.task_reduction", "has no effect with serial: true, where each task is an update"
    if getattr(algorithm, "task_reduction", "mean") == "sum" and train.meta_batch == 1:
        yield "algorithm.task_reduction", "has no effect with train.meta_batch: 1"


def _network(experiment: Experiment) -> Iterator[Problem]:
    network = experiment.network
    if not isinstance(network, NetworkOptions):
        return
    never_averages = isinstance(experiment.algorithm, MAMLOptions | ReptileOptions)
    if isinstance(network, Conv4Options):
        if network.downsample == "stride" and _said(network, "pool_padding"):
            yield "network.pool_padding", "has no effect with downsample: stride"
        if not ALGORITHMS[experiment.algorithm.name].has_head and _said(network, "head_initializer"):
            yield "network.head_initializer", f"has no effect: {experiment.algorithm.name} has no last layer of its own"
    if not network.batch_norm:
        for option in ("norm_scale", "norm_epsilon", "norm_momentum"):
            if _said(network, option):
                yield f"network.{option}", "has no effect with batch_norm: false"
    elif _said(network, "norm_momentum") and (never_averages or experiment.protocol == "transductive"):
        who = experiment.algorithm.name if never_averages else "the transductive protocol"
        yield "network.norm_momentum", f"has no effect: {who} never uses running averages"
    if isinstance(experiment.algorithm, MAMLOptions) and not network.batch_norm and experiment.algorithm.adapt == "all":
        yield "algorithm.adapt", "all is the same as weights with batch_norm: false"


def _protocol(experiment: Experiment) -> Iterator[Problem]:
    network = experiment.network
    if isinstance(network, NetworkOptions) and experiment.protocol == "transductive" and not network.batch_norm:
        yield (
            "protocol",
            "transductive has no effect with batch_norm: false, every query is on its own: write inductive",
        )


def _optimizer(experiment: Experiment) -> Iterator[Problem]:
    optimizer = experiment.optimizer
    gliding = optimizer.schedule in ("linear", "cosine")
    if _said(optimizer, "final_learning_rate") and not gliding:
        yield "optimizer.final_learning_rate", f"has no effect with schedule: {optimizer.schedule}"
    if gliding and optimizer.final_learning_rate == optimizer.learning_rate:
        yield (
            "optimizer.schedule",
            f"{optimizer.schedule} has no effect: it starts and ends at {optimizer.learning_rate}",
        )
    for option in ("decay_every", "decay_factor"):
        if _said(optimizer, option) and optimizer.schedule != "step":
            yield f"optimizer.{option}", f"has no effect with schedule: {optimizer.schedule}"
    if optimizer.schedule == "step" and optimizer.decay_every is None:
        yield "optimizer.decay_every", "is missing: schedule step needs the steps between two decays"
    if optimizer.clip_value is not None and optimizer.clip_norm is not None:
        yield "optimizer.clip_norm", "clip_value is given too: choose one"


def _checkpoint(experiment: Experiment) -> Iterator[Problem]:
    test = experiment.test
    if experiment.validation is None and test.checkpoint == "best" and "checkpoint" in test.model_fields_set:
        yield "test.checkpoint", "best needs a validation: write last, or give a validation section"


def _dataset(experiment: Experiment) -> Iterator[Problem]:
    dataset = experiment.dataset
    if isinstance(dataset, OmniglotOptions) and dataset.split.endswith("-1200-423") and experiment.validation:
        yield "validation", f"split {dataset.split} has no validation classes: write `validation: null`"
    if isinstance(dataset, ImageFolderOptions) and abs(sum(dataset.split) - 1) > 1e-6:
        yield "dataset.split", f"adds up to {sum(dataset.split):g}, not 1"
    if isinstance(dataset, ImageFolderOptions) and min(dataset.split) < 0:
        yield "dataset.split", "has a negative share"
    if isinstance(dataset, ImageFolderOptions):
        try:
            dataset.path.expanduser().resolve()
        except (RuntimeError, ValueError, OSError) as error:
            yield "dataset.path", f"is no path: {error}"
    if isinstance(dataset, SinusoidOptions):
        for option in ("amplitude", "phase", "x"):
            low, high = getattr(dataset, option)
            if low >= high:
                yield f"dataset.{option}", f"is [{low:g}, {high:g}]: the first number must be the smaller one"


def _seeds(experiment: Experiment) -> Iterator[Problem]:
    seeds = experiment.seeds
    if len(set(seeds)) < len(seeds):
        yield "seeds", f"has a seed twice: {list(seeds)}"


def _said(section: Options, option: str) -> bool:
    """Whether the user gave the option a value of their own."""
    default = type(section).model_fields[option].default
    return option in section.model_fields_set and getattr(section, option) != default


def unshareable(experiment: Experiment, workers: int) -> str | None:
    """Why so many workers cannot share out the training of an experiment; None if they can."""
    algorithm, train = experiment.algorithm, experiment.train
    if not experiment.kind.is_trained:
        return f"{algorithm.name} is not trained, {workers} workers have nothing to share out: start it alone"
    if isinstance(algorithm, ReptileOptions) and algorithm.serial:
        return f"algorithm.serial learns one task after another, which {workers} workers cannot: start it alone"
    if train.meta_batch < workers:
        return f"{workers} workers cannot share out a meta_batch of {train.meta_batch}: start fewer, or raise it"
    if isinstance(algorithm, RL2Options) and algorithm.minibatch < workers:
        return f"{workers} workers cannot share out a minibatch of {algorithm.minibatch}: start fewer, or raise it"
    return None
