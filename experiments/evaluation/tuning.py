"""The one parameter of a classical method, tuned as the tables of Duan et al. 2016 have it: the best on many trials."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ...algorithms.classical.policy import ClassicalPolicy
from ...algorithms.programs import program
from ...datasets.tasks import Split
from ...datasets.trials import TrialSource
from ..config.experiment import Experiment
from ..errors import Interrupted
from ..runs.directory import RunDirectory
from ..stats import mean_and_ci95
from ..system.atomic import write_text_atomic
from ..system.progress import Progress
from .measure import TRIALS_AT_ONCE
from .partial import PartialTest


def tune(learner: ClassicalPolicy, source: TrialSource, experiment: Experiment, directory: RunDirectory) -> None:
    """Set `learner.chosen` to the value of the grid with the highest mean total reward, the first of equal ones, and
    write all means to tuning.csv. Nothing where the spec gives the value, or there is none. What is done stays in
    tuning.npz, for a run that is stopped here or in the test that follows."""
    if not learner.grid:
        return
    split, episodes = trials_of(experiment)
    partial = PartialTest(directory.partial_tuning, experiment, learner.variables, source.content_digest)
    rewards = total_rewards(learner, source, split, episodes, experiment.test.episode_seed, partial)
    told = [mean_and_ci95(each.tolist()) for each in rewards]
    lines = [f"{value:g},{mean:.9g},{ci95:.9g}" for value, (mean, ci95) in zip(learner.grid, told, strict=True)]
    write_text_atomic(directory.tuning, "\n".join([f"{learner.options.parameter},total_reward,ci95", *lines]) + "\n")
    learner.chosen = learner.grid[int(np.argmax([mean for mean, _ in told]))]


def trials_of(experiment: Experiment) -> tuple[Split, int]:
    """Which trials an experiment's method is tuned on, and how many."""
    if experiment.validation and getattr(experiment.algorithm, "tuned_on", "validation") == "validation":
        return "val", experiment.validation.episodes
    return "test", experiment.test.episodes


def total_rewards(
    learner: ClassicalPolicy,
    source: TrialSource,
    split: Split,
    episodes: int,
    seed: int,
    partial: PartialTest | None = None,
) -> np.ndarray:
    """`[values of the grid, episodes]` float64, all on the same trials; with `partial` those that are left."""
    batch, values = min(episodes, TRIALS_AT_ONCE), len(learner.grid)
    sample = program(lambda index: source.sample(split, index, batch, seed))
    rewards = np.zeros((-(-episodes // batch), values, batch))  # a call a batch and value
    calls = partial.restore([rewards]) if partial else 0
    trials = None
    done = sum(min(batch, episodes - call // values * batch) for call in range(calls))
    try:
        with Progress(f"tuning {learner.options.parameter}", episodes * values, done, unit="trial") as progress:
            for call in range(calls, rewards.shape[0] * values):
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


def chosen_value(learner: ClassicalPolicy, experiment: Experiment) -> str | None:
    """For the row: the parameter's value, and the trials that it was tuned on."""
    if learner.chosen is None:
        return None
    tuned = f" (tuned on {trials_of(experiment)[0]})" if learner.grid else ""
    return f"{learner.options.parameter} {learner.chosen:g}{tuned}"
