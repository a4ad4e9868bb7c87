"""The one parameter of a classical method, tuned as the tables of Duan et al. 2016 have it: the best on many trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ..algorithms.classical import ClassicalPolicy
from ..algorithms.program import program
from ..datasets.tasks import Split
from ..datasets.trials import TrialSource
from .atomic import write_text_atomic
from .measure import TRIALS_AT_ONCE
from .progress import Progress
from .results import mean_and_ci95
from .rundir import RunDirectory
from .spec import Experiment


def tune(learner: ClassicalPolicy, source: TrialSource, experiment: Experiment, directory: RunDirectory) -> None:
    """Set `learner.chosen` to the value of the grid with the highest mean total reward, the first of equal ones, and
    write all means to tuning.csv. Nothing where the spec gives the value, or there is none."""
    if not learner.grid:
        return
    split, episodes = trials_of(experiment)
    rewards = total_rewards(learner, source, split, episodes, experiment.test.episode_seed)
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
    learner: ClassicalPolicy, source: TrialSource, split: Split, episodes: int, seed: int
) -> Sequence[np.ndarray]:
    """`[episodes]` for each value of the grid, all on the same trials."""
    sample = program(lambda index: source.sample(split, index, min(episodes, TRIALS_AT_ONCE), seed))
    rewards: list[list[np.ndarray]] = [[] for _ in learner.grid]
    with Progress(f"tuning {learner.options.parameter}", episodes * len(learner.grid), unit="trial") as progress:
        for first in range(0, episodes, TRIALS_AT_ONCE):
            trials = sample(tf.constant(first, tf.int64))
            for value, played in zip(learner.grid, rewards, strict=True):
                played.append(learner.play(trials, value)["total_reward"].numpy())
                progress.advance(min(TRIALS_AT_ONCE, episodes - first))
    return [np.concatenate(each)[:episodes].astype(np.float64) for each in rewards]


def chosen_value(learner: ClassicalPolicy, experiment: Experiment) -> str | None:
    """For the row: the parameter's value, and the trials that it was tuned on."""
    if learner.chosen is None:
        return None
    tuned = f" (tuned on {trials_of(experiment)[0]})" if learner.grid else ""
    return f"{learner.options.parameter} {learner.chosen:g}{tuned}"
