"""The options of heads: `algorithm.head` of a spec, and `metarun evaluate --head`. No TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ...datasets.options import Options


class TrainedHeadOptions(Options):
    """Hold how stochastic gradient descent trains a new last layer on the support set of each task.

    The defaults are those of the code of Chen et al. 2019. The update is PyTorch's: the decay is part of the gradient,
    and the first step is not dampened.
    """

    epochs: int = Field(default=100, ge=1, le=10_000, description="Passes over the support set, each in a new order.")
    batch: int = Field(default=4, ge=1, le=1000, description="Support images in a mini-batch; the last one has fewer.")
    learning_rate: float = Field(default=0.01, gt=0, description="Step size.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Weight of the past in the velocity.")
    dampening: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="The gradient enters the velocity times 1 - dampening, but in the first step.",
    )
    weight_decay: float = Field(default=0.001, ge=0, description="Times the weights, added to their gradient.")


class LinearHeadOptions(TrainedHeadOptions):
    """Train a linear layer on the support set (Baseline, Chen et al. 2019, arXiv:1904.04232)."""

    name: Literal["linear"] = "linear"


class CosineHeadOptions(TrainedHeadOptions):
    """Train a layer of cosine similarities on the support set (Baseline++, Chen et al. 2019, arXiv:1904.04232)."""

    name: Literal["cosine"] = "cosine"
    scale: float = Field(
        default=2.0, gt=0, description="Factor of the cosines. Chen et al.: 2 for tasks of up to 200 ways, else 10."
    )


class CentroidHeadOptions(Options):
    """Find the nearest class mean of transformed features (SimpleShot, Wang et al. 2019, arXiv:1911.04623)."""

    name: Literal["centroid"] = "centroid"
    features: Literal["UN", "L2N", "CL2N"] = Field(
        default="CL2N",
        description="UN: as they are; L2N: divided by their length; CL2N: minus the mean of the training images, then "
        "divided by their length.",
    )


class RidgeHeadOptions(Options):
    """Compute ridge regression on the support set in closed form (R2D2, Bertinetto et al. 2019, arXiv:1805.08136)."""

    name: Literal["ridge"] = "ridge"
    penalty: float = Field(
        default=50.0, gt=0, description="Lambda, times the number of support images, as in the authors' code."
    )
    scale: float = Field(default=10.0, gt=0, description="Factor of the predictions, which makes them logits.")


class SimilarityHeadOptions(Options):
    """Compare with the support images by cosine similarity, without training (NIL, Raghu et al. 2020)."""

    name: Literal["similarity"] = "similarity"
    scale: float = Field(default=10.0, gt=0, description="Factor of the mean similarity to a class.")


HeadOptions = Annotated[
    LinearHeadOptions | CosineHeadOptions | CentroidHeadOptions | RidgeHeadOptions | SimilarityHeadOptions,
    Field(discriminator="name"),
]
