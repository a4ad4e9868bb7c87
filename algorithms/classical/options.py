"""The options of the classical methods that Duan et al. 2016 compare with RL^2. No TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from ...datasets.options import Options


class ClassicalOptions(Options):
    """Describe a policy without learning between trials, an opponent of RL^2 (Duan et al. 2016, arXiv:1611.02779)."""

    parameter: ClassVar[str | None] = None  # the field that is tuned where it is None
    grids: ClassVar[dict[str, tuple[float, ...]]]  # for each dataset that it can play: the values tried

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        dataset = experiment.dataset
        if dataset.name not in self.grids and dataset.has_trials is not False:
            yield "algorithm.name", f"{experiment.algorithm.name} is not for {dataset.name}"


class TunedOptions(ClassicalOptions):
    """Describe a classical policy with a parameter."""

    tuned_on: Literal["validation", "test"] = Field(
        default="validation",
        description="Trials on which a parameter that is left out is tuned, for the highest mean total reward. "
        "test: on the same trials that are reported, as in the paper.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        yield from super().conflicts(experiment)
        given = self.parameter is None or getattr(self, self.parameter) is not None
        if given and self.tuned_on == "test":
            yield "algorithm.tuned_on", f"has no effect: {self.parameter} is given"
        elif not given and self.tuned_on == "validation" and experiment.validation is None:
            yield "validation", f"is null: {self.parameter} is tuned on validation trials"


class PlanningOptions(ClassicalOptions):
    """Describe a classical policy that plans in MDPs with a posterior."""

    prior_mean: float = Field(
        default=1.0,
        description="Mean of the normal prior of mean rewards, for MDPs only. 1: the environments' own mean; 0: as in "
        "the paper, to match its columns.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        yield from super().conflicts(experiment)
        if experiment.dataset.name == "bandits" and self.is_changed("prior_mean"):
            yield "algorithm.prior_mean", "has no effect on bandits"


TENTHS = tuple(tenth / 10 for tenth in range(11))
SCALES = tuple(10 ** (power / 5) for power in range(-20, 1))


class RandomOptions(ClassicalOptions):
    """Play at random: every action is equally likely."""

    name: Literal["random"] = "random"
    grids: ClassVar = {"bandits": (), "mdps": ()}


class GittinsOptions(TunedOptions):
    """Play the arm with the highest Gittins index (Gittins 1979), computed."""

    name: Literal["gittins"] = "gittins"
    parameter: ClassVar = "discount"
    grids: ClassVar = {"bandits": (0.9, 0.99, 0.999, 0.9999)}
    discount: float | None = Field(default=None, gt=0, lt=1, description="Discount of the index; default: tuned.")


class ThompsonSamplingOptions(ClassicalOptions):
    """Play by Thompson sampling (Thompson 1933): the best arm of a draw from the posterior."""

    name: Literal["thompson_sampling"] = "thompson_sampling"
    grids: ClassVar = {"bandits": ()}


class OptimisticThompsonSamplingOptions(TunedOptions):
    """Play by optimistic Thompson sampling in the authors' form: the best arm of the draw with the highest joint
    density.
    """

    name: Literal["optimistic_thompson_sampling"] = "optimistic_thompson_sampling"
    parameter: ClassVar = "samples"
    grids: ClassVar = {"bandits": tuple(range(1, 21))}
    samples: int | None = Field(default=None, ge=1, le=10_000, description="Draws from the posterior; default: tuned.")


class UCB1Options(TunedOptions):
    """Play by UCB1 (Auer, Cesa-Bianchi and Fischer 2002) with posterior means and a scaled bonus."""

    name: Literal["ucb1"] = "ucb1"
    parameter: ClassVar = "scale"
    grids: ClassVar = {"bandits": TENTHS}
    scale: float | None = Field(default=None, ge=0, description="Factor of the bonus; default: tuned.")


class EpsilonGreedyOptions(PlanningOptions, TunedOptions):
    """Play the action that looks best, or a random action with probability epsilon."""

    name: Literal["epsilon_greedy"] = "epsilon_greedy"
    parameter: ClassVar = "epsilon"
    grids: ClassVar = {"bandits": TENTHS, "mdps": TENTHS[1:]}
    epsilon: float | None = Field(
        default=None, ge=0, le=1, description="Probability of a random action; default: tuned."
    )


class GreedyOptions(PlanningOptions):
    """Play the action that looks best, always."""

    name: Literal["greedy"] = "greedy"
    grids: ClassVar = {"bandits": (), "mdps": ()}


class PSRLOptions(PlanningOptions):
    """Play by posterior sampling (Strens 2000; Osband, Russo and Van Roy 2013): plan for one drawn environment."""

    name: Literal["psrl"] = "psrl"
    grids: ClassVar = {"mdps": ()}


class OPSRLOptions(PlanningOptions, TunedOptions):
    """Play by optimistic posterior sampling: plan with the highest values among those of several drawn environments."""

    name: Literal["opsrl"] = "opsrl"
    parameter: ClassVar = "samples"
    grids: ClassVar = {"mdps": tuple(range(1, 21))}
    samples: int | None = Field(default=None, ge=1, le=10_000, description="Environments drawn; default: tuned.")


class UCRL2Options(PlanningOptions, TunedOptions):
    """Play by UCRL2 (Jaksch, Ortner and Auer 2010) for finite horizons: plan for the best environment that is
    plausible.
    """

    name: Literal["ucrl2"] = "ucrl2"
    parameter: ClassVar = "scale"
    grids: ClassVar = {"mdps": SCALES}
    scale: float | None = Field(default=None, ge=0, description="Factor of the confidence widths; default: tuned.")


class BEBOptions(PlanningOptions, TunedOptions):
    """Play by Bayesian exploration bonus (Kolter and Ng 2009): a bonus that falls as 1 / visits."""

    name: Literal["beb"] = "beb"
    parameter: ClassVar = "scale"
    grids: ClassVar = {"mdps": SCALES}
    scale: float | None = Field(default=None, ge=0, description="Factor of the bonus; default: tuned.")


ClassicalMethod = (
    RandomOptions
    | GittinsOptions
    | ThompsonSamplingOptions
    | OptimisticThompsonSamplingOptions
    | UCB1Options
    | EpsilonGreedyOptions
    | GreedyOptions
    | PSRLOptions
    | OPSRLOptions
    | UCRL2Options
    | BEBOptions
)
CLASSICAL: tuple[type[ClassicalOptions], ...] = get_args(ClassicalMethod)
