"""Train one run in a loop, with its validations and its test."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...algorithms.classical.policy import ClassicalPolicy
from ...algorithms.heads.learner import features_of, mean_of
from ...datasets.errors import counted
from ..errors import Diverged, Interrupted, RunError, warn
from ..evaluation.measure import main_metric, test_of, validation_of
from ..evaluation.record import Files, advised, record
from ..evaluation.tuning import tune
from ..model import Model, refuse_other_images
from ..runs import checkpoint, environments
from ..runs.directory import RunDirectory
from ..runs.metrics_log import MetricsLog
from ..runs.rows import Row
from ..runs.run import is_out_of_patience, refuse_other_code
from ..runs.trained import TrainedRun, labels, refuse_checkpoint_of_another_spec
from ..system.progress import Progress
from ..system.signals import StopSignal
from .followers import spread_mean, start_together
from .initial import initialise, names_of
from .memory import chosen_options, foresee, foresee_tasks
from .steps import CALL_SECONDS, TrainingSteps, validates_at

# keys that checkpoints of older versions lack
NEW_IN_STATE = {"content_digest", "plugins", "training_digest", "spec", "weights"}


class Training:
    """Train one run. Everything that the loop carries from step to step is in the checkpoint."""

    def __init__(self, model: Model, directory: RunDirectory):
        """Prepare the training of a model.

        Args:
            model: the model with its initial weights.
            directory: the folder of the run, which this process has locked.
        """
        self.model, self.directory = model, directory
        self.experiment, self.seed, self.source, self.learner, self.workers, *_ = model
        self.variables = self.learner.variables
        self.step, self.seconds = 0, 0.0
        self.end = self.experiment.train.steps  # the last step, as far as is known
        self.until = self.experiment.train.steps  # the step at which `train` stops, if it does not end before
        self.best_step, self.best_value = 0, math.nan
        self.window: dict[str, float] = {}  # sums of the training metrics since the last row
        self.window_steps, self.window_seconds = 0, 0.0
        self.names = names_of(self.learner)
        self.evaluation, self.final = validation_of(model), test_of(model)
        self.warned = False  # of validation tasks that diverged

    def train(self, stop: StopSignal, until: int | None = None) -> None:
        """Train from the newest checkpoint, or from the start, to the last step, or to the end of the patience.

        Classical methods have no steps.

        Args:
            stop: the signals that stop it.
            until: stop after this step, with a checkpoint, as if the training had been interrupted there.

        Raises:
            Interrupted: `stop` was requested. A checkpoint is written.
            RunError: the loss is not finite (Diverged), a checkpoint is of another run, or the memory does not suffice.
        """
        train, batch = self.experiment.train, self.experiment.train.meta_batch
        self.until = train.steps if until is None else min(until, train.steps)
        if not self._restore() and (words := initialise(self.model)):
            print(f"{self.directory.path} {words}", file=sys.stderr)
        start_together(self.model, self.step)
        self._agree_on_end()
        environments.begin(self.directory, self.step, self.end, self.workers.count, chosen_options(self.model))
        if self.step >= self.last:
            self._foresee_evaluations()
            self._refuse_to_test(stop)
            return
        steps = TrainingSteps(self.model, self.step)
        available = foresee(self.experiment, steps.traced_update())
        log: MetricsLog | None = None
        saved_at, count = time.monotonic(), 1
        label, file = f"{self.experiment.name} seed {self.seed}", self.directory.progress
        with Progress(label, train.steps, self.step, file=file) as progress, stop.held():
            while self.step < self.last:
                count = self.workers.agree(min(count, self._until_event()), stop.requested)
                if not count:
                    self._save()
                    if log:
                        log.flush()
                    raise Interrupted(
                        f"stopped after step {self.step} of {train.steps}; the same command resumes from there"
                    )
                started = time.monotonic()
                metrics = steps.take(count)
                seconds = (time.monotonic() - started) / count
                if log is None:  # after the first step, which comes sooner so
                    self._foresee_evaluations(available)
                    log = MetricsLog(self.directory, self._metric_names(steps), self.step)
                rates = metrics.pop("learning_rate")
                for number in range(count):
                    self.step += 1
                    self._count({name: float(values[number]) for name, values in metrics.items()}, seconds)
                if self.step % train.log_every == 0 or self.step == train.steps:  # an early end adds no row
                    self._log_window(log, batch, float(rates[-1]))
                validate = self.evaluation is not None and validates_at(self.step, self.experiment)
                if validate or self.step == train.steps:
                    self._take_mean()
                if validate:
                    spread_mean(self.model)
                    with stop.held(self.workers.count > 1):  # the others would wait for a worker that left
                        if warning := self._validate(log):
                            progress.say(warning)
                    self._agree_on_end()
                progress.advance(count, f"loss {metrics['loss'][-1]:.3f}" + self._best_note())
                if self.step == self.end < train.steps:
                    progress.say(f"{label}: {self._early_end()}")
                    progress.end_here()
                if validate or self.step == self.last or time.monotonic() - saved_at > checkpoint.SECONDS_BETWEEN:
                    self._save()
                    log.flush()
                    saved_at = time.monotonic()
                count = max(1, min(2 * count, int(CALL_SECONDS / seconds)))
        self._refuse_to_test(stop)

    def _foresee_evaluations(self, available: int | None = None) -> None:
        """Warn, or raise RunError, if the test or a validation seems to need more bytes than are available."""
        if self.experiment.kind.is_trained:
            foresee_tasks("test", self.final, available)
        if self.evaluation and self.step < self.end:
            foresee_tasks("validation", self.evaluation, available)

    @property
    def last(self) -> int:
        """Return the step at which `train` stops, as far as is known."""
        return min(self.end, self.until)

    def _agree_on_end(self) -> None:
        """Set the last step, the same for all workers: this one if no validation was better for train.patience."""
        out = is_out_of_patience(self.experiment, self.step, self.best_step)
        self.end = self.workers.agree(self.step if out else self.experiment.train.steps)

    def _early_end(self) -> str:
        train = self.experiment.train
        since = counted(train.patience or 0, "validation")
        return f"ends after step {self.step} of {train.steps}, {since} after the best one, of step {self.best_step}"

    def _refuse_to_test(self, stop: StopSignal) -> None:
        """Raise Interrupted if a worker was asked to stop in the last steps or in the validation after them."""
        if not self.workers.agree(1, stop.requested):
            raise Interrupted(f"stopped after step {self.step}, before the test; the same command resumes with it")

    def test(self) -> Row:
        """Measure the chosen checkpoint on the fixed test tasks, write the files of the test, and return the row."""
        chosen = self.experiment.test.checkpoint if self.evaluation else "last"
        if isinstance(self.learner, ClassicalPolicy):
            chosen = "last"
            tune(self.model, self.directory)
        elif chosen == "best":
            checkpoint.restore(self.directory.best, self.variables)
        self.workers.spread(self.variables)
        trained = TrainedRun(self.seed, self.step, self.seconds, self.experiment.digest, self.directory.selected_of)
        with advised(self._smaller_test()):
            row = record(self.model, trained, chosen, Files.of_run(self.directory), evaluation=self.final)
        self.directory.partial_tuning.unlink(missing_ok=True)
        return row

    def _smaller_test(self) -> str:
        """Return the way out of a test that needs too much memory: settings that do not belong to the training."""
        if self.experiment.kind.plays_trials:
            return "the same command with a smaller test.episodes tests it and repeats no step"
        fewer = "test.query, test.way or test.shot" if not self.experiment.entry.has_head else "test.query or test.shot"
        return (
            f"the same command with a smaller {fewer} (-s test.query={max(1, self.experiment.test.query // 2)}) tests "
            "it and repeats no step"
        )

    def _take_mean(self) -> None:
        """Give a learner that needs it the mean feature of the training images, with its weights as they are now."""
        if (mean := getattr(self.learner, "mean", None)) is not None:
            started = time.monotonic()
            mean_of(features_of(self.learner, self.source, "train"), mean)
            self.seconds += time.monotonic() - started

    def _validate(self, log: MetricsLog) -> str:
        """Validate, and save the best checkpoint. Returns a warning at the first validation tasks that diverged."""
        assert self.evaluation is not None
        started = time.monotonic()
        summary = self.evaluation.measure(f"validation at step {self.step}").summary()
        seconds = time.monotonic() - started
        self.seconds += seconds
        log.write(self.step, "val", summary, self.seconds, self.evaluation.episodes / seconds)
        value = summary[main_metric(summary)]
        if not math.isfinite(self.best_value) or self._better(value):
            self.best_step, self.best_value = self.step, value
            self._save_to(self.directory.best)
        if not summary["diverged"] or self.warned:
            return ""
        self.warned = True
        return (
            f"warning: {self.experiment.name} seed {self.seed}: {summary['diverged']:.0f} of "
            f"{self.evaluation.episodes} validation tasks diverged at step {self.step}: their outputs are not finite "
            "and count as wrong answers; metrics.csv counts them at each validation"
        )

    def _better(self, value: float) -> bool:
        lower_is_better = getattr(self.source, "regression", False)
        return value < self.best_value if lower_is_better else value > self.best_value

    def _best_note(self) -> str:
        return "" if math.isnan(self.best_value) else f", best validation {self.best_value:.4f} at {self.best_step}"

    def _until_event(self) -> int:
        """Return the number of steps to the next row, validation, stop or end."""
        every = [self.experiment.train.log_every]
        if self.experiment.validation:
            every.append(self.experiment.validation.every)
        return min(self.last - self.step, *(each - self.step % each for each in every))

    def _metric_names(self, steps: TrainingSteps) -> list[str]:
        """Return the columns of metrics.csv: training metrics, the learning rate, validation metrics."""
        validation = self.evaluation.names() if self.evaluation else []
        return list(dict.fromkeys([*steps.names(), *validation]))

    def _count(self, metrics: dict[str, float], seconds: float) -> None:
        self._refuse_nonfinite(metrics["loss"])
        for name, value in metrics.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window_steps += 1
        self.window_seconds += seconds
        self.seconds += seconds

    def _log_window(self, log: MetricsLog, batch: int, learning_rate: float) -> None:
        """Write a row: the means since the last row, and the learning rate of its last step."""
        means = {name: total / self.window_steps for name, total in self.window.items()}
        means["learning_rate"] = learning_rate
        log.write(self.step, "train", means, self.seconds, batch * self.window_steps / self.window_seconds)
        self.window, self.window_steps, self.window_seconds = {}, 0, 0.0

    def _refuse_nonfinite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        good = self.directory.newest_checkpoints()
        saved = f"the last good checkpoint is {good[0]}" if good else "no checkpoint was written yet"
        searched = self.directory.until is not None or self.directory.selected_of  # which refuses --fresh
        way_out = "" if searched else ". Lower the learning rates or clip the gradient, then train with --fresh"
        raise Diverged(self.directory.path, loss, self.step, saved + way_out)

    def _save(self) -> None:
        self._save_to(self.directory.checkpoint(self.step))
        self.directory.drop_old_checkpoints()

    def _save_to(self, path: Path) -> None:
        if not all(np.isfinite(variable.numpy()).all() for variable in self.variables):
            self._refuse_nonfinite(math.nan)
        checkpoint.save(path, self.variables, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            **labels(self.experiment),
            "seed": self.seed,
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_value": None if math.isnan(self.best_value) else self.best_value,
            "window": self.window,
            "window_steps": self.window_steps,
            "window_seconds": self.window_seconds,
            "content_digest": self.source.content_digest,
            "plugins": self.experiment.plugins,
            "weights": self.names,
        }

    def _restore(self) -> bool:
        """Resume from the newest whole checkpoint, and return whether there is one.

        A damaged or foreign one is reported and set aside, so that it is not among the newest that are kept. Raises
        RunError for a checkpoint of another spec, seed or data.
        """
        for path in self.directory.newest_checkpoints():
            try:
                state = checkpoint.restore(path, self.variables, self._state().keys() - NEW_IN_STATE)
            except RunError as error:
                aside = self.directory.set_checkpoint_aside(path)
                warn(f"checkpoint ignored and renamed to {aside.name}: {error}")
                continue
            refuse_checkpoint_of_another_spec(path, state, self.experiment)
            refuse_other_images(state, self.source, self.directory)
            refuse_other_code(state.get("plugins", ""), self.experiment, self.directory)
            if state["seed"] != self.seed:
                raise RunError(f"{path} is of seed {state['seed']}, not {self.seed}: move it away, or use --fresh")
            self.step, self.seconds = state["step"], state["seconds"]
            self.best_step = state["best_step"]
            self.best_value = math.nan if state["best_value"] is None else state["best_value"]
            self.window, self.window_steps = state["window"], state["window_steps"]
            self.window_seconds = state["window_seconds"]
            return True
        return False
