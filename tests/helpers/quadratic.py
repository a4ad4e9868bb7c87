"""Quadratic tasks L_i = |theta - c_i|^2 / 2, on which everything has a closed form."""

import numpy as np
import tensorflow as tf

from metarun.datasets.tasks import Episode


class ThetaNetwork:
    """Return the only parameter as the output of a network."""

    head = norm = frozenset()
    layers = ()
    fuse = batch_norm = False

    def __init__(self, theta):
        self.parameters = {"theta": tf.Variable(np.asarray(theta, np.float64))}

    def __call__(self, parameters, x, *, groups=1, running=False):
        theta = tf.convert_to_tensor(parameters["theta"])
        tasks, examples = x.shape[:2]
        return tf.tile(
            tf.reshape(theta, (-1, 1, theta.shape[-1])),
            (tasks // (theta.shape[0] if theta.shape.rank > 1 else 1), examples, 1),
        )


def theta_network(theta):
    return ThetaNetwork(theta)


class QuadraticProblem:
    """Define a `Problem` with the quadratic loss."""

    regression, protocol = True, "transductive"

    @staticmethod
    def loss(outputs, targets):
        return tf.reduce_mean(tf.reduce_sum((outputs - targets) ** 2, axis=-1) / 2, axis=1)

    @staticmethod
    def metrics(outputs, targets, steps=(0,)):
        return {"mse": tf.reduce_mean((outputs[-1] - targets) ** 2, axis=[1, 2])}


def quadratic_tasks(centers, examples=4):
    """Make one task per row of `centers` [T, D]; every target is the task's center."""
    centers = np.asarray(centers, np.float64)
    x = tf.zeros((len(centers), examples, 1), tf.float64)
    y = tf.constant(np.repeat(centers[:, None], examples, axis=1))
    drawn = tf.constant(np.arange(len(centers), dtype=np.int32)[:, None])
    return Episode(x, y, x, y, tf.zeros((len(centers), 0), tf.int32), drawn)
