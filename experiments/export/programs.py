"""Programs of trained learners that TensorFlow runs without metarun: the signatures of a SavedModel.

They are the learners' own `fit` and `classify`, traced for one task with any number of images. T tasks of the shapes in
`datasets/tasks.py` are one here, and have no axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ...algorithms.learner import FewShotLearner, Support, classify_with_scores
from ...algorithms.metrics import are_finite
from ...algorithms.programs import program
from ...algorithms.rl.rollout import Seen, first_seen
from ...algorithms.rl2 import RL2, Player
from ...datasets.trials import Space
from ..prediction.classifier import DRAWN

Signatures = dict[str, Any]  # a concrete function for each name
AsInput = Callable[[Any], tf.Tensor]  # from uint8 images to inputs of the network
SERVED = "serving_default"  # the name of the signature that is called where none is named


def adapting(
    learner: FewShotLearner,
    shape: tuple[int, ...],
    as_input: AsInput,
    way: int | None,
    temperature: float = 1.0,
) -> Signatures:
    """Return the learner itself: support images, their labels and queries in; logits, probabilities and scores out.

    Args:
        learner: A few-shot classifier, not compiled.
        shape: The shape of one image.
        as_input: Makes inputs of uint8 images.
        way: The number of classes of its last layer; None: as many as the labels have.
        temperature: Logits are divided by it before the softmax.
    """

    @program(
        input_signature=[
            tf.TensorSpec((None, *shape), tf.uint8, "support_images"),
            tf.TensorSpec((None,), tf.int32, "support_labels"),
            tf.TensorSpec((None, *shape), tf.uint8, "query_images"),
        ]
    )
    def classify(support_images: tf.Tensor, support_labels: tf.Tensor, query_images: tf.Tensor):
        labels, classes = _checked(support_images, support_labels, way)
        support = Support(
            as_input(support_images)[None], labels[None], classes, tf.constant(DRAWN[None]), balanced=False
        )
        return _answers(learner, learner.fit(support), as_input(query_images), classes, temperature)

    return {SERVED: classify.get_concrete_function()}


def _checked(images: tf.Tensor, labels: tf.Tensor, way: int | None) -> tuple[tf.Tensor, Any]:
    """Return the labels and the number of classes, after a check that every class has an image."""
    classes = tf.reduce_max(tf.concat([labels, [-1]], axis=0)) + 1 if way is None else way
    each = tf.equal(labels[:, None], tf.range(classes))  # [S, way]
    right = (tf.shape(labels)[0] == tf.shape(images)[0]) & (classes > 0)
    right &= tf.reduce_all(tf.reduce_any(each, axis=0)) & tf.reduce_all(tf.reduce_any(each, axis=1))
    upto = "the largest" if way is None else str(way - 1)
    message = f"support_labels: one for each support image, from 0 to {upto}, and an image for each of these labels"
    with tf.control_dependencies([tf.debugging.Assert(right, [message])]):
        return tf.identity(labels), classes


def fitted(
    learner: FewShotLearner,
    shape: tuple[int, ...],
    as_input: AsInput,
    known: Mapping[str, tf.Tensor],
    labels: Sequence[str],
    temperature: float = 1.0,
) -> Signatures:
    """Return the classifier of one support set: images in; logits, probabilities, score and label out.

    Args:
        learner: A few-shot classifier, not compiled.
        shape: The shape of one image.
        as_input: Makes inputs of uint8 images.
        known: What `fit` returned for the support set.
        labels: The names of the classes. The label of a query is one of them, or "" where the outputs are not finite.
        temperature: Logits are divided by it before the softmax.
    """
    names = tf.constant([label.encode(errors="backslashreplace") for label in labels])

    @program(input_signature=[tf.TensorSpec((None, *shape), tf.uint8, "images")])
    def classify(images: tf.Tensor):
        answers = _answers(learner, known, as_input(images), len(labels), temperature)
        label = tf.gather(names, tf.argmax(answers["logits"], axis=-1))
        return answers | {"label": tf.where(are_finite(answers["logits"]), label, "")}

    return {SERVED: classify.get_concrete_function()}


def _answers(
    learner: FewShotLearner, known: Mapping[str, tf.Tensor], queries: tf.Tensor, way: Any, temperature: float
) -> dict[str, tf.Tensor]:
    logits, score = (each[0] for each in classify_with_scores(learner, known, queries[None], way))
    probabilities = tf.nn.softmax(logits / tf.cast(temperature, logits.dtype))
    return {"logits": logits, "probabilities": probabilities, "score": score}


def regressing(learner: FewShotLearner, shape: tuple[int, ...], target: tuple[int, ...], dtype: tf.DType) -> Signatures:
    """Return the learner of a regression: support points and queries in, predictions out.

    Args:
        learner: A few-shot regression, not compiled.
        shape: The shape of one x.
        target: The shape of one y.
        dtype: The dtype of both.
    """

    @program(
        input_signature=[
            tf.TensorSpec((None, *shape), dtype, "support_x"),
            tf.TensorSpec((None, *target), dtype, "support_y"),
            tf.TensorSpec((None, *shape), dtype, "query_x"),
        ]
    )
    def predict(support_x: tf.Tensor, support_y: tf.Tensor, query_x: tf.Tensor):
        support = Support(support_x[None], support_y[None], 1, tf.constant(DRAWN[None]), balanced=True)
        return {"predictions": learner.classify(learner.fit(support), query_x[None], 1)[0]}

    return {SERVED: predict.get_concrete_function()}


def stepping(learner: RL2) -> Signatures:
    """Return the policy as a step: state and what it sees in, the next state and the distribution of actions out.

    The signature `initial_state` gives what the first step of a number of trials takes.
    """
    player, source = Player(learner), learner.source

    @program(
        input_signature=[
            tf.TensorSpec((None, learner.policy.units), learner.dtype, "state"),
            _spec(source.observations, "observation"),
            _spec(source.actions, "previous_action"),
            tf.TensorSpec((None,), tf.float32, "previous_reward"),
            tf.TensorSpec((None,), tf.bool, "previous_done"),
        ]
    )
    def step(state: tf.Tensor, observation: tf.Tensor, *before: tf.Tensor):
        numbers, state = player.consider(state, Seen(observation, *before))
        if source.actions.discrete:
            return {"state": state, "action_probabilities": tf.nn.softmax(numbers)}
        mean, log_std = tf.split(numbers, 2, axis=-1)
        return {"state": state, "action_mean": mean, "action_deviation": tf.exp(log_std)}

    @program(input_signature=[tf.TensorSpec((), tf.int32, "trials")])
    def start(trials: tf.Tensor):
        action, reward, done = first_seen(source, trials)  # pyright: ignore[reportArgumentType]
        first = {"previous_action": action, "previous_reward": reward, "previous_done": done}
        return {"state": player.start(trials)} | first  # pyright: ignore[reportArgumentType]

    return {SERVED: step.get_concrete_function(), "initial_state": start.get_concrete_function()}


def _spec(space: Space, name: str) -> tf.TensorSpec:
    shape, dtype = ((None,), tf.int32) if space.discrete else ((None, space.size), tf.float32)
    return tf.TensorSpec(shape, dtype, name)


class Tensor(NamedTuple):
    """Hold an input or an output of a signature."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def words(self) -> str:
        """Return it for a reader: images uint8 [?, 28, 28, 1]."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} [{sizes}]"


def sides(signature: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and the outputs of a signature."""
    arguments, outputs = signature.structured_input_signature, signature.structured_outputs
    specs = [spec for spec in tf.nest.flatten(arguments) if spec.name]
    told = [(spec.name, spec) for spec in specs], list(outputs.items())
    inputs, results = ([Tensor(name, spec.dtype.name, tuple(spec.shape)) for name, spec in side] for side in told)
    return inputs, results


def save(signatures: Signatures, folder: str) -> None:
    """Write a SavedModel with these signatures and all variables that they read."""
    module = tf.Module()
    module.held = [variable for each in signatures.values() for variable in each.graph.variables]
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # it is not trained any more
    tf.saved_model.save(module, folder, signatures=signatures, options=options)
