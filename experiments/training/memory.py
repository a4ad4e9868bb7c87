"""Estimate the memory that a training, its validations and its test need, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from ...algorithms.memory import peak_bytes
from ..config.experiment import Experiment
from ..errors import RunError, warn
from ..evaluation.measure import Evaluation
from ..system.cgroups import available_bytes

COMPILER = 300 * 2**20  # bytes for programs and their compiler
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
    need, available = peak_bytes(function) + COMPILER, available or available_bytes()
    if available is None or need <= available:
        return available
    line = (
        f"{what} needs about {need / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free: "
        f"{' or '.join(savings(available / need))}"
    )
    if need > SURELY * available:
        raise RunError(line)
    warn(line)
    return available
