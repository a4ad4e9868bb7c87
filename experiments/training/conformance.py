"""Requirements of every algorithm, network and dataset, as checks of one experiment that uses them."""

from __future__ import annotations

import io
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

from ...algorithms import ALGORITHMS, KINDS
from ...algorithms.workers import Share, Workers
from ...datasets import DATASETS
from ...datasets.errors import DataError, KnownError
from ..config.checks import unshareable
from ..config.experiment import CHOICES, Experiment
from ..config.load import load
from ..config.reference import page
from ..errors import RunError, SpecError, suggest
from ..evaluation.independence import dependence
from ..model import Model, build
from ..runs.run import Run
from .steps import TrainingSteps
from .train import train

Check = Callable[[Experiment], str | None]  # returns what is wrong, in a sentence
STEPS = 2  # of the shorter training


def example(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Return a small experiment that uses an algorithm, a network or a dataset.

    Required options have the examples of their descriptions.

    Args:
        name: the name of the algorithm, network or dataset.
        overrides: `key=value` each.

    Raises:
        SpecError: there is no such name, or the values do not fit.
    """
    sections = [section for section in CHOICES if name in CHOICES[section]]
    if not sections:
        known = [each for group in CHOICES.values() for each in group]
        hint = suggest(name, known, "see `metarun describe`")
        raise SpecError([f"no algorithm, network or dataset {name!r} is installed; {hint}"])
    plays = KINDS[ALGORITHMS[name].kind].plays_trials if sections[0] == "algorithm" else name == "gru"
    if sections[0] == "dataset":
        plays = DATASETS[name].has_trials
    regression = sections[0] == "dataset" and DATASETS[name].regression
    values: dict[str, Any] = {
        "name": "conformance",
        "algorithm": {"name": "maml", "inner_lr": 0.1} if regression else {"name": "protonet"},
        "network": {"name": "mlp", "hidden": [16], "batch_norm": not regression},
        "dataset": {"name": "glyphs"},
        "protocol": "inductive",
        "train": {"way": 3, "shot": 4, "query": 2, "meta_batch": 2, "steps": STEPS},
        "test": {"way": 3, "shot": 2, "query": 2},
    }
    if plays:
        values |= {
            "algorithm": {"name": "rl2", "minibatch": 4},
            "network": {"name": "gru", "units": 8},
            "dataset": {"name": "bandits", "pulls": 4},
            "train": {"meta_batch": 8, "steps": STEPS},
        }
        del values["protocol"], values["test"]
    if regression:
        values |= {each: values[each] | {"way": 1} for each in ("train", "test")}
    values |= yaml.safe_load(page(name).snippet)
    if sections[0] == "algorithm" and KINDS[ALGORITHMS[name].kind].trains_on_images:
        values["train"] = {"meta_batch": 6, "steps": STEPS}
    if not ALGORITHMS[values["algorithm"]["name"]].trains_on_queries:
        del values["train"]["query"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return load(path, overrides).experiment


def examine(experiment: Experiment) -> Iterator[tuple[str, str | None]]:
    """Yield each requirement, and how the experiment fails it, or None.

    Args:
        experiment: a small experiment. Its steps, tests and precisions are set here.
    """
    experiment = experiment.model_copy(
        update={
            "train": experiment.train.model_copy(update={"steps": STEPS, "log_every": 1}),
            "validation": None,
            "test": experiment.test.model_copy(update={"episodes": 4, "checkpoint": "last"}),
            "jit": "off",
        }
    )
    for name, check in CHECKS.items():
        if check in OF_EPISODES and experiment.kind.plays_trials:
            continue
        try:
            yield name, check(experiment)
        except (RunError, DataError) as error:
            yield name, str(error)
        except KnownError:
            raise
        except Exception as error:  # of any kind: it is someone else's code
            yield name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def tasks_are_pure(experiment: Experiment) -> str | None:
    """Check that a task is the same alone, in a batch and in a traced program, and that seeds and numbers matter."""
    stream = build(experiment, 0).training_stream()
    both, alone = stream.sample(3, 2), stream.sample(4, 1)
    traced = tf.function(lambda number: stream.sample(number, 2), autograph=False)(tf.constant(3, tf.int64))
    for part, one, same in zip(tf.nest.flatten(both), tf.nest.flatten(alone), tf.nest.flatten(traced), strict=True):
        if (part.numpy() != same.numpy()).any():
            return "a task that is drawn in a program is another one"
        if (part.numpy()[1:] != one.numpy()).any():
            return "a task that is drawn alone is another one than in a batch"
    other = build(experiment, 1).training_stream().sample(3, 2)
    if (both.drawn.numpy() == other.drawn.numpy()).all() or (both.drawn.numpy()[0] == both.drawn.numpy()[1]).all():
        return "two seeds, or two numbers, give one task"
    return None


def dtypes(experiment: Experiment) -> str | None:
    """Check that parameters and metrics have the precision of the spec, and that a step is finite and moves weights."""
    for precision in ("float32", "float64"):
        model = build(experiment.model_copy(update={"precision": precision}), 0)
        learner, before = model.learner, _values(model.learner.parameters.values())
        metrics = learner.train_step(_training_tasks(model))
        wrong = [name for name, value in learner.parameters.items() if value.dtype != precision]
        if wrong:
            return f"with precision {precision} the parameter {wrong[0]} is {learner.parameters[wrong[0]].dtype.name}"
        if "loss" not in metrics or any(value.shape != () for value in metrics.values()):
            return "train_step must return scalars, `loss` among them"
        if odd := [name for name, value in metrics.items() if not math.isfinite(float(value))]:
            return f"{odd[0]} is not finite after the first step"
        if _equal(before, _values(learner.parameters.values())):
            return "a training step changes no parameter"
    return None


def values_of_tasks(experiment: Experiment) -> str | None:
    """Check that a test gives a value a task, the same again, and changes no variable."""
    model = build(experiment, 0)
    learner, tasks = model.learner, model.test_stream().sample(5, 2)
    before = _values(learner.variables)
    first, again = learner.evaluate(tasks), learner.evaluate(tasks)
    if not first.keys() & {"accuracy", "mse", "total_reward"}:
        return f"evaluate must return accuracy, mse or total_reward, not {', '.join(first) or 'nothing'}"
    for name, value in first.items():
        if value.shape.rank < 1 or value.shape[0] != 2:
            return f"evaluate must return a value a task: {name} has the shape {value.shape} for two tasks"
        if (value.numpy() != again[name].numpy()).any():
            return f"{name} of the same tasks differs in a second test"
    if "accuracy" in first and not np.logical_and(first["accuracy"] >= 0, first["accuracy"] <= 1).all():
        return "accuracy is a fraction, from 0 to 1"
    return None if _equal(before, _values(learner.variables)) else "a test changes variables"


def queries_and_tasks_apart(experiment: Experiment) -> str | None:
    """Check that a task is judged without the others, and a query without the others under the inductive protocol."""
    for protocol in ("inductive", "transductive"):
        changes = {"protocol": protocol, "precision": "float64"}
        if reason := dependence(build(experiment.model_copy(update=changes), 0)):
            return reason
    return None


def seeds_decide_weights(experiment: Experiment) -> str | None:
    """Check that the first weights are those of the seed."""
    one, same, other = (_values(build(experiment, seed).learner.parameters.values()) for seed in (0, 0, 1))
    if not _equal(one, same):
        return "the same seed gives other weights at a second time: all initial values must come from the seed"
    return "two seeds give the same weights" if _equal(one, other) else None


def variables_are_the_state(experiment: Experiment) -> str | None:
    """Check that a learner with the variables of another one goes on as that one does."""
    model, other = build(experiment, 0), build(experiment, 1)
    first, second = _training_tasks(model), _training_tasks(model, 1)
    model.learner.train_step(first)
    for source, target in zip(model.learner.variables, other.learner.variables, strict=True):
        target.assign(source)
    for each in (model, other):
        each.learner.train_step(second)
    same = _equal(_values(model.learner.variables), _values(other.learner.variables))
    return None if same else "`variables` lacks some of the state: a resumed training would go on differently"


def resumed_runs_are_equal(experiment: Experiment) -> str | None:
    """Check that a run that goes on from a checkpoint has the bits of a run in one go."""
    whole = experiment.model_copy(update={"train": experiment.train.model_copy(update={"steps": 2 * STEPS})})
    runs = {
        "a/short": experiment,
        "a/resumed": whole,  # goes on from the short one beside it
        "b/whole": whole,
        "c/again": whole,
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        for place, one in runs.items():
            out, name = place.split("/")
            run = Run.at(Path(folder, out), one.model_copy(update={"name": name}), 0)
            train(run)
            found[name] = run.directory.episodes.read_text()
    if found["whole"] != found["again"]:
        return "the same run gives other bits at a second time"
    return None if found["resumed"] == found["whole"] else "a resumed run gives other bits than one without a stop"


def workers_share_a_step(experiment: Experiment) -> str | None:
    """Check that two workers, each with its part of the tasks, make the step that one makes."""
    experiment = experiment.model_copy(
        update={"precision": "float64", "train": experiment.train.model_copy(update={"meta_batch": 3})}
    )
    if unshareable(experiment, 2):
        return None  # `train` refuses several workers
    alone = build(experiment, 0)
    tasks, results, failures = _training_tasks(alone), [], []
    alone.learner.train_step(tasks)
    meeting = _Meeting()
    pair = [_Half(index, 2, meeting=meeting) for index in range(2)]
    models = [build(experiment, 0, workers=worker) for worker in pair]
    try:
        shares = [TrainingSteps(model).share for model in models]  # refuses a learner that cannot share
    except RunError:
        return None  # `train` refuses several workers

    def step(model: Model, share: Share) -> None:
        try:
            part = tf.nest.map_structure(lambda each: each[share.before : 3 - share.after], tasks)
            model.learner.train_step(part, share=share)
            results.append(_values(model.learner.parameters.values()))
        except Exception as error:
            failures.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=step, args=each) for each in zip(models, shares, strict=True)]
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # a sum of two threads is no part of a traced program
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        tf.config.run_functions_eagerly(eager)
    if failures:
        raise next((each for each in failures if not isinstance(each, threading.BrokenBarrierError)), failures[0])
    for result in results:
        for one, other in zip(result, _values(alone.learner.parameters.values()), strict=True):
            if not np.allclose(one, other, rtol=1e-7, atol=1e-9):
                return "two workers make another step: average with `share.mean` over the whole meta-batch"
    return None


CHECKS: dict[str, Check] = {
    "tasks are pure functions of seed and number": tasks_are_pure,
    "dtypes; a step is finite and changes weights": dtypes,
    "a test gives values of tasks and changes nothing": values_of_tasks,
    "protocol: tasks and queries are judged apart": queries_and_tasks_apart,
    "the seed decides the first weights": seeds_decide_weights,
    "variables are the whole state": variables_are_the_state,
    "resumed runs and repeated runs are equal, bit for bit": resumed_runs_are_equal,
    "two workers make the step of one, or are refused": workers_share_a_step,
}
OF_EPISODES = (queries_and_tasks_apart, workers_share_a_step)  # trials have no queries, and are divided otherwise


class _Meeting:
    """Add up the values of two threads."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.brought: list[Any] = [None, None]


@dataclass(frozen=True)
class _Half(Workers):
    """Act as a worker of two, which are threads of this process."""

    meeting: _Meeting = field(default_factory=_Meeting, compare=False)

    def total(self, values: Any) -> Any:
        """Return the sum of both workers' values."""
        self.meeting.barrier.wait(60)
        self.meeting.brought[self.index] = values
        self.meeting.barrier.wait(60)
        return tf.nest.map_structure(lambda one, other: one + other, *self.meeting.brought)


def _training_tasks(model: Model, number: int = 0) -> Any:
    batch = model.experiment.train.meta_batch
    return model.training_stream().sample(number * batch, batch)


def _values(variables: Any) -> list[np.ndarray]:
    return [variable.numpy().copy() for variable in variables]


def _equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
