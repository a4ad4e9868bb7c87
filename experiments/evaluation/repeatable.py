"""Check that a source of another package gives the same tasks whenever they are drawn or played.

All comparisons, resumed runs and shared trainings rely on it: task number i is a pure function of its split and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ...algorithms.programs import program
from ...algorithms.rl.rollout import Seen, roll_out
from ...datasets import BUILT_IN
from ...datasets.errors import DataError
from ...datasets.random import TaskKeys
from ...datasets.tasks import Split, task_number
from ...datasets.trials import Space
from ..model import Model, Stream

STEPS_ALONE = 20  # of a trial that is played alone: beyond, rounding may have grown to another course of events
TOLERANCE = 1e-3  # of numbers that were computed in another batch
BY_STEP = ("observation", "reward", "end of episode")  # of trials, [T, N, ...]
WAY_OUT = {
    True: "every random number must come from the keys of the trials; in an environment of Gymnasium from "
    "`self.np_random`, which `reset(seed=...)` seeds, or from the generator that `make` gets",
    False: "`sample` must be a pure function of split, index and seed, see metarun.datasets.random.TaskKeys",
}


class RandomActions:
    """Play, as a `Policy`, actions that depend on the trial and the step alone; they are in [-1, 1) if not discrete."""

    def __init__(self, actions: Space):
        self.actions = actions

    def start(self, tasks: int) -> tuple[()]:
        """Return an empty memory."""
        return ()

    def act(self, memory: tuple[()], seen: Seen, number: tf.Tensor, keys: TaskKeys) -> tuple[tf.Tensor, Any, Any]:
        """Choose a random action, see `Policy`."""
        if self.actions.discrete:
            return tf.cast(keys.uniform("action", high=float(self.actions.size)), tf.int32), (), ()
        return tf.cast(keys.uniform("action", self.actions.size, low=-1.0), tf.float32), (), ()


def refuse_unrepeatable(model: Model, split: Split = "test") -> None:
    """Draw two test tasks twice, then one of them alone, and compare; trials are played with the same random actions.

    Sources that metarun ships are tested with it, and are not checked again.

    Args:
        model: the model, whose source is checked.
        split: the split of the tasks.

    Raises:
        DataError: a task differs between equal draws, or from itself in another batch.
    """
    if type(model.experiment.tested) not in BUILT_IN.values():
        _refuse_unrepeatable(model, model.test_stream(split), split)
    if model.tested and type(model.experiment.dataset) not in BUILT_IN.values():
        _refuse_unrepeatable(model, model.training_stream(), "train")


def _refuse_unrepeatable(model: Model, stream: Any, split: Split) -> None:
    plays = model.experiment.kind.plays_trials
    look = _played if plays else _drawn
    two = program(lambda number: look(stream, number, 2))
    first, again = (_arrays(two(task_number(0))) for _ in range(2))
    alone = _arrays(program(lambda number: look(stream, number, 1))(task_number(1)))
    difference, when = _difference(first, again), "when it was drawn again"
    if not difference:
        second = {name: values[1:] for name, values in first.items()}
        difference, when = _difference(_early(second), _early(alone), TOLERANCE), "when it was drawn without the other"
    if difference:
        task = "trial" if plays else "task"
        raise DataError(
            f"{stream.source.name}: a {split} {task} was another one {when} ({difference}), so no result could be "
            f"repeated or compared: {WAY_OUT[plays]}"
        )


def _drawn(stream: Stream, number: tf.Tensor, tasks: int) -> dict[str, tf.Tensor]:
    """Return the tensors of an episode, `[T, ...]`."""
    return dict(stream.sample(number, tasks)._asdict())


def _played(stream: Stream, number: tf.Tensor, tasks: int) -> dict[str, tf.Tensor]:
    """Return what distinguishes trials, and what happens in them: `[T, ...]`, and `[T, N, ...]` by step."""
    source: Any = stream.source
    trials: Any = stream.sample(number, tasks)
    rollout = roll_out(source, trials, RandomActions(source.actions))
    by_step = zip(BY_STEP, (rollout.seen.observation, rollout.reward, rollout.seen.terminal), strict=True)
    happened = {name: tf.transpose(x, (1, 0, *range(2, x.shape.rank))) for name, x in by_step}
    parameters = {f"parameter {name}": value for name, value in trials.parameters.items()}
    return {**parameters, "keys": trials.keys, "drawn": trials.drawn, **happened}


def _arrays(tensors: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tensors.items()}


def _early(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays without the later steps of trials."""
    return {name: values[:, :STEPS_ALONE] if name in BY_STEP else values for name, values in arrays.items()}


def _difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], tolerance: float = 0.0) -> str:
    """Return the first difference in words, for example "reward of step 3: 0.43 and -0.39", or "" without one."""
    for name, values in one.items():
        about = tolerance if np.issubdtype(values.dtype, np.floating) else 0
        differ = ~np.isclose(values, other[name], rtol=about, atol=about, equal_nan=True)
        if differ.any():
            place = tuple(np.argwhere(differ)[0])
            step = f" of step {place[1]}" if name in BY_STEP else ""
            return f"{name}{step}: {values[place]:g} and {other[name][place]:g}"
    return ""
