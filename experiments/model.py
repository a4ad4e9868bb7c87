"""Build what a spec names: the source of the tasks and the learner."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .. import datasets
from ..algorithms import ALGORITHMS
from ..algorithms.build import Setup
from ..algorithms.build import build as build_learner
from ..algorithms.heads import needs_mean
from ..algorithms.programs import free_graphs
from ..algorithms.workers import ALONE, Workers
from ..datasets.errors import DataError, listed
from ..datasets.images.source import ImageSource
from ..datasets.sizes import sizes_in
from ..datasets.tasks import Episode, EpisodeStream, ImageStream, LabelledImages, Shape, Split, TaskSource
from ..datasets.trials import Trials, TrialSource, TrialStream
from .config.checks import shortages
from .config.experiment import Experiment
from .config.sections import Validation
from .errors import RunError, warn_once
from .runs.directory import RunDirectory
from .system import gpus, signals

Source = TaskSource | TrialSource
Stream = EpisodeStream | TrialStream  # numbered tasks, drawn, counted and named alike
Tasks = Episode | Trials | LabelledImages


class Model(NamedTuple):
    """Hold a source of tasks and a learner, with the experiment and the seed from which they were built."""

    experiment: Experiment
    seed: int
    source: Any  # a Source
    learner: Any  # a Learner, or a TrainedLearner if the algorithm is trained
    workers: Workers = ALONE  # the processes that train it together
    tested: Any = None  # the source of the test's tasks, where the test is on another dataset
    training: Any = None  # the source of the training, if `source` may be that of a further test

    @property
    def test_source(self) -> Any:
        """Return the source of the test's tasks."""
        return self.tested or self.source

    @property
    def training_source(self) -> Any:
        """Return the source of the training's tasks or images."""
        return self.training or self.source

    @property
    def content_digest(self) -> str:
        """Return the digest of the data of training and test."""
        return self.source.content_digest + (f" {self.tested.content_digest}" if self.tested else "")

    def training_stream(self) -> Stream | ImageStream:
        """Return the stream of training tasks, or of a classifier's training images.

        Its images have the random changes that the spec asks for.
        """
        augment = self.experiment.augment
        if self.experiment.kind.trains_on_images:
            return ImageStream(self.source, "train", self.seed, augment)
        stream = self.source.stream("train", training_shape(self.experiment), self.seed)
        return stream if augment is None else replace(stream, augment=augment)

    def validation_stream(self) -> Stream:
        """Return the stream of fixed validation tasks."""
        return self.source.stream("val", validation_shape(self.experiment), self.experiment.test.episode_seed)

    def test_stream(self, split: Split = "test") -> Stream:
        """Return the stream of fixed test tasks, drawn from `split`."""
        test = self.experiment.test
        return self.test_source.stream(split, shape_of(test), test.episode_seed)


def build(experiment: Experiment, seed: int, only: Split | None = None, workers: Workers = ALONE) -> Model:
    """Build the source of tasks and the learner of an experiment.

    Args:
        experiment: the experiment to build.
        seed: seed of the initial weights and of the training tasks.
        only: the split of a test without training: this split alone must hold enough data. By default the splits of
            training, validation and test must.
        workers: the processes that train the model together.

    Raises:
        RunError: source and algorithm do not fit together, the source lacks something, a GPU is required and
            TensorFlow lists none, or it does not have the precision.
        DataError: the data are missing, damaged or too few.
        Interrupted: a signal came while the data were read.
    """
    if experiment.device == "gpu":
        gpus.require()
    gpus.refuse_precision(experiment.precision)
    deterministic(seed, tf32=experiment.precision == "tf32")
    with signals.at_once():
        further = only in experiment.dataset.further_tests and experiment.test.dataset is None
        source: Any = None
        if only and further:
            source = datasets.build_test(
                experiment.dataset, only, input_dtype(experiment), original=experiment.network is None
            )
        training: Any = source
        if source is None or _reads_training_images(experiment):
            training = datasets.build(experiment.dataset, input_dtype(experiment))
        source = source or training
        _refuse_misfits(experiment, training)
        if not only:
            _refuse_unchangeable(experiment, source)
        tested = _tested_source(experiment, source, only or "test")
    if not experiment.kind.plays_trials:
        _check_sizes(experiment, source, tested or source, only)
    learner = build_learner(setup_of(experiment, seed), training)
    return Model(experiment, seed, source, learner, workers, tested, training)


def _reads_training_images(experiment: Experiment) -> bool:
    """Return whether a test needs the training images too: for the number of their classes, or their mean feature."""
    head = experiment.test.head
    return experiment.kind.trains_on_images or (head is not None and needs_mean(head))


def setup_of(experiment: Experiment, seed: int) -> Setup:
    """Return what the learner of an experiment is built from, besides its source of tasks."""
    train = experiment.train
    return Setup(
        experiment.algorithm,
        experiment.network,
        experiment.optimizer,
        protocol=experiment.protocol,
        way=train.way,
        steps=train.steps,
        meta_batch=train.meta_batch,
        precision="float32" if experiment.precision == "tf32" else experiment.precision,
        seed=seed,
        jit=experiment.compiles,
    )


def input_dtype(experiment: Experiment) -> str:
    """Return the dtype of the inputs."""
    return "float32" if experiment.precision in ("bfloat16", "tf32") else experiment.precision


def _tested_source(experiment: Experiment, source: Any, split: Split) -> Any:
    """Return another source for the test, with the images that the network reads; None if the test has no other.

    Warns of classes of the test that the training has too.

    Raises:
        RunError: one of the sources has no images.
        DataError: the data are missing or damaged, have no such split, or the conversion must be chosen.
    """
    if experiment.test.dataset is None:
        return None
    options = experiment.test.dataset
    if isinstance(source, ImageSource):
        options = options.for_network(source.preprocessing)
    tested: Any = datasets.build(options, input_dtype(experiment))
    for each in (source, tested):
        if not isinstance(each, ImageSource):
            raise RunError(f"{each.name} has no images: only images can be tested on another dataset")
    if split not in tested.pools:
        raise DataError(f"{tested.name} has no {split} classes: choose another split, or another dataset")
    if both := _shared_names(source, tested, split):
        number, names = len(tested.pools[split].names), ", ".join(both[:3])
        warn_once(
            f"{len(both)} of the {number} {split} classes of {tested.name} are classes of the training, by their names "
            f"({names}{', ...' if len(both) > 3 else ''}): accuracy on them is not few-shot accuracy"
        )
    return tested.as_images_of(source, split, experiment.test.convert)


def _shared_names(source: ImageSource, tested: ImageSource, split: Split) -> list[str]:
    """Return the names of tested classes that are training classes; those of folders without train/, val/, test/."""
    own, others = (
        {re.sub("^(train|val|test)/", "", name) for name in names}
        for names in (source.pools["train"].names if "train" in source.pools else (), tested.pools[split].names)
    )
    return sorted(own & others)


def refuse_other_tested_images(experiment: Experiment, split: Split, digest: str, row: Path) -> None:
    """Raise RunError if the folder that a test was done on has other images now; other datasets cannot change.

    Args:
        experiment: the experiment with the test.
        split: the split that was tested.
        digest: the digest of the images in the row of the test.
        row: the file of the row, for the message.
    """
    if experiment.test.dataset is None or not experiment.test.dataset.located:
        return
    source = datasets.build(experiment.dataset, input_dtype(experiment))
    tested = _tested_source(experiment, source, split)
    if tested.content_digest[:16] != digest:
        raise RunError(
            f"{row} is of other images than {tested.name} has now (digest {digest}, these have "
            f"{tested.content_digest[:16]}): restore them, or move this row away to test again"
        )


def deterministic(seed: int, tf32: bool = False) -> None:
    """Set TensorFlow and Keras so that equal work gives equal bits, and clear the models built before.

    What the user has set in keras.json, or in this process, does not count.

    Args:
        seed: the seed of Keras, NumPy and TensorFlow.
        tf32: whether a GPU computes products of float32 numbers from 10 bits of their mantissa.
    """
    free_graphs()
    keras.utils.clear_session()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.utils.set_random_seed(seed)
    if tf.config.list_physical_devices("GPU"):  # CPU kernels are deterministic as they are
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)  # on by default: float32 in name alone


def _refuse_misfits(experiment: Experiment, source: Any) -> None:
    """Raise RunError if the source lacks a member, or does not fit the algorithm."""
    algorithm, plays = experiment.algorithm.name, experiment.kind.plays_trials
    if hasattr(source, "trial") != plays:
        has = "has no" if plays else "has only"
        raise RunError(f"{algorithm} cannot learn from {source.name}, which {has} trials: choose another dataset")
    protocol = TrialSource if plays else TaskSource
    members = [*protocol.__annotations__, *(name for name, member in vars(protocol).items() if callable(member))]
    missing = [name for name in members if not name.startswith("_") and not hasattr(source, name)]
    if missing:
        raise RunError(
            f"the source of dataset {experiment.dataset.name} lacks {', '.join(missing)}: derive it from "
            f"{protocol.__module__}.{protocol.__name__}"
        )
    if experiment.kind.trains_on_images and not isinstance(source, ImageSource):
        raise RunError(
            f"{algorithm} is trained on single images, and {source.name} has tasks only: use an image dataset"
        )
    if not plays and source.regression and not ALGORITHMS[algorithm].has_head:
        raise RunError(f"{algorithm} is a classifier, and {source.name} is regression: use maml or reptile")


def _refuse_unchangeable(experiment: Experiment, source: Any) -> None:
    """Raise RunError if the training images cannot be changed as the section `augment` says."""
    augment = experiment.augment
    if augment is None:
        return
    if "augment" not in inspect.signature(source.sample).parameters:
        raise RunError(
            f"augment: the source of dataset {experiment.dataset.name} cannot change its images: write augment: null, "
            "or derive it from metarun.datasets.images.source.ImageSource"
        )
    if message := augment.too_much_padding(min(source.input_shape[:2])):
        raise RunError(f"augment.crop_padding: {message}")
    if augment.saturation is not None and source.input_shape[-1] == 1:
        raise RunError(f"augment.saturation: has no effect: the images of {source.name} are grey")


def _check_sizes(experiment: Experiment, source: TaskSource, tested: TaskSource, only: Split | None) -> None:
    """Raise DataError, with all of them, if splits hold too few classes or images."""
    if not experiment.kind.is_trained:
        only = only or "test"
    sizes = sizes_in(source), sizes_in(tested)
    if problems := [f"{key} {message}" for key, message in shortages(experiment, *sizes, only)]:
        raise DataError(f"{(tested if only else source).name}: {'; '.join(problems)}")
    shapes: dict[Split, Shape] = {}
    if not only and not experiment.kind.trains_on_images:
        shapes["train"] = training_shape(experiment)
    if not only and experiment.validation:
        shapes["val"] = validation_shape(experiment)
    shapes[only or "test"] = shape_of(experiment.test)
    too_few = []
    for split, shape in shapes.items():
        try:
            (tested if split == (only or "test") else source).check(split, shape)
        except DataError as error:
            too_few.append(str(error))
    if too_few:
        raise DataError(listed(f"{source.name} has too few classes or images", too_few))


def shape_of(section: Any) -> Shape:
    """Return the way, shot and query of a section: training, test, or validation with those of the test."""
    return Shape(section.way, section.shot, section.query)


def training_shape(experiment: Experiment) -> Shape:
    """Return the shape of the training tasks, without queries for a learner that does not train on them."""
    shape = shape_of(experiment.train)
    return shape if ALGORITHMS[experiment.algorithm.name].trains_on_queries else shape._replace(query=0)


def validation_shape(experiment: Experiment) -> Shape:
    """Return the shape of the validation tasks: that of the test, unless the validation section states another."""
    return shape_of((experiment.validation or Validation()).filled(experiment.test))


def refuse_other_images(state: Mapping[str, Any], source: Source, directory: RunDirectory) -> None:
    """Raise RunError if the images are not those that a checkpoint was trained on.

    Args:
        state: the state of the checkpoint.
        source: the source of tasks.
        directory: the folder of the run, for the message.
    """
    former = (None, "", getattr(source, "former_digest", ""))  # of older versions
    if state.get("content_digest") not in (*former, source.content_digest):
        raise RunError(
            f"{directory.path}: {source.name} has other images than those it was trained on: restore them, or "
            "train again with --fresh"
        )
