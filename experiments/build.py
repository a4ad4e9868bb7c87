"""What a run is made of: data, learner, validation and test, as its spec says."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from .. import algorithms, datasets
from ..algorithms.learner import Learner, Problem
from ..algorithms.options import NetworkOptions
from ..algorithms.workers import ALONE, Workers
from ..datasets.tasks import Split
from ..datasets.trials import TrialSource
from .errors import RunError
from .measure import Evaluation
from .spec import Experiment
from .steps import Source, shape_of, training_shape, validation_shape


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
        return source, algorithms.build_player(
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
    if source.regression and not algorithms.ALGORITHMS[experiment.algorithm.name].has_head:
        raise RunError(
            f"{experiment.algorithm.name} is a classifier, and {source.name} regression: use maml or reptile"
        )
    if not only:
        source.check("train", training_shape(experiment))
    if not only and experiment.validation:
        source.check("val", validation_shape(experiment))
    source.check(only or "test", shape_of(experiment.test))
    learner = algorithms.build(
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


def validation_of(
    experiment: Experiment, learner: Learner, source: Source, workers: Workers = ALONE
) -> Evaluation | None:
    """The validation, if there is one."""
    section, seed = experiment.validation, experiment.test.episode_seed
    if section is None or experiment.kind == "classical":
        return None
    return Evaluation(learner, source, "val", validation_shape(experiment), section.episodes, seed, workers)


def validates_at(step: int, experiment: Experiment) -> bool:
    """Whether a validation follows this step."""
    every = experiment.validation.every if experiment.validation else 0
    return step % every == 0 or step == experiment.train.steps


def test_of(experiment: Experiment, learner: Learner, source: Source, workers: Workers = ALONE) -> Evaluation:
    """The final test."""
    test = experiment.test
    return Evaluation(learner, source, "test", shape_of(test), test.episodes, test.episode_seed, workers)
