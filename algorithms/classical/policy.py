"""Policies that learn nothing between trials: the opponents of RL^2 in Duan et al. 2016, each with at most one
parameter.
"""

from __future__ import annotations

import tensorflow as tf

from ...datasets.bandits import BanditsSource
from ...datasets.mdps import MDPsSource
from ...datasets.random import TaskKeys
from ...datasets.trials import Trials
from ..programs import program
from ..rl.rollout import Policy, Seen, roll_out, trial_metrics
from .bandits import RULES, BanditPolicy, random_action, rule_parameter
from .mdps import PLANS, MDPPolicy
from .options import ClassicalMethod, PlanningOptions


class RandomPolicy:
    """Play every action with equal probability, as a `Policy`."""

    def __init__(self, actions: int):
        self.actions = actions

    def start(self, tasks: int) -> tuple[()]:
        """Return an empty memory."""
        return ()

    def act(
        self, memory: tuple[()], seen: Seen, number: tf.Tensor, keys: TaskKeys
    ) -> tuple[tf.Tensor, tuple[()], tuple[()]]:
        """Choose a random action, see `Policy`."""
        return random_action(keys, self.actions), (), ()


class ClassicalPolicy:
    """Give a classical policy the interface of a learner.

    If its parameter is left out of the spec, `chosen` is None until tuning on `grid` sets it.
    """

    variables: list[tf.Variable] = []
    parameters: dict[str, tf.Variable] = {}

    def __init__(self, options: ClassicalMethod, source: BanditsSource | MDPsSource, jit_compile: bool = True):
        self.options, self.source = options, source
        given = None if options.parameter is None else getattr(options, options.parameter)
        self.chosen: float | None = given
        self.grid = options.grids[source.name] if given is None else ()
        self._play = program(self._metrics, jit_compile=jit_compile)
        self._tensors: dict[float, tf.Tensor] = {}

    def play(self, trials: Trials, value: float | None) -> dict[str, tf.Tensor]:
        """Return the metrics `[T]` for a value of the parameter. One program serves all values."""
        return self._play(trials, self._tensor(value))

    def evaluate(self, trials: Trials) -> dict[str, tf.Tensor]:
        """Return the metrics `[T]` for the value in the spec, or for the tuned one."""
        return self.play(trials, self.chosen)

    def policy(self, parameter: tf.Tensor) -> Policy:
        """Return the policy, given its parameter as a tensor."""
        name, source = self.options.name, self.source
        if name == "random":
            return RandomPolicy(source.actions.size)
        if isinstance(source, BanditsSource):
            return BanditPolicy(source, RULES[name], parameter)
        assert isinstance(self.options, PlanningOptions)
        return MDPPolicy(source, PLANS[name], self.options.prior_mean, parameter, explores=name == "epsilon_greedy")

    def _metrics(self, trials: Trials, parameter: tf.Tensor) -> dict[str, tf.Tensor]:
        return trial_metrics(roll_out(self.source, trials, self.policy(parameter)))

    def _tensor(self, value: float | None) -> tf.Tensor:
        """Return the tensor that the policy takes for a value of the parameter; 1 (sample) where it has none."""
        if value is None and self.options.parameter is not None:
            raise ValueError(f"{self.options.name}: {self.options.parameter} is neither in the spec nor tuned")
        value = 1.0 if value is None else value
        if value not in self._tensors:
            with tf.init_scope():  # a tensor that every graph may use
                if isinstance(self.source, BanditsSource):
                    self._tensors[value] = rule_parameter(self.options.name, value, self.source)
                else:
                    self._tensors[value] = tf.constant(value, tf.float32)
        return self._tensors[value]
