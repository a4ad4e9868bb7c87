"""The works that are measured, and metarun's side of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from metarun.experiments.system.startup import fast_kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels())

import numpy as np
import tensorflow as tf

from metarun.algorithms.build import Setup, build
from metarun.algorithms.networks.operations import forward
from metarun.algorithms.networks.options import Conv4Options, GRUOptions
from metarun.algorithms.options import (
    MAMLOptions,
    MatchingNetworkOptions,
    OptimizerOptions,
    PrototypicalNetworkOptions,
    ReptileOptions,
    RL2Options,
)
from metarun.datasets.bandits import BanditsSource
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import BanditsOptions, GlyphsOptions, Options
from metarun.experiments.config.experiment import Experiment, Train
from metarun.experiments.model import Model, training_shape
from metarun.experiments.training.steps import TrainingSteps


class Work(NamedTuple):
    """A training step that is measured."""

    title: str
    algorithm: Options
    network: Conv4Options
    train: Train
    image: tuple[int, int, int] = (28, 28, 1)
    optimizer: OptimizerOptions = OptimizerOptions()


class TrialsWork(NamedTuple):
    """RL^2 with a GRU of 256 units on Bernoulli bandits with 5 arms: playing all trials, or a whole iteration."""

    title: str
    part: Literal["play", "iteration"]
    pulls: int
    trials: int


STRIDED = Conv4Options(downsample="stride")
WORKS: dict[str, Work | TrialsWork] = {
    "W1": Work(
        "MAML, Omniglot 5-way 1-shot, 32 tasks, 1 inner step",
        MAMLOptions(inner_lr=2.0),
        Conv4Options(downsample="stride", features="mean", norm_scale=False),
        Train(way=5, shot=1, query=1, meta_batch=32, steps=1),
    ),
    "W2": Work(
        "MAML, miniImageNet 5-way 1-shot, 4 tasks, 5 inner steps",
        MAMLOptions(inner_lr=0.05, inner_steps=5),
        Conv4Options(filters=32, norm_scale=False),
        Train(way=5, shot=1, query=15, meta_batch=4, steps=1),
        image=(84, 84, 3),
    ),
    "W3": Work(
        "Prototypical Networks, Omniglot 60-way 1-shot",
        PrototypicalNetworkOptions(),
        Conv4Options(),
        Train(way=60, shot=1, query=5, steps=1),
    ),
    "W4": Work(
        "Reptile, Omniglot 5-way, 5 tasks x 5 Adam steps",
        ReptileOptions(inner_lr=1e-3, inner_steps=5, inner_batch=10),
        STRIDED,
        Train(way=5, shot=10, meta_batch=5, steps=1),
        optimizer=OptimizerOptions(name="sgd", learning_rate=1.0),
    ),
    "W5": Work(
        "Matching Networks with FCE, Omniglot 20-way 1-shot",
        MatchingNetworkOptions(temperature=0.1, full_context_embeddings=True),
        Conv4Options(),
        Train(way=20, shot=1, query=5, steps=1),
    ),
    "W6": TrialsWork("RL^2, playing 2,500 trials of 10 pulls", "play", 10, 2500),
    "W7": TrialsWork("RL^2, playing 250 trials of 100 pulls", "play", 100, 250),
    "W8": TrialsWork("RL^2, an iteration of 2,500 trials of 10 pulls", "iteration", 10, 2500),
    "W9": TrialsWork("RL^2, an iteration of 250 trials of 100 pulls", "iteration", 100, 250),
}


def experiment_of(work: Work, precision: str = "float32") -> Experiment:
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


def source_of(work: Work, precision: str = "float32") -> ImageSource:
    """Make random images, 120 classes of 20."""
    pixels = np.random.default_rng(0).integers(0, 256, (120 * 20, *work.image), dtype=np.uint8)
    pool = ClassPool(pixels, np.full(120, 20), tuple(str(number) for number in range(120)))
    dtype = "float32" if precision == "bfloat16" else precision  # as in a run
    return ImageSource("random", {"train": pool}, dtype=dtype)


class Metarun:
    """metarun's side of a work: `step()` returns the loss."""

    def __init__(self, work: Work, precision: str = "float32"):
        self.experiment, self.source = experiment_of(work, precision), source_of(work, precision)
        setup = Setup(
            work.algorithm,
            work.network,
            work.optimizer,
            "transductive",
            work.train.way,
            steps=1000,
            precision=precision,
        )
        self.model = Model(self.experiment, 0, self.source, build(setup, self.source))
        self.learner = self.model.learner
        self.parameters = {name: value.numpy() for name, value in self.learner.parameters.items()}
        self.shape = training_shape(self.experiment)
        self.batch = self.source.sample("train", 0, work.train.meta_batch, self.shape, 0)
        self.operations = work.train.meta_batch * self.learner.operations(self.shape)
        update = TrainingSteps(self.model).update
        first = tf.constant(0, tf.int64)  # always the same tasks, so that the peer can be given them
        self.step: Callable[[], float] = lambda: float(update(first)["loss"])


ARMS = 5


class MetarunTrials:
    """metarun's side of such a work: `step()` returns the mean total reward."""

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


def side(work: Work | TrialsWork, precision: str = "float32") -> Metarun | MetarunTrials:
    """Build metarun's side of any work."""
    return Metarun(work, precision) if isinstance(work, Work) else MetarunTrials(work, precision)
