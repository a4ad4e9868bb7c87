"""metarun's side of each work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from metarun.experiments.system.startup import fast_kernels, one_after_another

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels() | one_after_another())

import numpy as np
import tensorflow as tf
from works import ARMS, ImageWork, SinusoidWork, TrialsWork, Work

from metarun.algorithms.build import Setup, build
from metarun.algorithms.learner import Support
from metarun.algorithms.networks.operations import forward
from metarun.algorithms.networks.options import GRUOptions
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.options import ReptileOptions, RL2Options
from metarun.datasets.bandits import BanditsSource
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import BanditsOptions, GlyphsOptions
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.config.load import load
from metarun.experiments.model import Model, training_shape
from metarun.experiments.model import build as build_model
from metarun.experiments.training.steps import TrainingSteps

Arrays = dict[str, np.ndarray]


def experiment_of(work: ImageWork, precision: str = "float32") -> Experiment:
    """Build the spec of a work; its dataset is not used."""
    return Experiment(
        name="work",
        algorithm=work.algorithm,
        network=work.network,
        dataset=GlyphsOptions(),
        protocol="transductive",
        optimizer=work.optimizer,
        train=work.train,
        precision=precision,
    )


def source_of(work: ImageWork, precision: str = "float32") -> ImageSource:
    """Make random images, 120 classes of 20."""
    pixels = np.random.default_rng(0).integers(0, 256, (120 * 20, *work.image), dtype=np.uint8)
    pool = ClassPool(pixels, np.full(120, 20), tuple(str(number) for number in range(120)))
    dtype = "float32" if precision == "bfloat16" else precision  # as in a run
    return ImageSource("random", {"train": pool}, dtype=dtype)


def model_of(work: ImageWork | SinusoidWork, precision: str) -> Model:
    """Build the model of a work."""
    if isinstance(work, SinusoidWork):
        return build_model(load("finn2017/sinusoid", [*work.overrides, f"precision={precision}"]).experiment, 0)
    source = source_of(work, precision)
    setup = Setup(
        work.algorithm, work.network, work.optimizer, "transductive", work.train.way, steps=1000, precision=precision
    )
    return Model(experiment_of(work, precision), 0, source, build(setup, source))


class Metarun:
    """Run metarun's side of few-shot works: `advance` trains as `metarun train`, `step` on the first tasks alone."""

    def __init__(self, work: ImageWork | SinusoidWork, precision: str = "float32"):
        self.work, self.model = work, model_of(work, precision)
        self.learner, self.experiment = self.model.learner, self.model.experiment
        self.parameters = {name: value.numpy() for name, value in self.learner.parameters.items()}
        shape, tasks = training_shape(self.experiment), self.experiment.train.meta_batch
        self.batch = self.model.training_stream().sample(0, tasks)
        self.operations = tasks * self.learner.operations(shape)
        training = TrainingSteps(self.model)
        first = tf.constant(0, tf.int64)  # always the same tasks, so that the peers can be given them
        self.step: Callable[[], float] = lambda: float(training.update(first)["loss"])
        self.advance: Callable[[int], Any] = training.take

    def given(self) -> Arrays:
        """Return what the peers start from: the first tasks, the first weights, the orders of Reptile's images."""
        names = [name for name in self.batch._fields if name.endswith(("x", "y"))]
        arrays = {name: getattr(self.batch, name).numpy() for name in names}
        if isinstance(options := self.experiment.algorithm, ReptileOptions):
            support = Support.of_task(self.batch)
            arrays["orders"] = self.learner._order(support, options.inner_steps, options.inner_batch).numpy()
        return arrays | {f"parameters/{name}": value for name, value in self.parameters.items()}

    def expected(self) -> Arrays:
        """Return the losses of two steps on the first tasks."""
        return {"losses": np.array([self.step(), self.step()])}


class MetarunTrials:
    """Run metarun's side of a work of trials: `step` returns the mean total reward."""

    def __init__(self, work: TrialsWork, precision: str = "float32"):
        self.work, self.source = work, BanditsSource(BanditsOptions(arms=ARMS, pulls=work.pulls))
        setup = Setup(RL2Options(), GRUOptions(), OptimizerOptions(clip_value=40), steps=1000, precision=precision)
        self.learner = build(setup, self.source)
        plays = work.pulls * work.trials * forward(self.learner.policy.layers)
        self.operations = plays if work.part == "play" else work.trials * self.learner.operations()
        self.index = 0

    def step(self) -> float:
        """Take a step on new trials."""
        trials = self.source.sample("train", self.index, self.work.trials, seed=0)
        self.index += self.work.trials
        if self.work.part == "play":
            return float(self.learner.evaluate(trials)["total_reward"].numpy().mean())
        return float(self.learner.train_step(trials)["total_reward"])

    def advance(self, count: int) -> None:
        """Take so many steps."""
        for _ in range(count):
            self.step()

    def given(self) -> Arrays:
        """Return the policy's first weights, and random inputs for it."""
        dtype = self.learner.dtype.as_numpy_dtype
        xs = np.random.default_rng(0).normal(size=(self.work.pulls, 8, ARMS + 3)).astype(dtype)
        return {"xs": xs} | {f"parameters/{name}": v.numpy() for name, v in self.learner.policy.parameters.items()}

    def expected(self) -> Arrays:
        """Return the policy's outputs, and the gradient of their squares for the recurrent matrix."""
        policy = self.learner.policy
        with tf.GradientTape() as tape:
            outputs = policy.unroll(policy.weights(), tf.constant(self.given()["xs"]))
            loss = tf.reduce_sum(outputs**2)
        return {"outputs": outputs.numpy(), "gradient": tape.gradient(loss, policy.parameters["recurrent/direction"])}


def side(work: Work, precision: str = "float32") -> Metarun | MetarunTrials:
    """Build metarun's side of any work."""
    return MetarunTrials(work, precision) if isinstance(work, TrialsWork) else Metarun(work, precision)
