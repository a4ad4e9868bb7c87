"""Estimate the memory that a training, its validations and its test need, before it starts."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from ..config.experiment import Experiment
from ..errors import RunError, warn
from ..evaluation.measure import Evaluation
from ..system.cgroups import memory_limits

COMPILER = 300 * 2**20  # bytes for programs and their compiler
SURELY = 2.0  # estimates are too high by up to this factor where kernels work in place
CALLED = {"PartitionedCall": "f", "StatefulPartitionedCall": "f", "While": "body", "StatelessWhile": "body"}
NO_MEMORY = {"Const", "Placeholder", "Reshape", "Identity", "StopGradient", "ExpandDims", "Squeeze", "ReadVariableOp"}


def foresee(experiment: Experiment, update: Any) -> None:
    """Warn if a training step seems to need more memory than is available.

    Args:
        experiment: the experiment, whose algorithm knows how to save memory.
        update: the training step, a concrete function.

    Raises:
        RunError: the step certainly needs more.
    """
    _refuse("a training step", update, lambda share: experiment.algorithm.less_memory(experiment.train, share))


def foresee_tasks(section: Literal["validation", "test"], evaluation: Evaluation) -> None:
    """Warn if the tasks that a validation or the test measures at once seem to need more memory than is available.

    Args:
        section: the section of the spec that decides how large the tasks are.
        evaluation: the validation or test.

    Raises:
        RunError: they certainly need more.
    """
    sizes = evaluation.stream.columns
    larger = [f"{section}.{name} ({sizes[name]})" for name in ("query", "shot", "way") if (sizes.get(name) or 1) > 1]
    lower = larger or [f"{section}.episodes"]  # of trials, which are played together
    _refuse(f"a call of the {section}", evaluation.traced(), lambda share: [f"lower {each}" for each in lower])


def _refuse(what: str, function: Any, savings: Callable[[float], Iterable[str]]) -> None:
    """Warn, or raise RunError, if a concrete function needs more memory than is available.

    Args:
        what: the name of the function's work.
        function: the concrete function.
        savings: ways to need less, of which the part of the needed memory that is available is known.
    """
    need, available = peak_bytes(function) + COMPILER, available_bytes()
    if available is None or need <= available:
        return
    line = (
        f"{what} needs about {need / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free: "
        f"{' or '.join(savings(available / need))}"
    )
    if need > SURELY * available:
        raise RunError(line)
    warn(line)


def peak_bytes(function: Any) -> int:
    """Return the peak of the bytes of tensors that are alive while a concrete function runs in the order of its graph.

    A tensor lives from the operation that makes it to the last one that reads it. The memory of a called function is
    added while it runs. Memory inside XLA's programs, and of parallel operations, is not counted.
    """
    definition = function.graph.as_graph_def(add_shapes=True)
    library = {each.signature.name: each.node_def for each in definition.library.function}
    return _peak(definition.node, library)


def _peak(nodes: Sequence[Any], library: dict[str, Sequence[Any]]) -> int:
    maker: dict[str, str] = {}  # whose memory a node's output is: its own, or that of its input
    last_use: dict[str, int] = {}
    for place, node in enumerate(nodes):
        inputs = [maker[name] for name in _inputs(node) if name in maker]
        last_use.update(dict.fromkeys(inputs, place))
        maker[node.name] = inputs[0] if node.op in NO_MEMORY and inputs else node.name
        last_use.setdefault(maker[node.name], place)
    ends: dict[int, list[str]] = defaultdict(list)
    for name, place in last_use.items():
        ends[place].append(name)
    size = {node.name: _bytes(node) for node in nodes}
    alive = peak = 0
    for place, node in enumerate(nodes):
        alive += size[node.name]
        peak = max(peak, alive + _inside(node, library))
        alive -= sum(size[name] for name in ends[place])
    return peak


def _inputs(node: Any) -> list[str]:
    return [name.split(":")[0] for name in node.input if not name.startswith("^")]


def _inside(node: Any, library: dict[str, Sequence[Any]]) -> int:
    if node.op not in CALLED or node.attr["_XlaMustCompile"].b:
        return 0
    return _peak(library[node.attr[CALLED[node.op]].func.name], library)


def _bytes(node: Any) -> int:
    if node.op in NO_MEMORY:
        return 0
    kind = node.attr["T"].type or node.attr["dtype"].type or node.attr["DstT"].type
    width = tf.as_dtype(kind).size if kind and tf.as_dtype(kind).is_numpy_compatible else 4
    shapes = node.attr["_output_shapes"].list.shape
    return sum(width * math.prod(axis.size for axis in shape.dim) for shape in shapes if not _unknown(shape))


def _unknown(shape: Any) -> bool:
    return shape.unknown_rank or any(axis.size < 0 for axis in shape.dim)


def available_bytes() -> int | None:
    """Return the bytes that this process may still allocate; None if unknown.

    They are limited by the kernel's estimate of free memory, and by the control groups of the process.
    """
    try:
        memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
        status = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE))
        return min(
            [int(memory["MemAvailable"]) * 1024, *(each - int(status["VmRSS"]) * 1024 for each in memory_limits())]
        )
    except (OSError, KeyError):
        return None
