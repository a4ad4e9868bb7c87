"""The options of the outer optimizer: the section `optimizer` of a spec. This module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from ..datasets.errors import counted
from ..datasets.options import Options

DECAY_FACTOR = 0.5  # of the learning rate, by default
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Factor = Annotated[float, Field(gt=0, lt=1)]


class OptimizerOptions(Options):
    """Set the outer optimizer.

    For Reptile use sgd: its learning rate is epsilon, and its gradient is theta minus the mean of the adapted weights.
    """

    name: Literal["adam", "adamw", "sgd"] = Field(
        default="adam",
        description="Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), or SGD, plain or with momentum.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate at the first step.")
    momentum: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Momentum of sgd as in PyTorch: v <- momentum * v + g, w <- w - learning rate * v. A change of the "
        "learning rate acts on old gradients too. Default: none.",
    )
    nesterov: bool | None = Field(
        default=None,
        description="true: Nesterov's momentum, w <- w - learning rate * (g + momentum * v). Default: false.",
    )
    dampening: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="v <- momentum * v + (1 - dampening) * g, from the second update on; v is g after the first. "
        "Default: none.",
    )
    weight_decay: float | None = Field(
        default=None,
        gt=0,
        description="Weight decay as in PyTorch. sgd and adam add weight_decay * w to the clipped gradient (coupled); "
        "adamw takes learning rate * weight_decay * w from w (decoupled). Biases are decayed too, frozen layers are "
        "not. Default: none.",
    )
    decay_norm: bool | None = Field(
        default=None,
        description="true: weight_decay reaches the scales and offsets of normalisation too, as in the code of most "
        "papers. Default: false.",
    )
    epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of adam and adamw: added to the root of the second moment. Default: 1e-8.",
    )
    schedule: Literal["constant", "linear", "cosine", "step"] = Field(
        default="constant",
        description="linear, cosine: from learning_rate to final_learning_rate over all steps; step: times "
        "decay_factor after every decay_every steps, or after each of decay_steps.",
    )
    final_learning_rate: float | None = Field(
        default=None, ge=0, description="Learning rate at the last step, for linear and cosine; default 0."
    )
    decay_every: int | None = Field(default=None, ge=1, description="Steps between two decays, for schedule: step.")
    decay_steps: Annotated[tuple[Steps, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Steps after which the learning rate decays, in place of decay_every.",
        examples=[[20000, 40000]],
    )
    decay_factor: float | None = Field(
        default=None, gt=0, lt=1, description="Factor of each decay, for schedule: step; default 0.5."
    )
    decay_factors: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Factor of the decay at each of decay_steps, in place of decay_factor.",
        examples=[[0.06, 0.2, 0.2]],
    )
    clip_value: float | None = Field(
        default=None, gt=0, description="Clip each element of the meta-gradient to [-v, v] (Finn: 10 on miniImageNet)."
    )
    clip_norm: float | None = Field(default=None, gt=0, description="Clip the global norm of the meta-gradient.")

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if self.clip_value is not None and self.clip_norm is not None:
            yield "optimizer.clip_norm", "clip_value is given too: choose one"
        if self.momentum and self.name != "sgd":
            yield "optimizer.momentum", f"is for sgd: {self.name} has moments of its own"
        for option in ("nesterov", "dampening"):
            if getattr(self, option) and not self.momentum:
                yield f"optimizer.{option}", "has no effect without momentum"
        if self.nesterov and self.dampening:
            yield "optimizer.dampening", "contradicts nesterov, which is defined without dampening: choose one"
        if self.name == "adamw" and not self.weight_decay:
            yield "optimizer.weight_decay", "is missing: without it adamw is adam"
        if self.epsilon and self.name == "sgd":
            yield "optimizer.epsilon", "has no effect with sgd"
        yield from self._conflicts_of_schedule()
        if self.decay_norm and not self.weight_decay:
            yield "optimizer.decay_norm", "has no effect without weight_decay"
        norm = "layer_norm" if experiment.kind.plays_trials else "batch_norm"
        if self.decay_norm and self.weight_decay and not getattr(experiment.network, norm, True):
            yield "optimizer.decay_norm", f"has no effect: the network has no {norm.replace('_', ' ')}"

    def _conflicts_of_schedule(self) -> Iterator[tuple[str, str]]:
        gliding = self.schedule in ("linear", "cosine")
        if self.is_changed("final_learning_rate") and not gliding:
            yield "optimizer.final_learning_rate", f"has no effect with schedule: {self.schedule}"
        if gliding and self.final_learning_rate == self.learning_rate:
            yield "optimizer.schedule", f"{self.schedule} has no effect: it starts and ends at {self.learning_rate}"
        if self.schedule != "step":
            for option in ("decay_every", "decay_steps", "decay_factor", "decay_factors"):
                if self.is_changed(option):
                    yield f"optimizer.{option}", f"has no effect with schedule: {self.schedule}"
            return
        every, steps, factors = self.decay_every, self.decay_steps, self.decay_factors
        if every is None and steps is None:
            yield (
                "optimizer.decay_every",
                "is missing: schedule step needs the steps between two decays, or decay_steps",
            )
        if every is not None and steps is not None:
            yield "optimizer.decay_steps", "decay_every is given too: choose one"
        if steps and any(later <= step for step, later in pairwise(steps)):
            yield "optimizer.decay_steps", f"is {list(steps)}: each step must be after the one before"
        if factors and self.decay_factor is not None:
            yield "optimizer.decay_factors", "decay_factor is given too: choose one"
        if factors and steps is None:
            yield "optimizer.decay_factors", "has no effect without decay_steps: decay_factor is for every decay"
        elif factors and len(factors) != len(steps or ()):
            counts = f"{counted(len(factors), 'factor')} for {counted(len(steps or ()), 'decay step')}"
            yield "optimizer.decay_factors", f"has {counts}: give one for each"

    @property
    def decays(self) -> dict[int, float]:
        """Return the factor of the decay after each step of `decay_steps`."""
        steps = self.decay_steps or ()
        factors = self.decay_factors or [self.decay_factor or DECAY_FACTOR] * len(steps)
        return dict(zip(steps, factors, strict=True))

    @property
    def depends_on_length(self) -> bool:
        """Return whether a step's learning rate depends on the total number of steps."""
        return self.schedule in ("linear", "cosine")
