"""Judge more than the answers of a run: whether its scores tell unknown classes, and how sure it should be.

Unknown classes (Snell and Zemel 2021, section 5.4): a task has twice its classes. The first half is the task, with
support and queries; of the others there are only queries. The area under the ROC curve says how well the scores tell
queries inside from those outside.

Calibration (Guo et al. 2017): logits are divided by one temperature for the run, which minimises the mean negative
log-likelihood of the queries of all validation tasks. It changes no answer, only how sure the answers are.
`temperature.json` has one for each checkpoint, protocol, number of inner steps and head that was asked for, so that a
run can be used without its data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...algorithms.heads.learner import with_head
from ...algorithms.learner import FewShotLearner, Metrics, Support, classify_with_scores
from ...algorithms.metrics import are_finite, auroc
from ...datasets.errors import DataError
from ...datasets.tasks import Episode, EpisodeStream, Split
from ..config.experiment import Experiment
from ..config.sections import SHAPE
from ..config.variants import with_test
from ..errors import InUse, RunError
from ..model import Model, shape_of
from ..runs import checkpoint
from ..runs.directory import RunDirectory
from ..runs.rows import Row
from ..runs.trained import Retest, refuse_no_validation
from ..system.atomic import write_json_atomic
from .measure import Evaluation, Judge, test_of
from .restore import refuse_missing, restored, weights_file

LOWEST, HIGHEST = 1e-3, 1e3  # temperatures that are looked at
HALVINGS = 100  # of the interval, in the logarithm: down to the last bit


class TwiceTheClasses(EpisodeStream):
    """Draw tasks with as many classes outside, whose shape in a row is that of the classes inside."""

    @property
    def columns(self) -> dict[str, int]:
        """Return what a row says of the tasks."""
        return self.shape._replace(way=self.shape.way // 2)._asdict()


def unknown_of(model: Model, split: Split) -> Evaluation:
    """Return the evaluation of a model on test tasks drawn from `split`, with as many classes outside.

    Raises DataError if the split has fewer than twice the classes of a task.
    """
    test, source = model.experiment.test, model.test_source
    shape = shape_of(test)
    shape = shape._replace(way=2 * shape.way)
    try:
        source.check(split, shape)
    except DataError as error:
        raise DataError(f"--unknown draws {test.way} classes inside and {test.way} outside the task: {error}") from None
    stream = TwiceTheClasses(source, split, shape, test.episode_seed)
    return Evaluation(with_head(model.learner, test.head), stream, test.episodes, model.workers, UNKNOWN)


def unknown_metrics(learner: FewShotLearner, batch: Episode) -> Metrics:
    """Return auroc_unknown `[T]`, and the number of queries whose outputs are not finite, not_finite `[T]`.

    Args:
        learner: a learner with `fit` and `classify`.
        batch: tasks with 2 x way classes, class after class.
    """
    way, supports, queries = (each.shape[1] // 2 for each in (batch.classes, batch.support_y, batch.query_y))
    support = Support(batch.support_x[:, :supports], batch.support_y[:, :supports], way, batch.drawn, True)
    logits, scores = classify_with_scores(learner, learner.fit(support), batch.query_x, way)
    finite = are_finite(logits) & tf.math.is_finite(scores)
    scores = tf.where(finite, scores, tf.constant(math.nan, scores.dtype))
    lost = tf.reduce_sum(tf.cast(~finite, tf.float64), axis=1)
    return {"auroc_unknown": auroc(scores[:, :queries], scores[:, queries:]), "not_finite": lost}


UNKNOWN = Judge(unknown_metrics, {"judged": "unknown"})


class Temperature(BaseModel):
    """Hold a temperature, and of what: the weights, how they were tested, and the validation tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(ge=LOWEST, le=HIGHEST)
    checkpoint: Literal["best", "last"]
    weights_digest: str
    protocol: Literal["inductive", "transductive"] | None
    inner_steps: int | None
    head: str = ""  # as `Experiment.head_values`; older versions fitted for the method's own alone
    way: int
    shot: int
    query: int
    episodes: int
    episode_seed: int

    @property
    def of(self) -> dict[str, Any]:
        """Return all but the value."""
        return self.model_dump(exclude={"temperature"})


def temperature_in_words(temperature: float) -> str:
    """Return the temperature of a run, for the user."""
    return f"calibrated: temperature {temperature:.4g}, fitted on the run's validation tasks"


def calibration_warning(row: Row) -> Iterator[str]:
    """Yield a sentence if the temperature of a calibrated test has made its expected calibration error larger."""
    before, after = row.expected_calibration_error_uncalibrated, row.expected_calibration_error
    if before is not None and after is not None and after > before:
        yield (
            f"{row.experiment} seed {row.seed}: the temperature raises the expected calibration error of these tasks "
            f"from {100 * before:.2f} % to {100 * after:.2f} %, since they are unlike the validation tasks that it is "
            "fitted on: for images like these leave out --calibrated"
        )


STORED = TypeAdapter(list[Temperature])


def temperature_of(asked: Retest) -> Temperature:
    """Return the temperature of a run for the checkpoint, protocol, inner steps and head of a test.

    Where temperature.json lacks it, it is fitted and, if the folder may be written, kept there.

    Raises:
        RunError: the run has no validation tasks, or none that tell a temperature; temperature.json is damaged; or
            the checkpoint is missing.
        DataError: the data are missing.
    """
    directory, experiment = asked.directory, _on_validation(asked)
    of = _facts(directory, experiment)
    for known in stored(directory):
        if known.of == of:
            return known
    found = Temperature(temperature=_fitted(asked, experiment), **of)
    with suppress(InUse, OSError), directory.locked():
        write_json_atomic(directory.temperature, [each.model_dump(mode="json") for each in [*stored(directory), found]])
    return found


def stored(directory: RunDirectory) -> list[Temperature]:
    """Return the temperatures in temperature.json of a run. Raises RunError if the file is damaged."""
    try:
        return STORED.validate_python(json.loads(directory.temperature.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or of another version"
        raise RunError(
            f"{directory.temperature} cannot be read ({why}): remove it, and it is fitted again on the validation tasks"
        ) from None


def calibrated(temperature: float) -> Judge:
    """Return what is measured of a learner whose logits are divided by a temperature.

    Accuracies are those of the logits themselves. `calibration_uncalibrated` has the bins before the division.
    """

    def metrics(learner: FewShotLearner, batch: Episode) -> Metrics:
        logits = learner.predict(batch)
        before = learner.problem.metrics(logits, batch.query_y, getattr(learner, "recorded", (0,)))
        after = learner.problem.metrics(logits[-1:] / temperature, batch.query_y)
        changed = {name: after[name] for name in ("negative_log_likelihood", "calibration")}
        return before | changed | {"calibration_uncalibrated": before["calibration"]}

    return Judge(metrics, {"judged": "calibrated", "temperature": temperature})


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature t with the least mean negative log-likelihood of softmax(logits / t).

    The mean is convex in 1 / t. Its slope is halved in: below the minimum it is negative, above positive.

    Args:
        logits: finite, float64 `[N, way]`.
        labels: `[N]`, from 0 to way - 1.

    Raises:
        RunError: there is no minimum between `LOWEST` and `HIGHEST`.
    """
    gaps = logits - np.take_along_axis(logits, labels[:, None], axis=1)  # [N, way], above 0 where another class wins

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * (gaps - gaps.max(axis=1, keepdims=True)))
        return float(((weights * gaps).sum(axis=1) / weights.sum(axis=1)).mean())

    if (gaps <= 0).all() or slope(1 / LOWEST) <= 0:
        raise RunError(f"all {len(gaps)} validation queries are answered right: they tell no temperature")
    if slope(1 / HIGHEST) >= 0:
        raise RunError("the answers to the validation tasks are no better than chance: they tell no temperature")
    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _on_validation(asked: Retest) -> Experiment:
    """Return the experiment whose test are the validation tasks of the training, tested as it is asked."""
    spec, test = asked.spec, asked.experiment
    refuse_no_validation(asked.directory.path, spec)
    assert spec.validation is not None
    tasks = spec.validation.filled(spec.test)
    own = spec.test.model_copy(update={"dataset": None, "convert": None})
    changes = {key: getattr(tasks, key) for key in (*SHAPE, "episodes")}
    changes |= {"split": "val", "protocol": test.protocol, "checkpoint": test.test.checkpoint}
    if head := test.test.head:
        changes["head"] = head.model_dump(mode="json")
    else:
        changes |= {"head": None, "inner_steps": getattr(test.algorithm, "test_inner_steps", None)}
    return with_test(spec.model_copy(update={"test": own}), changes)


def _facts(directory: RunDirectory, experiment: Experiment) -> dict[str, Any]:
    """Return what a temperature is of, as `Temperature.of` has it."""
    test = experiment.test
    weights = weights_file(directory, experiment, test.checkpoint)
    return {
        "checkpoint": test.checkpoint,
        "weights_digest": checkpoint.digest_of(checkpoint.read(weights)[1]),
        "protocol": experiment.protocol,
        "inner_steps": experiment.tested_steps,
        "head": experiment.head_values,
        **{key: getattr(test, key) for key in (*SHAPE, "episodes", "episode_seed")},
    }


def _fitted(asked: Retest, experiment: Experiment) -> float:
    """Return the temperature of the validation tasks, which are the test of the experiment."""
    directory, seed = asked.directory, asked.trained.seed
    model = restored(directory, experiment, seed, experiment.test.checkpoint, "val")
    refuse_missing(model.learner, ("predict",), experiment, directory.path)
    measured = (
        test_of(model, "val", LOGITS).ready(model.training_source).measure(f"{experiment.name} seed {seed} temperature")
    )
    logits, labels = measured.values["logits"], measured.values["labels"].astype(int)
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        lost = int((~finite).sum())
        raise RunError(f"{directory.path}: {lost} outputs of validation tasks are not finite: they tell no temperature")
    try:
        return best_temperature(logits, labels)
    except RunError as error:
        raise RunError(f"{directory.path}: {error}") from None


def _logits(learner: FewShotLearner, batch: Episode) -> Metrics:
    """Return the last logits `[T, Q, way]` and the labels `[T, Q, 1]` of the queries."""
    return {"logits": learner.predict(batch)[-1], "labels": batch.query_y[..., None]}


LOGITS = Judge(_logits)
