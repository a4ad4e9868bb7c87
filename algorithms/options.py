"""The options of each learner and of the optimizer in a spec. This module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..datasets.errors import counted
from ..datasets.options import Options
from .heads.options import CentroidHeadOptions, CosineHeadOptions, LinearHeadOptions


def _sum_of_one_task(task_reduction: str, meta_batch: int) -> Iterator[tuple[str, str]]:
    if task_reduction == "sum" and meta_batch == 1:
        yield "algorithm.task_reduction", "has no effect with train.meta_batch: 1"


class MAMLOptions(Options):
    """Learn by Model-Agnostic Meta-Learning (Finn, Abbeel and Levine 2017, arXiv:1703.03400)."""

    of_tests: ClassVar = frozenset({"test_inner_steps", "test_inner_lr"})
    name: Literal["maml"] = "maml"
    inner_lr: float = Field(
        gt=0,
        description="Step size alpha of the inner gradient steps on the MEAN loss over the support set. "
        "Finn's code sums over the ways: its 0.4 at 5-way is 2.0 here.",
    )
    inner_steps: int = Field(default=1, ge=0, le=1000, description="Inner gradient steps in training.")
    test_inner_steps: int | None = Field(
        default=None, ge=0, le=1000, description="Inner gradient steps in validation and test; default: inner_steps."
    )
    test_inner_lr: float | None = Field(
        default=None, gt=0, description="Inner step size in validation and test; default: inner_lr."
    )
    first_order: bool = Field(
        default=False, description="Drop the second derivatives (first-order MAML, section 5.2 of the paper)."
    )
    adapt: Literal["all", "weights", "head"] = Field(
        default="weights",
        description="What the inner loop changes: all; weights (all but the batch-norm scale and offset, "
        "as in the paper's code); head (the last layer only: ANIL, Raghu et al. 2020).",
    )
    task_reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="How the meta-loss combines the tasks of a meta-batch: mean (the paper's code) or sum (the "
        "paper's equation 1).",
    )
    tasks_per_chunk: int | None = Field(
        default=None,
        ge=1,
        description="Tasks computed at a time: the same gradient in less memory. "
        "Must divide train.meta_batch. Default: all at once.",
    )
    recompute_inner: bool | None = Field(
        default=None,
        description="true: store only the weights after each inner step and recompute the rest for the meta-gradient. "
        "Memory then hardly grows with inner_steps; training is slower. Default: false.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if self.first_order and self.inner_steps == 0:
            yield "algorithm.first_order", "has no effect with inner_steps: 0"
        if self.first_order and self.recompute_inner:
            yield "algorithm.recompute_inner", "has no effect with first_order: true, which keeps nothing of a step"
        if self.inner_steps == 0 and self.recompute_inner:
            yield "algorithm.recompute_inner", "has no effect with inner_steps: 0"
        if self.adapt == "all" and not getattr(experiment.network, "batch_norm", True):
            yield "algorithm.adapt", "all is the same as weights with batch_norm: false"
        chunk, meta_batch = self.tasks_per_chunk, experiment.train.meta_batch
        if chunk and meta_batch % chunk:
            yield "algorithm.tasks_per_chunk", f"is {chunk}, which does not divide train.meta_batch: {meta_batch}"
        if chunk == meta_batch:
            yield "algorithm.tasks_per_chunk", f"has no effect: it is train.meta_batch, {meta_batch}"
        yield from _sum_of_one_task(self.task_reduction, meta_batch)

    def in_parts(self, train: Any, share: float) -> MAMLOptions | None:
        if self.tasks_per_chunk or train.meta_batch == 1:
            return None
        return self.model_copy(update={"tasks_per_chunk": self._smaller_chunk(train, share)})

    def less_memory(self, train: Any, share: float) -> Iterator[str]:
        if (self.tasks_per_chunk or train.meta_batch) > 1:
            yield f"set algorithm.tasks_per_chunk: {self._smaller_chunk(train, share)}"
        if self.inner_steps > 1 and not self.first_order and not self.recompute_inner:
            yield "set algorithm.recompute_inner: true"
        yield from super().less_memory(train, share)

    def _smaller_chunk(self, train: Any, share: float) -> int:
        """Return the tasks of a smaller chunk that needs at most this share of the memory, or 1."""
        chunk = self.tasks_per_chunk or train.meta_batch
        return max(n for n in range(1, chunk) if train.meta_batch % n == 0 and n <= max(1, share * chunk))


class ReptileOptions(Options):
    """Learn by Reptile (Nichol, Achiam and Schulman 2018, arXiv:1803.02999)."""

    of_tests: ClassVar = frozenset({"test_inner_steps", "test_inner_batch"})
    name: Literal["reptile"] = "reptile"
    inner_lr: float = Field(gt=0, description="Step size of the inner optimizer on the mean loss.")
    inner_optimizer: Literal["adam", "sgd"] = Field(
        default="adam", description="adam: beta1 = 0, beta2 = 0.999, epsilon = 1e-8, as in the paper; sgd: plain."
    )
    inner_steps: int = Field(default=5, ge=1, le=1000, description="Mini-batches per task in training.")
    inner_batch: int = Field(
        default=10,
        ge=1,
        description="Images in a mini-batch in training, drawn without replacement and "
        "reshuffled after each pass over the support set.",
    )
    test_inner_steps: int | None = Field(
        default=None, ge=0, le=1000, description="Mini-batches per task in validation and test; default: inner_steps."
    )
    test_inner_batch: int | None = Field(
        default=None, ge=1, description="Images in a mini-batch in validation and test; default: inner_batch."
    )
    task_reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Update theta + epsilon * mean or sum over tasks of (theta_i' - theta)."
    )
    serial: bool = Field(
        default=False,
        description="true: one task after another, each from the weights after the one before (Algorithm 1 of the "
        "paper). false: the whole meta-batch at once (the batched version, as in the paper's code and tables).",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        train = experiment.train
        if train.is_changed("query"):
            yield "train.query", "has no effect: reptile has no query set in training"
        images = train.way * train.shot
        if self.inner_batch > images:
            yield (
                "algorithm.inner_batch",
                f"is {self.inner_batch}, more than the {counted(images, 'image')} of a support set "
                "(train.way x train.shot)",
            )
        if self.serial and train.meta_batch == 1:
            yield "algorithm.serial", "has no effect with train.meta_batch: 1"
        elif self.serial and self.task_reduction == "sum":
            yield "algorithm.task_reduction", "has no effect with serial: true, where each task is an update"
        yield from _sum_of_one_task(self.task_reduction, train.meta_batch)

    def unshareable(self, train: Any, workers: int) -> str | None:
        if self.serial:
            return f"algorithm.serial learns one task after another, which {workers} workers cannot: start it alone"
        return super().unshareable(train, workers)

    def less_memory(self, train: Any, share: float) -> Iterator[str]:
        if train.meta_batch > 1:
            yield "lower train.meta_batch"
        yield "lower algorithm.inner_batch"


class PrototypicalNetworkOptions(Options):
    """Learn by Prototypical Networks (Snell, Swersky and Zemel 2017, arXiv:1703.05175)."""

    name: Literal["protonet"] = "protonet"
    distance: Literal["squared_euclidean", "cosine"] = Field(
        default="squared_euclidean", description="Distance between a query and a prototype."
    )
    learn_scale: Literal[True] | None = Field(
        default=None,
        description="Divide distances by the number of features and multiply them by a learned factor that starts at 1 "
        "(Lee et al. 2019). Default: distances as they are.",
    )


class MatchingNetworkOptions(Options):
    """Learn by Matching Networks (Vinyals et al. 2016, arXiv:1606.04080)."""

    name: Literal["matchingnet"] = "matchingnet"
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="The attention is softmax(cosine / temperature). 1: the paper's equation; much lower "
        "values train much better (0.03 in the specs of Omniglot; Chen et al. 2019 multiply the cosine by 100, which "
        "is 0.01).",
    )
    full_context_embeddings: bool = Field(
        default=False, description="Embed each image in the context of the support set (FCE, appendix A)."
    )
    attention_steps: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Steps K of the attention LSTM over the support set; default with FCE: 5.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if not self.full_context_embeddings and self.is_changed("attention_steps"):
            yield "algorithm.attention_steps", "has no effect without full_context_embeddings: true"


class HausdorffOptions(Options):
    """Find the nearest drawing by the modified Hausdorff distance (Dubuisson and Jain 1994); nothing is trained."""

    name: Literal["hausdorff"] = "hausdorff"

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if not experiment.dataset.has_ink:
            yield "algorithm.name", "hausdorff compares the ink of drawings: use omniglot or glyphs"


class RL2Options(Options):
    """Learn by RL^2 (Duan et al. 2016, arXiv:1611.02779), as the authors' code trains it; see `rl2.py`."""

    name: Literal["rl2"] = "rl2"
    discount: float = Field(default=0.99, ge=0, le=1, description="Discount of rewards per step, over the whole trial.")
    gae_lambda: float = Field(
        default=0.3, ge=0, le=1, description="Lambda of generalised advantage estimation, over the whole trial."
    )
    clip: float = Field(
        default=0.1, gt=0, lt=1, description="The ratio of probabilities is clipped to 1 - clip .. 1 + clip (PPO)."
    )
    epochs: int = Field(
        default=5, ge=1, le=1000, description="Passes over the batch in an iteration, of the policy and the baseline."
    )
    minibatch: int = Field(default=128, ge=1, description="Trials per mini-batch; the last one holds the rest.")
    shuffle: bool | None = Field(
        default=None,
        description="true: each pass takes the trials in another order, with one worker only. Default: false.",
    )
    kl_limit: float | None = Field(
        default=0.01,
        gt=0,
        description="Largest change of the policy in an iteration: mean KL(old, new) per step. null: no limit, and the "
        "policy of the last pass is kept.",
    )
    backtracks: int = Field(
        default=10, ge=0, le=100, description="Attempts to shorten a step beyond kl_limit; then the step is not taken."
    )
    backtrack_factor: float = Field(
        default=0.5, gt=0, lt=1, description="Factor by which an attempt shortens the step."
    )
    entropy_bonus: float = Field(default=0.0, ge=0, description="Weight of the policy's entropy in the objective.")
    standardise_advantages: bool | None = Field(
        default=None, description="false: advantages keep the scale of the rewards, and their mean. Default: true."
    )
    baseline_target: Literal["returns", "td_lambda"] | None = Field(
        default=None,
        description="What the baseline learns: discounted returns, or td_lambda, its estimate plus the advantage "
        "(Schulman et al. 2017). Default: returns.",
    )
    baseline_loss: Literal["squared", "huber"] | None = Field(
        default=None, description="Squared error, or Huber's loss, linear beyond errors of 1. Default: squared."
    )
    baseline_normalisation_rate: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Weight of the newest batch in the running mean and standard deviation that the baseline's targets "
        "are normalised by. 0: they are not normalised.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        for option in ("backtracks", "backtrack_factor"):
            if self.kl_limit is None and self.is_changed(option):
                yield f"algorithm.{option}", "has no effect without kl_limit"
        if self.shuffle and self.minibatch >= experiment.train.meta_batch:
            yield "algorithm.shuffle", "has no effect: a minibatch holds all trials of an iteration"

    def unshareable(self, train: Any, workers: int) -> str | None:
        if reason := super().unshareable(train, workers):
            return reason
        if self.shuffle:
            return f"{workers} workers cannot share out mini-batches that are shuffled: start one, or shuffle: false"
        if self.minibatch < workers:
            return f"{workers} workers cannot share out a minibatch of {self.minibatch}: start fewer, or raise it"
        return None


class ClassifierOptions(Options):
    """Hold the options of methods that train a classifier of all training classes, and test it by a head."""

    outputs: int | None = Field(
        default=None,
        ge=2,
        description="Outputs of the classifier in training; more than there are classes are never right (Chen et al. "
        "2019: 200). Default: the number of training classes.",
    )
    label_smoothing: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the label that is spread evenly over all outputs. Default: none.",
    )
    norm_groups: int | None = Field(
        default=None,
        ge=2,
        description="Equal parts of a mini-batch that batch norm treats separately, so that many workers can share it. "
        "Default: the mini-batch is one.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        train, name = experiment.train, experiment.algorithm.name
        if experiment.protocol == "transductive":
            yield "protocol", f"{name} makes features by batch norm's running averages: write inductive"
        if self.norm_groups and not getattr(experiment.network, "batch_norm", True):
            yield "algorithm.norm_groups", "has no effect with batch_norm: false"
        elif self.norm_groups and train.meta_batch % self.norm_groups:
            images = counted(train.meta_batch, "image")
            yield "algorithm.norm_groups", f"is {self.norm_groups}, which does not divide train.meta_batch, {images}"

    def unshareable(self, train: Any, workers: int) -> str | None:
        if train.meta_batch % workers:  # what batch norm asks besides: `unshareable` of `experiments/config/checks.py`
            return (
                f"{workers} workers cannot share a mini-batch of {train.meta_batch} images equally: start a number of "
                "workers that divides train.meta_batch"
            )
        return None

    def less_memory(self, train: Any, share: float) -> Iterator[str]:
        yield "lower train.meta_batch"


class BaselineOptions(ClassifierOptions):
    """Train a linear classifier, then a new last layer for each task (Chen et al. 2019, arXiv:1904.04232)."""

    of_tests: ClassVar = frozenset({"head"})
    name: Literal["baseline"] = "baseline"
    head: LinearHeadOptions = Field(default=LinearHeadOptions(), description="The last layer of each task.")


class BaselinePlusPlusOptions(ClassifierOptions):
    """Train a classifier by cosine similarity, then a new one for each task (Chen et al. 2019, arXiv:1904.04232)."""

    of_tests: ClassVar = frozenset({"head"})
    name: Literal["baseline++"] = "baseline++"
    scale: float = Field(
        default=2.0, gt=0, description="Factor of the cosines in training. Chen et al.: 2 up to 200 outputs, else 10."
    )
    head: CosineHeadOptions = Field(default=CosineHeadOptions(), description="The last layer of each task.")


class SimpleShotOptions(ClassifierOptions):
    """Train a linear classifier, then compare features with class means (Wang et al. 2019, arXiv:1911.04623)."""

    of_tests: ClassVar = frozenset({"head"})
    name: Literal["simpleshot"] = "simpleshot"
    head: CentroidHeadOptions = Field(default=CentroidHeadOptions(), description="The class means of each task.")


class R2D2Options(Options):
    """Learn features for ridge regression in closed form (Bertinetto et al. 2019, arXiv:1805.08136)."""

    name: Literal["r2d2"] = "r2d2"
    penalty: float = Field(
        default=50.0,
        gt=0,
        description="Lambda, times the number of support images, as in the authors' code; its first value with "
        "learn_penalty.",
    )
    learn_penalty: bool = Field(
        default=False,
        description="Learn lambda too, as its logarithm, which optimizer.weight_decay pulls to 0: lambda to 1.",
    )
    scale: float = Field(
        default=10.0,
        gt=0,
        description="First value of the learned factor alpha of the predictions (the authors' code: 1e-4 on "
        "miniImageNet, 10 elsewhere).",
    )


AlgorithmOptions = Annotated[
    MAMLOptions
    | ReptileOptions
    | PrototypicalNetworkOptions
    | MatchingNetworkOptions
    | BaselineOptions
    | BaselinePlusPlusOptions
    | SimpleShotOptions
    | R2D2Options
    | HausdorffOptions
    | RL2Options,
    Field(discriminator="name"),
]
