"""What a run is made of: data, learner, validation and test, as its spec says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from .. import datasets
from ..algorithms import ALGORITHMS
from ..algorithms.build import build as build_learner
from ..algorithms.build import build_player
from ..algorithms.learner import Learner, Problem
from ..algorithms.networks.options import NetworkOptions
from ..datasets.tasks import Episode, Shape, Split, TaskSource
from ..datasets.trials import Trials, TrialSource
from .config.experiment import Experiment, Test, Train, Validation
from .errors import RunError
from .runs.directory import RunDirectory

Source = TaskSource | TrialSource
Tasks = Episode | Trials


def build(experiment: Experiment, seed: int, only: Split | None = None) -> tuple[Source, Learner]:
    """The task distribution and the learner. The data are checked to hold enough for training, validation and test, or
    for the test on the `only` split that is measured, where all is trained."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    if tf.config.list_physical_devices("GPU"):  # CPU kernels are deterministic as they are
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # 10 bits of mantissa: float32 in name alone
    dtype = "float32" if experiment.precision == "bfloat16" else experiment.precision
    source = datasets.build(experiment.dataset, dtype)
    train = experiment.train
    if isinstance(source, TrialSource) != (experiment.kind != "few-shot"):
        raise RunError(
            f"{experiment.algorithm.name} cannot learn from {source.name}: one has trials, the other has not"
        )
    if isinstance(source, TrialSource):
        return source, build_player(
            experiment.algorithm,
            experiment.network,
            experiment.optimizer,
            source,
            steps=train.steps,
            meta_batch=train.meta_batch,
            precision=experiment.precision,
            seed=seed,
            jit=experiment.compiles,
        )
    assert isinstance(experiment.network, NetworkOptions) and experiment.protocol
    if source.regression and not ALGORITHMS[experiment.algorithm.name].has_head:
        raise RunError(
            f"{experiment.algorithm.name} is a classifier, and {source.name} regression: use maml or reptile"
        )
    if not only:
        source.check("train", training_shape(experiment))
    if not only and experiment.validation:
        source.check("val", validation_shape(experiment))
    source.check(only or "test", shape_of(experiment.test))
    learner = build_learner(
        experiment.algorithm,
        experiment.network,
        experiment.optimizer,
        problem=Problem(source.regression, experiment.protocol),
        input_shape=source.input_shape,
        outputs=math.prod(source.target_shape) if source.regression else train.way,
        steps=train.steps,
        meta_batch=train.meta_batch,
        precision=experiment.precision,
        seed=seed,
        jit=experiment.compiles,
    )
    return source, learner


def refuse_other_images(state: Mapping[str, Any], source: Source, directory: RunDirectory) -> None:
    """RunError where the data are not those of the checkpoint with this state."""
    former = (None, "", getattr(source, "former_digest", ""))  # of older versions
    if state.get("content_digest") not in (*former, source.content_digest):
        raise RunError(
            f"{directory.path}: {source.name} has other images than those it was trained on: bring them back, or "
            "start anew with --fresh"
        )


def draw(source: Source, split: Split, index: tf.Tensor, tasks: int, shape: Shape, seed: int) -> Tasks:
    """Tasks number `index` to `index + tasks - 1`; trials have a shape of their own."""
    if isinstance(source, TrialSource):
        return source.sample(split, index, tasks, seed)
    return source.sample(split, index, tasks, shape, seed)


def shape_of(section: Train | Test) -> Shape:
    """Way, shot and query of a section."""
    return Shape(section.way, section.shot, section.query)


def training_shape(experiment: Experiment) -> Shape:
    """As the train section says; no queries for a learner that has no use for them."""
    shape = shape_of(experiment.train)
    return shape if ALGORITHMS[experiment.algorithm.name].trains_on_queries else shape._replace(query=0)


def validation_shape(experiment: Experiment) -> Shape:
    """As the test's where the validation section says nothing else."""
    section, test = experiment.validation or Validation(), experiment.test
    return Shape(section.way or test.way, section.shot or test.shot, section.query or test.query)
