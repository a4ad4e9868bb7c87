"""Count the memory that a TensorFlow program needs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

CALLED = {"PartitionedCall": "f", "StatefulPartitionedCall": "f", "While": "body", "StatelessWhile": "body"}
NO_MEMORY = {"Const", "Placeholder", "Reshape", "Identity", "StopGradient", "ExpandDims", "Squeeze", "ReadVariableOp"}


def peak_bytes(function: Any, compiled: bool = False) -> int:
    """Return the peak of the bytes of tensors that are alive while a concrete function runs in the order of its graph.

    A tensor lives from the operation that makes it to the last one that reads it. The memory of a called function is
    added while it runs. That of parallel operations is not counted.

    Args:
        function: The concrete function.
        compiled: Count the tensors inside XLA's programs too, as if it fused none of them: more than they need.
    """
    definition = function.graph.as_graph_def(add_shapes=True)
    library = {each.signature.name: each.node_def for each in definition.library.function}
    return _peak(definition.node, library, compiled)


def _peak(nodes: Sequence[Any], library: dict[str, Sequence[Any]], compiled: bool) -> int:
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
        peak = max(peak, alive + _inside(node, library, compiled))
        alive -= sum(size[name] for name in ends[place])
    return peak


def _inputs(node: Any) -> list[str]:
    return [name.split(":")[0] for name in node.input if not name.startswith("^")]


def _inside(node: Any, library: dict[str, Sequence[Any]], compiled: bool) -> int:
    if node.op not in CALLED or node.attr["_XlaMustCompile"].b and not compiled:
        return 0
    return _peak(library[node.attr[CALLED[node.op]].func.name], library, compiled)


def _bytes(node: Any) -> int:
    if node.op in NO_MEMORY:
        return 0
    kind = node.attr["T"].type or node.attr["dtype"].type or node.attr["DstT"].type
    width = tf.as_dtype(kind).size if kind and tf.as_dtype(kind).is_numpy_compatible else 4
    shapes = node.attr["_output_shapes"].list.shape
    return sum(width * math.prod(axis.size for axis in shape.dim) for shape in shapes if not _unknown(shape))


def _unknown(shape: Any) -> bool:
    return shape.unknown_rank or any(axis.size < 0 for axis in shape.dim)
