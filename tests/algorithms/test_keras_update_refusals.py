"""Refusals of `maml`: of Keras models, of optimizers and of tasks, one clear line each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import ALPHA, dense, drawn, model_of, moved, network

from metarun.algorithms.maml import maml

layers, optimizers = keras.layers, keras.optimizers


class Drawing(layers.Layer):
    """Draw random numbers as `kind` says."""

    def __init__(self, kind):
        super().__init__(dtype="float64")
        self.kind = kind

    def call(self, x):
        draw = keras.random.normal if self.kind == "keras" else tf.random.normal
        return x + tf.cast(draw((3,)), x.dtype)


class Resizing(layers.Layer):
    """Resize images by an operation that has a first derivative only, as LSTM in the library of a GPU has."""

    def call(self, x):
        return tf.reshape(tf.image.resize(tf.reshape(x, (-1, 3, 1, 1)), (2, 1), "bicubic"), (-1, 2))


def built_elsewhere():
    optimizer = optimizers.SGD(1.0)
    optimizer.build(network().trainable_variables)
    return optimizer


def stateful():
    layer = layers.SimpleRNN(2, stateful=True, name="keeping", dtype="float64")
    return keras.Sequential([keras.Input((3, 2), batch_size=4), layer])


def two_outputs():
    x = keras.Input((3,), dtype="float64")
    return keras.Model(x, [dense(3)(x), dense(3)(x)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network("sigmoid"), "ends in a sigmoid, and cross_entropy is of logits; .*leave out its last activ"),
        (lambda: model_of(network("sigmoid")), "ends in a sigmoid"),
        (lambda: model_of(network("softmax"), layers.Reshape((3,), dtype="float64")), "shape of what softmax returns"),
        (lambda: model_of(dense(1)), r"outputs have shape \[4, 1\]; cross_entropy needs one number for each class"),
        (lambda: model_of(dense(2)), "support_y holds a label outside of 0 to 1, and the model has 2 outputs$"),
        (lambda: model_of(layers.Dropout(0.5, name="drop"), dense(3)), "remove drop: it draws random numbers"),
        (lambda: model_of(layers.GaussianNoise(0.5, name="noise"), dense(3)), "remove noise: it draws"),
        (lambda: model_of(Drawing("keras"), dense(3)), "draws random numbers without a seed generator of its own"),
        (lambda: model_of(Drawing("tensorflow"), dense(3)), "RandomStandardNormal.* draws random numbers"),
        (lambda: model_of(layers.SpectralNormalization(dense(3), dtype="float64")), "a call of the model changes .*/"),
        (lambda: keras.Sequential([dense(3)]), "build the model first"),
        (lambda: model_of(layers.Flatten(dtype="float64")), "has no trainable weights"),
        (
            lambda: model_of(dense(3), Resizing(), dense(3)),
            "no second derivative .*ResizeBicubicGrad.* first_order=True",
        ),
        (stateful, "keeping keeps its state from call to call: leave out stateful=True"),
        (two_outputs, "the model returns a list; expected one tensor"),
    ],
)
def test_models_that_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^maml: .*{message}") as caught:
        moved(make(), drawn())
    assert "\n" not in str(caught.value)


def test_arguments_that_are_refused():
    tasks, inner = drawn(), optimizers.SGD(ALPHA)
    x, y, u, v = tasks
    schedule = optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)

    class Halved(optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate / 2)

    for given, message in (
        ({"tasks": (x, y, u)}, r"Episode, or a tuple \(support_x, support_y, query_x, query_y\)"),
        ({"tasks": (x, y[:, :2], u, v)}, r"support_x and support_y have shapes \(3, 4, 3\), \(3, 2\)"),
        ({"tasks": (x, y, u[:2], v[:2])}, r"the parts of tasks hold \[2, 3\] tasks"),
        ({"tasks": (x, y, u[:, :0], v[:, :0])}, "query_x and query_y have shapes"),
        ({"tasks": (x, y.astype(np.float32), u, v)}, r"support_y of a task is float32 of shape \[4\]; expected whole"),
        ({"tasks": (x, x, u, u[..., :2]), "loss": "mean_squared_error"}, r"query_y .* \[5, 2\], .* outputs \[5, 3\]"),
        ({"inner_steps": -1}, "inner_steps is -1"),
        ({"inner_steps": 1.5}, "inner_steps is 1.5"),
        ({"outer_optimizer": built_elsewhere()}, "outer_optimizer was built for other weights, .*: make a new one"),
        ({"outer_optimizer": "adam"}, "outer_optimizer is 'adam'; expected a Keras optimizer"),
        ({"inner_optimizer": "sgd"}, "must be plain keras.optimizers.SGD .*: it is 'sgd'"),
        ({"inner_optimizer": optimizers.Adam(0.1)}, "must be plain .*: it is a Adam"),
        ({"inner_optimizer": Halved(0.1)}, "must be plain .*: it is a Halved"),
        ({"inner_optimizer": optimizers.SGD(0.1, clipnorm=1.0)}, "must be plain .*: it has clipnorm=1.0"),
        ({"inner_optimizer": optimizers.SGD(schedule)}, r"it has a schedule \(assign to its learning_rate"),
    ):
        arguments = {"inner_optimizer": inner, "outer_optimizer": optimizers.SGD(1.0), "tasks": tasks} | given
        with pytest.raises(ValueError, match=f"^maml: .*{message}"):
            maml(network(), **arguments)
