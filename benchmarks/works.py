"""The works that are measured. Nothing here imports TensorFlow, PyTorch or JAX: each has a process of its own."""

from __future__ import annotations

from typing import Literal, NamedTuple

from metarun.algorithms.networks.options import Conv4Options
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.options import (
    BaselineOptions,
    MAMLOptions,
    MatchingNetworkOptions,
    PrototypicalNetworkOptions,
    R2D2Options,
    ReptileOptions,
)
from metarun.datasets.options import Options
from metarun.experiments.config.sections import Train

ARMS, UNITS = 5, 256  # of the bandits, and of the GRUs that play them
EPOCHS, MINIBATCH = 5, 128


class ImageWork(NamedTuple):
    """Define a training step on random images."""

    title: str
    algorithm: Options
    network: Conv4Options
    train: Train
    image: tuple[int, int, int] = (28, 28, 1)
    optimizer: OptimizerOptions = OptimizerOptions()

    @property
    def stride(self) -> bool:
        """Return whether convolutions halve the images, in place of pooling."""
        return self.network.downsample == "stride"

    @property
    def space(self) -> int:
        """Return the side of the last feature map that enters the last layer."""
        side = {(28, True): 2, (28, False): 1, (84, False): 5}[self.image[0], self.stride]
        return side if self.network.features == "flatten" else 1

    def small(self) -> ImageWork:
        """Return the work on two tasks of few small images, whose second loss shows the gradient of the first step."""
        sizes = {"meta_batch": min(self.train.meta_batch, 2), "query": min(self.train.query, 3)}
        return self._replace(
            train=self.train.model_copy(update=sizes),
            image=(28, 28, self.image[2]),
            optimizer=OptimizerOptions(name="sgd", learning_rate=1.0),
        )


class TrialsWork(NamedTuple):
    """Define RL^2 with a GRU on Bernoulli bandits: playing all trials, or a whole iteration."""

    title: str
    part: Literal["play", "iteration"]
    pulls: int
    trials: int

    def small(self) -> TrialsWork:
        """Return the work on eight trials of ten pulls."""
        return self._replace(pulls=10, trials=8)


class SinusoidWork(NamedTuple):
    """Define second-order MAML on sinusoids, as the spec `finn2017/sinusoid`; tasks are drawn inside the program."""

    title: str
    tasks: int = 25
    points: int = 10
    inner_lr: float = 1e-3
    optimizer: OptimizerOptions = OptimizerOptions()
    initializer: str = "truncated_normal"

    @property
    def overrides(self) -> list[str]:
        """Return the overrides that make the spec this work."""
        return [
            f"train.meta_batch={self.tasks}",
            f"train.shot={self.points}",
            f"train.query={self.points}",
            f"algorithm.inner_lr={self.inner_lr}",
            f"optimizer.name={self.optimizer.name}",
            f"optimizer.learning_rate={self.optimizer.learning_rate}",
            f"network.initializer={self.initializer}",
        ]

    def small(self) -> SinusoidWork:
        """Return the work with steps and weights so large that the second loss shows the gradient of the first step."""
        rates = OptimizerOptions(name="sgd", learning_rate=0.1)
        return self._replace(inner_lr=0.1, optimizer=rates, initializer="glorot_uniform")


Work = ImageWork | TrialsWork | SinusoidWork
WORKS: dict[str, Work] = {
    "W1": ImageWork(
        "MAML, Omniglot 5-way 1-shot, 32 tasks, 1 inner step",
        MAMLOptions(inner_lr=2.0),
        Conv4Options(downsample="stride", features="mean", norm_scale=False),
        Train(way=5, shot=1, query=1, meta_batch=32, steps=1),
    ),
    "W2": ImageWork(
        "MAML, miniImageNet 5-way 1-shot, 4 tasks, 5 inner steps",
        MAMLOptions(inner_lr=0.05, inner_steps=5),
        Conv4Options(filters=32, norm_scale=False),
        Train(way=5, shot=1, query=15, meta_batch=4, steps=1),
        image=(84, 84, 3),
    ),
    "W3": ImageWork(
        "Prototypical Networks, Omniglot 60-way 1-shot",
        PrototypicalNetworkOptions(),
        Conv4Options(),
        Train(way=60, shot=1, query=5, steps=1),
    ),
    "W4": ImageWork(
        "Reptile, Omniglot 5-way, 5 tasks x 5 Adam steps",
        ReptileOptions(inner_lr=1e-3, inner_steps=5, inner_batch=10),
        Conv4Options(downsample="stride"),
        Train(way=5, shot=10, meta_batch=5, steps=1),
        optimizer=OptimizerOptions(name="sgd", learning_rate=1.0),
    ),
    "W5": ImageWork(
        "Matching Networks with FCE, Omniglot 20-way 1-shot",
        MatchingNetworkOptions(temperature=0.1, full_context_embeddings=True),
        Conv4Options(),
        Train(way=20, shot=1, query=5, steps=1),
    ),
    "W6": TrialsWork("RL^2, playing 2,500 trials of 10 pulls", "play", 10, 2500),
    "W7": TrialsWork("RL^2, playing 250 trials of 100 pulls", "play", 100, 250),
    "W8": TrialsWork("RL^2, an iteration of 2,500 trials of 10 pulls", "iteration", 10, 2500),
    "W9": TrialsWork("RL^2, an iteration of 250 trials of 100 pulls", "iteration", 100, 250),
    "W10": SinusoidWork("MAML, sinusoids, 25 tasks of 10 points, MLP 40-40"),
    "W11": ImageWork(
        "Baseline, a mini-batch of 64 images of 84x84",
        BaselineOptions(),
        Conv4Options(),
        Train(meta_batch=64, steps=1),
        image=(84, 84, 3),
    ),
    "W12": ImageWork(
        "R2D2, Omniglot 20-way 5-shot",
        R2D2Options(penalty=1.0),
        Conv4Options(),
        Train(way=20, shot=5, query=5, steps=1),
    ),
}
