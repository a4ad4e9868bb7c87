"""Baseline and Baseline++ (Chen, Liu, Kira, Wang and Huang 2019, "A Closer Look at Few-shot Classification",
https://arxiv.org/abs/1904.04232).

    training      L = -log softmax_y(W' f(x))                                     (Baseline, section 3.2)
                  L = -log softmax_y(s g_k cos(w_k, f(x)))                        (Baseline++)
    test          f is frozen; a new W or w, g is trained on the support set of each task by the same loss

f and the layer of all training classes are trained on shuffled mini-batches of single images. As in the authors' code,
features are divided by their length + 1e-5 and g_k is learned (weight normalisation). There s is 2 for up to 200
outputs and 10 for more, so that tasks of few ways have 2 whatever training has. The layers start as PyTorch's linear
layer, within 1 / sqrt(D) of 0; the bias of training from 0.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from .classifier import Classifier
from .heads.trained import unit
from .networks.feedforward import Parameters
from .options import BaselinePlusPlusOptions


class LinearClassifier(Classifier):
    """Train a linear layer of all training classes on the features."""

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return the layer: `classes/kernel` `[D, outputs]` and `classes/bias` `[outputs]`."""
        return {
            "classes/kernel": tf.Variable(self._first_kernel(), name="classes/kernel"),
            "classes/bias": tf.Variable(tf.zeros(self.outputs, self.network.dtype), name="classes/bias"),
        }

    def class_logits(self, own: Parameters, features: tf.Tensor) -> tf.Tensor:
        """Return W' f + b, see `Classifier`."""
        return tf.matmul(features, own["classes/kernel"]) + own["classes/bias"]

    def _first_kernel(self) -> tf.Tensor:
        bound = 1 / math.sqrt(self.network.features)
        uniform = keras.initializers.RandomUniform(-bound, bound, self.network.seed + 1)
        return uniform((self.network.features, self.outputs), dtype=self.network.dtype.name)


class Baseline(LinearClassifier):
    """Train a linear classifier, and at test a linear layer on frozen features."""


class BaselinePlusPlus(LinearClassifier):
    """Train a classifier by cosine similarity, and at test another one on frozen features."""

    options: BaselinePlusPlusOptions

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return directions `classes/kernel` `[D, outputs]` and lengths `classes/gain` `[outputs]`."""
        kernel = self._first_kernel()
        return {
            "classes/kernel": tf.Variable(kernel, name="classes/kernel"),
            "classes/gain": tf.Variable(tf.norm(kernel, axis=0), name="classes/gain"),
        }

    def class_logits(self, own: Parameters, features: tf.Tensor) -> tf.Tensor:
        """Return s g_k cos(w_k, f), see `Classifier`."""
        directions = tf.math.l2_normalize(own["classes/kernel"], axis=0)
        return self.options.scale * own["classes/gain"] * tf.matmul(unit(features), directions)
