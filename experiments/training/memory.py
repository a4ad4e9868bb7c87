"""Estimate the memory that a training, its validations and its test need, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from ...algorithms.build import build as build_learner
from ...algorithms.memory import peak_bytes
from ..config.experiment import Experiment
from ..errors import RunError, warn, warn_once
from ..evaluation.measure import Evaluation
from ..model import Model, setup_of
from ..system import gpus
from ..system.cgroups import available_bytes
from .steps import TrainingSteps

GIB = 2**30
COMPILER = 300 * 2**20  # bytes for programs and their compiler
LARGE, IDLE = 16 * GIB, 1 / 16  # a GPU of which a step that needs less than this part leaves nearly all to others
SURELY = 2.0  # estimates are too high by up to this factor where kernels work in place


def foresee(experiment: Experiment, update: Any) -> int | None:
    """Warn if a training step seems to need more memory than is available; return the bytes that are.

    Args:
        experiment: the experiment, whose algorithm knows how to save memory.
        update: the training step, a concrete function.

    Raises:
        RunError: the step certainly needs more.
    """
    return _refuse("a training step", update, lambda share: experiment.algorithm.less_memory(experiment.train, share))


def fitted(model: Model) -> Model:
    """Return a model whose training step fits into the memory of the GPU: in parts, where the spec leaves that open.

    The whole of the card's memory decides, or this run's share of it, not what is free now: so a run that resumes on
    the same kind of GPU takes the same parts, and the same order of the same sums. A warning says what was chosen, or
    that the step leaves nearly all of a large GPU to others.

    Args:
        model: the model, with its initial weights.
    """
    experiment, card, sharing = model.experiment, gpus.memory(), gpus.runs_per_gpu()
    if card is None or not experiment.kind.is_trained:
        return model
    need, room = most_bytes(TrainingSteps(model).traced_update()), card.total / sharing
    told = f"{experiment.name}: a training step needs about {need / GIB:.1f} GiB of the GPU's {card.total / GIB:.0f}"
    if sharing == model.workers.count == 1 and card.total >= LARGE and need < IDLE * card.total:
        warn_once(f"{told}: others can share it, see --runs-per-gpu in `metarun submit --help`")
    options = experiment.algorithm.in_parts(experiment.train, room / need / model.workers.count)
    if need <= room or options is None:
        return model
    setup = setup_of(experiment, model.seed)._replace(algorithm=options)
    model = model._replace(learner=build_learner(setup, model.training_source))
    shared = f", which {sharing} runs share" if sharing > 1 else ""
    chosen = ", ".join(f"algorithm.{key}: {value}" for key, value in chosen_options(model).items())
    warn(
        f"{told}{shared}: it is computed in parts, which changes last bits alone; a spec with {chosen} has the same on "
        "every machine"
    )
    return model


def chosen_options(model: Model) -> dict[str, Any]:
    """Return the options of the learner that are not those of the spec."""
    asked, used = model.experiment.algorithm, getattr(model.learner, "options", None)
    if not isinstance(used, type(asked)):
        return {}
    return {key: value for key in type(asked).model_fields if (value := getattr(used, key)) != getattr(asked, key)}


def foresee_tasks(section: Literal["validation", "test"], evaluation: Evaluation, available: int | None = None) -> None:
    """Warn if the tasks that a validation or the test measures at once seem to need more memory than is available.

    Args:
        section: the section of the spec that decides how large the tasks are.
        evaluation: the validation or test.
        available: the bytes that were available before the first step, whose memory is used again; default: now.

    Raises:
        RunError: they certainly need more.
    """
    sizes = evaluation.stream.columns
    larger = [f"{section}.{name} ({sizes[name]})" for name in ("query", "shot", "way") if (sizes.get(name) or 1) > 1]
    lower = larger or [f"{section}.episodes"]  # of trials, which are played together
    savings = [f"lower {each}" for each in lower]
    _refuse(f"a call of the {section}", evaluation.traced(), lambda share: savings, available)


def _refuse(
    what: str, function: Any, savings: Callable[[float], Iterable[str]], available: int | None = None
) -> int | None:
    """Warn, or raise RunError, if a concrete function needs more memory than is available; return the bytes that are.

    Args:
        what: the name of the function's work.
        function: the concrete function.
        savings: ways to need less, of which the part of the needed memory that is available is known.
        available: the bytes that are available; default: as the system says now.
    """
    card, least = gpus.memory(), peak_bytes(function) + COMPILER
    need = most_bytes(function) if card else least
    available = available or (card.free if card else available_bytes())
    if available is None or need <= available:
        return available
    line = (
        f"{what} needs about {need / GIB:.1f} GiB and {available / GIB:.1f} GiB are free{gpus.occupants()}: "
        f"{' or '.join(savings(available / need))}"
    )
    if least > SURELY * available:
        raise RunError(line)
    warn(line)
    return available


def most_bytes(function: Any) -> int:
    """Return the bytes that a concrete function needs at most on a GPU, where XLA may compile it as a whole."""
    return peak_bytes(function, compiled=True) + COMPILER
