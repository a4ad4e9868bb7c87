"""Check what a learner of another package promises: that what it says of a query hangs on nothing but its task."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ...algorithms.programs import program
from ...datasets.plugins import package_of
from ...datasets.tasks import Episode, Split
from ..errors import RunError
from ..model import Model

AVERAGED = ("accuracy", "negative_log_likelihood", "mse")  # metrics that are means over the queries of a task
TOLERANCE = {"float64": 1e-8, "float32": 1e-3, "tf32": 0.05, "bfloat16": 0.05}  # of a metric, or of 1 if that is more


def refuse_dependent(model: Model, split: Split = "test") -> None:
    """Raise RunError if code of another package does not keep to the protocol, or mixes the tasks of a batch.

    Learners of trials have no queries, and what is built in is tested: both pass unseen. `split` has the tasks.
    """
    experiment = model.experiment
    if experiment.kind.plays_trials or not package_of(experiment.algorithm) + package_of(experiment.network):
        return
    if reason := dependence(model, split):
        raise RunError(f"{experiment.algorithm.name} of {experiment.plugins}: {reason}")


def dependence(model: Model, split: Split = "test") -> str | None:
    """Return how the metrics of a task depend on other tasks or, under the inductive protocol, on other queries.

    Four tasks have one support set and the same query labels. Their query images are two images a and b: a b a b ...,
    b a b a ..., a a a a ..., b b b b ... If each query is judged by itself, the metrics of the first two, means over
    queries, have the sum of those of the last two. A batch norm over all queries breaks this.

    Returns:
        A sentence, or None if nothing depends on what it should not.
    """
    batch: Any = model.test_stream(split).sample(0, 1)
    turns = np.arange(batch.query_x.shape[1]) % 2
    if not turns.any():  # one query
        return None
    images = tf.stack([batch.query_x[0, 0], batch.query_x[0, -1]])

    def tasks(*orders: np.ndarray) -> Episode:
        """Return the task with the query images in each of the orders, `[Q]` of 0 (a) and 1 (b)."""
        same = Episode(*(tf.repeat(each, len(orders), axis=0) for each in batch))
        return same._replace(query_x=tf.gather(images, np.stack(orders)))

    evaluate = program(model.learner.evaluate)
    together, alone = evaluate(tasks(turns, 1 - turns, 0 * turns, 0 * turns + 1)), evaluate(tasks(turns))
    for name in [name for name in AVERAGED if name in together]:
        mixed, turned, a, b = together[name].numpy().astype(float)
        single = float(alone[name][0])
        if not np.isfinite([mixed, turned, a, b, single]).all():
            continue
        close = TOLERANCE[model.experiment.precision] * max(1.0, abs(a) + abs(b))
        if not abs(mixed - single) <= close:
            return (
                f"{name} of a task is {single:.4g} alone and {mixed:.4g} beside three other tasks: each must be judged "
                "alone"
            )
        if model.experiment.protocol == "inductive" and not abs(mixed + turned - a - b) <= close:
            return (
                f"{name} of queries in a mixed order is {(mixed + turned) / 2:.4g}, of the same queries in another "
                f"order {(a + b) / 2:.4g}: one query depends on the others, which is transductive, and the spec says "
                "`protocol: inductive`"
            )
    return None
