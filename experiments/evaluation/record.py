"""From a measurement to its row."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Literal

from ...algorithms.classical.policy import ClassicalPolicy
from ...algorithms.learner import Learner
from ...datasets.tasks import Split
from ...datasets.trials import TrialSource
from ..config.experiment import Experiment
from ..model import Source
from ..runs.rows import Row, published_columns
from ..system import provenance
from .measure import Measurement
from .tuning import chosen_value


def make_row(
    experiment: Experiment,
    seed: int,
    source: Source,
    learner: Learner,
    measurement: Measurement,
    *,
    split: Split,
    checkpoint: Literal["best", "last"],
    step: int,
    seconds: float,
    workers: int = 1,
) -> Row:
    """The row of one measurement by the experiment's test section; `step` and `seconds` are those of the training, and
    `workers` those that ended it."""
    summary, test = measurement.summary(), experiment.test
    trial = source.trial if isinstance(source, TrialSource) else None
    way, shot, query = (None, None, None) if trial else (test.way, test.shot, test.query)
    return Row(
        experiment=experiment.name,
        algorithm=experiment.algorithm.name,
        dataset=experiment.dataset.name,
        split=split,
        way=way,
        shot=shot,
        query=query,
        trial=trial,
        protocol=experiment.protocol,
        metric=measurement.metric,
        mean=summary[measurement.metric],
        ci95=summary["ci95"],
        episodes=test.episodes,
        seed=seed,
        checkpoint=checkpoint,
        train_steps=step,
        inner_steps=getattr(learner, "recorded", [0])[-1],
        tuned=chosen_value(learner, experiment) if isinstance(learner, ClassicalPolicy) else None,
        parameters=sum(math.prod(value.shape) for value in learner.parameters.values()),
        expected_calibration_error=summary.get("expected_calibration_error"),
        negative_log_likelihood=summary.get("negative_log_likelihood"),
        regret=summary.get("regret"),
        optimal_actions=summary.get("optimal_actions"),
        precision=experiment.precision,
        device=f"{workers} x {provenance.device_name()}" if workers > 1 else provenance.device_name(),
        seconds=round(seconds, 1),
        tasks_per_second=round(step * experiment.train.meta_batch / seconds, 1) if seconds else None,
        version=version("metarun"),
        git_commit=provenance.git_commit(),
        spec_digest=experiment.digest,
        episodes_digest=measurement.episodes_digest,
        content_digest=source.content_digest[:16],
        **published_columns(experiment.published),
    )
