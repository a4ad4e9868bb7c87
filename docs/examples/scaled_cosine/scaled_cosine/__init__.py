"""An algorithm for metarun: its options and its entry. TensorFlow is imported only when the learner is built."""

from typing import Literal

from pydantic import Field

from metarun.algorithms import Algorithm
from metarun.algorithms.options import Options


class ScaledCosineOptions(Options):
    """Compare class means by cosine similarity, times a learned scale (Gidaris and Komodakis 2018)."""

    name: Literal["scaled_cosine"] = "scaled_cosine"
    scale: float = Field(default=10.0, gt=0, description="Initial value of the learned scale.")


def learner():
    """Return the class of the learner."""
    from .learner import ScaledCosine

    return ScaledCosine


entry = Algorithm(ScaledCosineOptions, learner, has_head=False)
