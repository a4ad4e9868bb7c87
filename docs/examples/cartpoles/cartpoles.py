"""Poles of different lengths on a cart: a distribution of Gymnasium environments for `rl2`."""

from typing import Literal

import gymnasium
import numpy as np
from pydantic import Field

from metarun.datasets.options import Options


class CartPoles(Options):
    """Balance a pole on a cart (CartPole-v1); the pole of each trial has a length of its own. Reward: -1 per fall."""

    name: Literal["cartpoles"] = "cartpoles"
    longest: float = Field(default=2.0, ge=0.1, description="Half lengths of the poles are uniform in [0.1, longest].")

    def build(self, dtype: str):
        from metarun.datasets.gymnasium import GymnasiumSource

        def make(generator: np.random.Generator) -> gymnasium.Env:
            environment = gymnasium.make("CartPole-v1", sutton_barto_reward=True)
            environment.unwrapped.length = generator.uniform(0.1, self.longest)
            return environment

        return GymnasiumSource("cartpoles", make, episodes=3, horizon=50)
