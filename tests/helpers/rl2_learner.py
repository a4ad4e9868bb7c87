"""Build small RL^2 learners, and compute advantages in a plain loop."""

import keras
import numpy as np

from metarun.algorithms.networks.options import GRUOptions
from metarun.algorithms.options import RL2Options
from metarun.algorithms.rl2 import RL2


def learner(source, rate=0.01, units=8, precision="float64", jit=False, **options):
    def adam(_):
        return keras.optimizers.Adam(rate, epsilon=1e-8, clipvalue=40.0)

    return RL2(source, GRUOptions(units=units), adam, RL2Options(**options), precision, 0, jit)


def loop_of_advantages(reward, values, discount, gae_lambda, ends=()):
    result, after, value_after = np.zeros_like(reward), 0.0, 0.0
    for t in reversed(range(len(reward))):
        if t in ends:
            after, value_after = 0.0, 0.0
        after = reward[t] + discount * value_after - values[t] + discount * gae_lambda * after
        result[t], value_after = after, values[t]
    return result
