"""The operations that a traced function needs, counted from its graph."""

import math


def products(function):
    """Count the floating-point operations of convolutions and matrix products in a concrete function and its calls."""
    graphs = [function.graph, *(each.graph for each in function.graph._functions.values())]
    return sum(_operations(operation) for graph in graphs for operation in _needed(graph))


def _needed(graph):
    """Find what the graph's outputs depend on, and what changes a variable; the compiler drops the rest."""
    waiting = [output.op for output in graph.outputs] + [op for op in graph.get_operations() if "Assign" in op.type]
    found = set()
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [each.op for each in operation.inputs] + list(operation.control_inputs)
    return found


def _operations(operation):
    name = operation.type
    if "Conv" not in name and "MatMul" not in name:
        return 0
    shapes = [tuple(each.shape) for each in operation.inputs]
    if name in ("MatMul", "BatchMatMulV2"):
        result, inner = tuple(operation.outputs[0].shape), shapes[0]
        transposed = operation.get_attr("transpose_a" if name == "MatMul" else "adj_x")
        return 2 * math.prod(result) * (inner[-2] if transposed else inner[-1])
    if name == "Conv2D":
        return 2 * math.prod(operation.outputs[0].shape) * math.prod(shapes[1][:3])
    if name == "Conv2DBackpropFilter":
        return 2 * math.prod(shapes[2]) * math.prod(operation.outputs[0].shape[:3])
    if name == "Conv2DBackpropInput":
        return 2 * math.prod(shapes[2]) * math.prod(shapes[1][:3])
    raise AssertionError(f"{name} is not counted")
