"""Tune the parameter of a classical method as in the tables of Duan et al. 2016: take the best value on many trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ...algorithms.programs import program
from ...datasets.tasks import Split
from ..config.experiment import Experiment
from ..errors import Interrupted
from ..model import Model
from ..runs.directory import RunDirectory
from ..stats import mean_and_ci95
from ..system import signals
from ..system.atomic import write_text_atomic
from ..system.progress import Progress
from .partial import PartialTest


def tune(model: Model, directory: RunDirectory) -> None:
    """Set the learner's `chosen` to the value of its grid with the highest mean total reward, the first of equal ones.

    Writes all means to tuning.csv. Does nothing if the spec gives the value, or if the method has no parameter. The
    rewards stay in tuning.npz, for a run that is stopped here or in the test that follows.
    """
    learner: Any = model.learner  # a ClassicalPolicy
    if not learner.grid:
        return
    partial = PartialTest(directory.partial_tuning, model.experiment, learner.variables, model.source.content_digest)
    rewards = total_rewards(model, partial)
    means = [mean_and_ci95(each.tolist()) for each in rewards]
    lines = [f"{value:g},{mean:.9g},{ci95:.9g}" for value, (mean, ci95) in zip(learner.grid, means, strict=True)]
    write_text_atomic(directory.tuning, "\n".join([f"{learner.options.parameter},total_reward,ci95", *lines]) + "\n")
    learner.chosen = learner.grid[int(np.argmax([mean for mean, _ in means]))]


def trials_of(experiment: Experiment) -> tuple[Split, int]:
    """Return the split and the number of the trials on which the method is tuned."""
    if experiment.validation and getattr(experiment.algorithm, "tuned_on", "validation") == "validation":
        return "val", experiment.validation.episodes
    return "test", experiment.test.episodes


def total_rewards(model: Model, partial: PartialTest | None = None) -> np.ndarray:
    """Return the total rewards `[values of the grid, episodes]`, float64, of all values on the same trials.

    Args:
        model: a model whose learner is a classical method with a grid.
        partial: the file of the rewards so far. Trials that it holds are not played again.
    """
    learner: Any = model.learner
    split, episodes = trials_of(model.experiment)
    stream = model.test_stream(split)
    batch, values = stream.at_once(episodes), len(learner.grid)
    sample = program(lambda index: stream.sample(index, batch))
    rewards = np.zeros((-(-episodes // batch), values, batch))  # one call per batch and value
    calls = partial.restore([rewards]) if partial else 0
    trials = None
    done = sum(min(batch, episodes - call // values * batch) for call in range(calls))
    try:
        with Progress(f"tuning {learner.options.parameter}", episodes * values, done, unit="trial") as progress:
            for call in range(calls, rewards.shape[0] * values):
                signals.check()
                number, value = divmod(call, values)
                if value == 0 or trials is None:
                    trials = sample(tf.constant(number * batch, tf.int64))
                rewards[number, value] = learner.play(trials, learner.grid[value])["total_reward"]
                calls = call + 1
                progress.advance(min(batch, episodes - number * batch))
                if partial:
                    partial.keep([rewards], calls)
    except (Interrupted, KeyboardInterrupt):
        if partial:
            partial.save([rewards], calls)
        raise
    if partial:
        partial.save([rewards], calls)
    return rewards.swapaxes(0, 1).reshape(values, -1)[:, :episodes]


def chosen_value(learner: Any, experiment: Experiment) -> str | None:
    """Return the parameter's value and the split it was tuned on, for the row, or None without a value."""
    if getattr(learner, "chosen", None) is None:
        return None
    tuned = f" (tuned on {trials_of(experiment)[0]})" if learner.grid else ""
    return f"{learner.options.parameter} {learner.chosen:g}{tuned}"
