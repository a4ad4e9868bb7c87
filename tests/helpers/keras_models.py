"""Keras models and plain tasks as the tests of `maml` take them."""

import keras
import numpy as np

from metarun.algorithms.maml import maml

layers, optimizers = keras.layers, keras.optimizers
ALPHA = 0.25  # float32 has it exactly


def drawn(tasks=3, supports=4, queries=5, shape=(3,), classes=3, dtype=np.float64):
    """Return plain arrays (support_x, support_y, query_x, query_y), labels int64."""
    generator = np.random.default_rng(0)
    parts = []
    for examples in (supports, queries):
        parts.append(generator.normal(size=(tasks, examples, *shape)).astype(dtype))
        parts.append(generator.integers(0, classes, (tasks, examples)))
    return tuple(parts)


def relabelled(tasks, change):
    """Return the tasks with `change` made to their labels."""
    return (tasks[0], change(tasks[1]), tasks[2], change(tasks[3]))


LABELS = {
    "int64": lambda labels: labels,
    "uint8": lambda labels: labels.astype(np.uint8),
    "column": lambda labels: labels[..., None],
    "one-hot": lambda labels: np.eye(3, dtype=np.float32)[labels],
}


def model_of(*parts, shape=(3,), dtype="float64"):
    """Return a Keras model of these layers."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts])


def dense(units, *arguments, **options):
    return layers.Dense(units, *arguments, dtype="float64", **options)


def network(last=None, **first):
    """Return two dense layers, always with the same first weights."""
    keras.utils.set_random_seed(0)
    return model_of(dense(4, "tanh", **first), dense(3, last))


def weights_of(model):
    return [variable.numpy() for variable in model.trainable_variables]


def moved(model, tasks, outer=None, **options):
    """Return the gradient of one update: the weights before it less those after it, with steps of size 1."""
    before = weights_of(model)
    maml(model, optimizers.SGD(ALPHA), outer or optimizers.SGD(1.0), tasks, **options)
    return [old - new for old, new in zip(before, weights_of(model), strict=True)]
