"""Check settings that are valid one by one: do they contradict each other, and do they have an effect?

Each check yields (dotted key, message). A setting counts only if the user wrote it and it is not the default,
so a resolved spec, which spells out every default, passes as well. Intervals longer than the run (validation.every,
train.log_every, optimizer.decay_every) and decays after its end are no mistakes, so that `-s train.steps=100` alone is
enough to try a spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...algorithms import KINDS, Kind
from ...algorithms.heads import needs_mean
from ...algorithms.networks import BUILT_IN
from ...datasets.errors import DataError, counted
from .epochs import uncounted
from .experiment import Experiment
from .sections import SHAPE, Published

if TYPE_CHECKING:  # it imports NumPy, which most verbs that load a spec do without
    from ...datasets.sizes import Sizes

Mistake = tuple[str, str]
Check = Callable[[Experiment], Iterator[Mistake]]
QUERIES_OF_PAPERS = 75  # per test episode, usually: 5 classes of 15
MOST_EPISODES = 20_000  # of which an interval in a paper may be; papers test on 600 to 10,000
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # section -> the split that its tasks are drawn from


def problems(experiment: Experiment, partial: bool = False, with_data: bool = False) -> Iterator[Mistake]:
    """Yield contradictions between settings that are valid one by one.

    Args:
        experiment: the experiment; the path of its dataset is absolute.
        partial: invalid settings are missing from `experiment`; checks that need them are skipped.
        with_data: also yield splits that are too small, see `shortages`.
    """
    checks = [
        _sections,
        _options("algorithm"),
        _options("optimizer"),
        _checkpoint,
        _options("dataset"),
        _elsewhere,
        _head,
        _seeds,
        _published,
    ]
    if not partial or "algorithm" in vars(experiment):
        checks += _of_kind(experiment.kind)
        checks += [too_small] if with_data else []
    for check in checks:
        try:
            yield from check(experiment)
        except AttributeError:
            if not partial:
                raise


def _of_kind(kind: Kind) -> list[Check]:
    """Return the checks for the algorithms of one kind."""
    if not kind.is_trained:
        return [_trials if kind.plays_trials else _episodes, _untrained]
    if kind.plays_trials:
        return [_trials, _options("network"), _precision, _patience]
    images = [_options("network"), _options("augment"), _patience]
    return [_episodes, _images if kind.trains_on_images else _ways, *images]


def _options(section: str) -> Check:
    """Return the check that asks the options of a section."""

    def check(experiment: Experiment) -> Iterator[Mistake]:
        if (options := getattr(experiment, section)) is not None:
            yield from options.conflicts(experiment)

    return check


def _elsewhere(experiment: Experiment) -> Iterator[Mistake]:
    """Yield what is wrong with a test on another dataset than that of the training: both must have images."""
    dataset = experiment.test.dataset
    if dataset is None:
        if experiment.test.convert is not None:
            yield "test.convert", "has no effect without test.dataset"
        return
    for key, options in (("dataset", experiment.dataset), ("test.dataset", dataset)):
        if options.has_images is False or options.regression or options.has_trials:
            what = "are trials" if options.has_trials else "has no images"
            yield "test.dataset", f"only images can be tested on another dataset, and {key} {options.name} {what}"
            return
    for option in sorted(dataset.of_network):
        if dataset.is_changed(option):
            yield f"test.dataset.{option}", "has no effect: the images become those that the network was trained on"
    alone = experiment.model_copy(update={"dataset": dataset, "validation": None})
    yield from ((f"test.{key}", message) for key, message in dataset.conflicts(alone))


def _head(experiment: Experiment) -> Iterator[Mistake]:
    """Yield why another head cannot be put on the features, or has no effect."""
    head, name = experiment.test.head, experiment.algorithm.name
    if head is None:
        return
    if not experiment.kind.is_trained or experiment.kind.plays_trials or experiment.dataset.regression:
        yield "test.head", f"{name} has no features of images: a head is for trained classifiers of images"
        return
    if getattr(experiment.algorithm, "head", None) == head:
        yield "test.head", f"has no effect: it is the head of {name}"
    if experiment.entry.has_head and experiment.network and type(experiment.network) not in BUILT_IN.values():
        yield (
            "test.head",
            f"network {experiment.network.name} is of another package, and cannot be cut before its last layer",
        )
    alone = not experiment.entry.has_head and experiment.protocol == "inductive"
    if needs_mean(head) and not alone:
        yield (
            "test.head.features",
            "CL2N needs features of single images, which an embedding under the inductive protocol has: use L2N or UN",
        )


def _sections(experiment: Experiment) -> Iterator[Mistake]:
    """Yield sections that are missing: what is trained needs a network, a protocol and a training."""
    there = vars(experiment)
    if "algorithm" in there:
        name, kind = experiment.algorithm.name, experiment.kind
    elif experiment.dataset.has_trials is False:
        name, kind = "a few-shot learner", KINDS["few-shot"]
    else:
        return
    if not kind.is_trained:
        return
    if there.get("network", ...) is None:
        yield "network", f"is missing: {name} has a network"
    if not kind.plays_trials and there.get("protocol", ...) is None:
        yield "protocol", f"is missing: {Experiment.model_fields['protocol'].description}"
    if "train" not in experiment.model_fields_set:
        yield "train", f"is missing: {name} learns by training"
    elif "train" in there and experiment.train.epochs:
        yield "train.epochs", uncounted(experiment)
    elif "train" in there and experiment.train.steps == 0:
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
    if experiment.kind.is_trained and experiment.augment is not None:
        yield "augment", f"has no effect: {name} plays trials, which have no images"


def _images(experiment: Experiment) -> Iterator[Mistake]:
    """Yield settings of training tasks where there are none: a classifier is trained on images of shuffled epochs."""
    name = experiment.algorithm.name
    if experiment.dataset.has_images is False:
        yield "dataset.name", f"{name} classifies images, and {experiment.dataset.name} has none"
    if getattr(experiment.dataset, "rotations", None) == "per-task":
        yield (
            "dataset.rotations",
            f"is per-task: turns are drawn for the classes of a task, and {name} is trained on single images: write "
            "classes, which makes each turn a class, or none",
        )
    for option in SHAPE:
        if experiment.train.is_changed(option):
            yield (
                f"train.{option}",
                f"has no effect: {name} is trained on mini-batches of train.meta_batch images, not on episodes",
            )
    if experiment.train.meta_batch == 1:
        yield "train.meta_batch", f"is 1: {name} needs a mini-batch of images, such as 64"


def _precision(experiment: Experiment) -> Iterator[Mistake]:
    """Refuse bfloat16, which recurrent networks do not have."""
    if experiment.precision == "bfloat16":
        yield "precision", f"bfloat16 is for images: {experiment.algorithm.name} has float32, tf32 and float64"


def _untrained(experiment: Experiment) -> Iterator[Mistake]:
    """Yield settings of a training that does not take place."""
    name = experiment.algorithm.name
    for section in ("network", "augment", "train", "optimizer"):
        if experiment.is_changed(section):
            yield section, f"has no effect: {name} is not trained"
    if not experiment.kind.plays_trials and experiment.protocol is not None:
        yield "protocol", f"has no effect: {name} has no batch norm, and judges each query alone"
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
    if getattr(experiment.test, "way", way) != way:
        yield "test.way", f"is {experiment.test.way}: {reason}"
    if experiment.validation and experiment.validation.way not in (None, way):
        yield "validation.way", f"is {experiment.validation.way}: {reason}"


def _checkpoint(experiment: Experiment) -> Iterator[Mistake]:
    test = experiment.test
    if experiment.validation is None and test.checkpoint == "best" and "checkpoint" in test.model_fields_set:
        yield "test.checkpoint", "best needs a validation: write last, or give a validation section"


def _patience(experiment: Experiment) -> Iterator[Mistake]:
    """Yield an early end of the training without validations, or with a test of the last checkpoint."""
    patience = experiment.train.patience
    if patience is not None and experiment.validation is None:
        yield "train.patience", "needs validations, which it counts: give a validation section, or leave it out"
    elif patience is not None and experiment.test.checkpoint == "last":
        after = counted(patience, "validation")
        yield "train.patience", f"ends the training {after} after the best one: write test.checkpoint: best"


def _seeds(experiment: Experiment) -> Iterator[Mistake]:
    seeds = experiment.seeds
    if len(set(seeds)) < len(seeds):
        yield "seeds", f"has a seed twice: {list(seeds)}"


def _published(experiment: Experiment) -> Iterator[Mistake]:
    for key, message in published_mistakes(experiment.published, experiment):
        yield f"published.{key}", message


def published_mistakes(published: Published | None, experiment: Experiment) -> Iterator[Mistake]:
    """Yield (key, message) for a published accuracy that cannot be in percent: a fraction, or beyond 0 to 100.

    A fraction, below 1, is also a percentage below that of guessing. An interval is taken for a fraction if its paper
    had needed more than `MOST_EPISODES` test episodes for it, and a hundred times it would do.

    Args:
        published: the number of a paper for the experiment's test.
        experiment: the experiment, which says what is measured, and the number of classes.
    """
    if published is None or experiment.kind.plays_trials or experiment.dataset.regression:
        return  # in the metric's own unit
    value, ci95 = published.value, published.ci95 or 0.0
    if 0 < value <= 1 and value < 100 / experiment.test.way:
        yield "value", f"is {value:g}, and accuracies are in percent: {100 * value:.6g}?"
        value *= 100
    elif not 0 <= value <= 100:
        yield "value", f"is {value:g}: an accuracy is between 0 and 100 percent"
        return
    spread = math.sqrt(value * (100 - value) / QUERIES_OF_PAPERS)  # of the episodes' accuracies
    if ci95 > 100:
        yield "ci95", f"is {ci95:g}: an accuracy is between 0 and 100 percent"
    elif 0 < ci95 < 1 and 100 * ci95 <= 50 and 2 * spread / ci95 > math.sqrt(MOST_EPISODES):
        yield "ci95", f"is {ci95:g}, and accuracies are in percent: {100 * ci95:.6g}?"


def too_small(experiment: Experiment) -> Iterator[Mistake]:
    """Yield the settings that ask for more classes or images than the dataset has, if it can be counted now."""
    if experiment.kind.plays_trials:
        return
    from ...datasets.sizes import sizes_of

    sizes: list[dict[str, Sizes]] = []
    for key, dataset in (("dataset", experiment.dataset), ("test.dataset", experiment.tested)):
        try:
            sizes.append(sizes_of(dataset))
        except DataError as error:
            yield f"{key}.path", str(error)  # of a folder of images: other data have a form of their own
            return
    own, tested = sizes
    yield from shortages(experiment, own, tested)


def shortages(
    experiment: Experiment, sizes: Mapping[str, Sizes], tested: Mapping[str, Sizes], only: str | None = None
) -> Iterator[Mistake]:
    """Yield the settings of training, validation and test that ask for more classes or images than there are.

    Args:
        experiment: a few-shot experiment. Where a setting is invalid and missing, that section is skipped.
        sizes: the size of each split of its dataset; {} if they are not known.
        tested: those of the dataset of its test.
        only: the split of a test without training.
    """
    if not experiment.kind.is_trained:
        only = only or "test"
    for section, split in {"test": only}.items() if only else SPLITS.items():
        known = tested if section == "test" else sizes
        try:
            yield from _shortage(experiment, section, split, known.get(split)) if known else ()
        except AttributeError:  # of a setting that is missing
            continue


def _shortage(experiment: Experiment, section: str, split: str, size: Sizes | None) -> Iterator[Mistake]:
    if getattr(experiment, section) is None:
        return
    if size is None:
        way_out = "write `validation: null`, or add classes" if section == "validation" else "add classes"
        named = "test.dataset" if section == "test" and experiment.test.dataset else "the dataset"
        yield section, f"{named} has no {split} classes: {way_out}"
        return
    if section == "train" and experiment.kind.trains_on_images:
        yield from _training_classes(experiment, size)
        return
    way = _in_effect(experiment, section, "way")
    if size.classes is not None and way[0] > size.classes:
        yield f"{section}.way", f"is {way[0]}{way[1]}: at most {size.classes} here, the classes of {size.group}{split}"
    shot, query = (_in_effect(experiment, section, option) for option in ("shot", "query"))
    asks = section != "train" or experiment.entry.trains_on_queries
    where = f"class {size.smallest} of {split} has" if size.smallest else f"the classes of {split} have"
    where += f" {size.images} images"
    if asks and shot[0] < size.images < shot[0] + query[0]:
        rest = f"{where}, and {section}.shot is {shot[0]}{shot[1]}"
        yield f"{section}.query", f"is {query[0]}{query[1]}: at most {size.images - shot[0]} here; {rest}"
    elif shot[0] + asks > size.images:
        rest = f"{where}, and a query needs one" if asks else where
        yield f"{section}.shot", f"is {shot[0]}{shot[1]}: at most {size.images - asks} here; {rest}"


def _training_classes(experiment: Experiment, size: Sizes) -> Iterator[Mistake]:
    """Yield why a classifier of all training classes cannot be trained: there is one, or more than it has outputs."""
    classes, outputs = size.of_all_groups, getattr(experiment.algorithm, "outputs", None)
    if classes == 1:
        yield "train", f"the dataset has 1 train class, and {experiment.algorithm.name} needs at least 2: add classes"
    elif classes and outputs and outputs < classes:
        yield "algorithm.outputs", f"is {outputs}: at least {classes} here, the classes of train; or leave it out"


def _in_effect(experiment: Experiment, section: str, option: str) -> tuple[int, str]:
    """Return the value of way, shot or query in a section, and in words where it is from unless the spec says it."""
    value, source = getattr(getattr(experiment, section), option), ""
    if section == "validation" and value is None:
        return getattr(experiment.test, option), f" (as test.{option})"
    if section == "test" and option in experiment.taken:
        source = f" (as train.{option})"
    elif option not in getattr(experiment, section).model_fields_set:
        source = " (default)"
    return value, source


def unshareable(experiment: Experiment, workers: int) -> str | None:
    """Return why so many workers cannot share the training of an experiment; None if they can."""
    algorithm = experiment.algorithm
    if not experiment.kind.is_trained:
        return f"{algorithm.name} is not trained, {workers} workers have nothing to divide: start it alone"
    if reason := algorithm.unshareable(experiment.train, workers):
        return reason
    parts = getattr(algorithm, "norm_groups", None) or 1
    normalised = experiment.kind.trains_on_images and getattr(experiment.network, "batch_norm", True)
    if normalised and parts % workers:
        return (
            f"batch norm sees a mini-batch {'whole' if parts == 1 else f'in {parts} parts'}, which {workers} workers "
            f"cannot share: set algorithm.norm_groups to a multiple of {workers} that divides train.meta_batch, "
            f"{experiment.train.meta_batch}"
        )
    return None
