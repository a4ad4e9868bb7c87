"""Heads that are trained on support sets, against the descent on all their weights in plain numpy."""

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.heads import trained
from metarun.algorithms.heads.options import CosineHeadOptions, LinearHeadOptions
from metarun.algorithms.heads.trained import CosineHead, LinearHead, _initial
from metarun.algorithms.learner import Support
from metarun.algorithms.memory import peak_bytes
from metarun.datasets.random import TaskKeys

TASKS, WAY, SHOT, WIDTH = 2, 3, 3, 7
GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(TASKS, WAY * SHOT, WIDTH))
QUERIES = GENERATOR.normal(size=(TASKS, 5, WIDTH))
LABELS = np.repeat(np.arange(WAY), SHOT)
DRAWN = np.array([[1, 5], [2, 9]], np.int32)
SETTINGS = {"epochs": 6, "batch": 4, "learning_rate": 0.3, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.02}


def support(balanced=True, labels=LABELS):
    y = np.tile(labels, (TASKS, 1)).astype(np.int32)
    return Support(tf.constant(FEATURES[:, : len(labels)]), tf.constant(y), WAY, tf.constant(DRAWN), balanced)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def mini_batches(task, images, batch, epochs):
    """Yield the images of each mini-batch, of which the head's own draws decide the order."""
    order = TaskKeys.of_drawn(tf.constant(DRAWN)).distinct("mini-batches", images, images, epochs).numpy()[task]
    for places in order.reshape(epochs, images):
        for first in range(0, images, batch):
            yield np.flatnonzero((places >= first) & (places < first + batch))


def descend(parameters, gradient, task, images=WAY * SHOT, damp_first=False, decoupled=False, **settings):
    """Update as torch.optim.SGD does, on parameters of any shape."""
    given = SETTINGS | settings
    velocity = None
    for rows in mini_batches(task, images, given["batch"], given["epochs"]):
        slopes = gradient(parameters, rows)
        if not decoupled:
            slopes = [slope + given["weight_decay"] * value for slope, value in zip(slopes, parameters, strict=True)]
        if velocity is None:
            velocity = [(1 - given["dampening"]) * slope if damp_first else slope for slope in slopes]
        else:
            both = zip(velocity, slopes, strict=True)
            velocity = [given["momentum"] * v + (1 - given["dampening"]) * slope for v, slope in both]
        if decoupled:
            parameters = [(1 - given["learning_rate"] * given["weight_decay"]) * value for value in parameters]
        parameters = [w - given["learning_rate"] * v for w, v in zip(parameters, velocity, strict=True)]
    return parameters


def linear(task, **settings):
    """Return the logits of queries after training W and b."""
    weights, bias = (part.numpy()[task] for part in _initial(support(), tf.constant(FEATURES)))
    features, labels = FEATURES[task], np.eye(WAY)[LABELS]

    def gradient(parameters, rows):
        errors = (softmax(features[rows] @ parameters[0] + parameters[1]) - labels[rows]) / len(rows)
        return [features[rows].T @ errors, errors.sum(axis=0)]

    weights, bias = descend([weights, bias], gradient, task, **settings)
    return QUERIES[task] @ weights + bias


def cosine(task, scale, tangent=True, **settings):
    """Return the logits of queries after training directions and lengths."""
    start = _initial(support(), tf.constant(FEATURES))[0].numpy()[task]
    features, labels = FEATURES[task], np.eye(WAY)[LABELS]
    features = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)

    def gradient(parameters, rows):
        v, g = parameters
        norms = np.linalg.norm(v, axis=0)
        errors = scale * (softmax(scale * g * (features[rows] @ (v / norms))) - labels[rows]) / len(rows)
        by_direction = features[rows].T @ errors * g / norms
        along = (by_direction * v / norms).sum(axis=0) * v / norms
        return [by_direction - (along if tangent else 0), (errors * (features[rows] @ (v / norms))).sum(axis=0)]

    v, g = descend([start, np.linalg.norm(start, axis=0)], gradient, task, **settings)
    queries = QUERIES[task] / (np.linalg.norm(QUERIES[task], axis=1, keepdims=True) + 1e-5)
    return scale * g * (queries @ (v / np.linalg.norm(v, axis=0)))


def logits_of(head, given):
    return head.logits(head.fit(given.x, given), tf.constant(QUERIES)).numpy()


def test_a_linear_head_is_trained_as_by_descent_on_all_weights():
    """Reject a first step that is dampened, decay beside the gradient, and another order of the images."""
    found = logits_of(LinearHead(LinearHeadOptions(**SETTINGS)), support())
    for task in range(TASKS):
        np.testing.assert_allclose(found[task], linear(task), rtol=1e-9)
        for wrong in ({"damp_first": True}, {"decoupled": True}, {"momentum": 0.0}, {"batch": 9}, {"epochs": 5}):
            assert np.abs(found[task] - linear(task, **wrong)).max() > 1e-3, wrong


def test_a_cosine_head_is_trained_as_by_descent_on_directions_and_lengths():
    """Reject a gradient along the direction, which weight normalisation does not have, and other descents."""
    found = logits_of(CosineHead(CosineHeadOptions(**SETTINGS, scale=2.5)), support())
    for task in range(TASKS):
        np.testing.assert_allclose(found[task], cosine(task, 2.5), rtol=1e-8)
        for wrong in ({"tangent": False}, {"damp_first": True}, {"decoupled": True}, {"weight_decay": 0.0}):
            assert np.abs(found[task] - cosine(task, 2.5, **wrong)).max() > 1e-4, wrong


def test_many_epochs_are_drawn_in_parts(monkeypatch):
    """Reject other orders of the images, and orders of ten thousand epochs in memory."""
    monkeypatch.setattr(trained, "EPOCHS_AT_ONCE", 4)  # of 6: the second part is not whole
    found = logits_of(LinearHead(LinearHeadOptions(**SETTINGS)), support())
    for task in range(TASKS):
        np.testing.assert_allclose(found[task], linear(task), rtol=1e-9)
    monkeypatch.undo()
    head = LinearHead(LinearHeadOptions(epochs=10_000))
    images, tasks = 100, 3
    of_tasks = Support(*map(tf.zeros, ((tasks, images, 8), (tasks, images))), 5, tf.zeros((tasks, 1), tf.int32), True)
    of_tasks = of_tasks._replace(y=tf.zeros((tasks, images), tf.int32))
    fitted = tf.function(lambda: head.fit(of_tasks.x, of_tasks), autograph=False).get_concrete_function()
    assert peak_bytes(fitted) < 4 * tasks * images * 10_000  # one number for each image and epoch


@pytest.mark.parametrize(
    "head",
    [
        LinearHead(LinearHeadOptions()),
        pytest.param(CosineHead(CosineHeadOptions()), marks=pytest.mark.slow),
    ],
)
def test_a_task_is_learnt_the_same_in_any_batch_and_number_of_images(head):
    """Reject draws that depend on the place in the batch. 9 images in batches of 4 leave one of 1."""
    whole = support()
    for task in range(TASKS):
        alone = Support(*(each[task : task + 1] if tf.is_tensor(each) else each for each in whole))
        one = head.logits(head.fit(alone.x, alone), tf.constant(QUERIES[task : task + 1])).numpy()[0]
        np.testing.assert_allclose(one, logits_of(head, whole)[task], rtol=1e-9)


def test_heads_classify_what_they_were_trained_on():
    """Check with features that classes share, at the defaults of the paper's code."""
    centres = np.eye(WAY, WIDTH) * 4
    features = centres[LABELS] + GENERATOR.normal(size=(TASKS, WAY * SHOT, WIDTH)) * 0.1
    given = support()._replace(x=tf.constant(features))
    queries = tf.constant(np.tile(centres, (TASKS, 1, 1)))
    for head in (LinearHead(LinearHeadOptions()), CosineHead(CosineHeadOptions())):
        answers = head.logits(head.fit(given.x, given), queries).numpy().argmax(axis=-1)
        np.testing.assert_array_equal(answers, np.tile(np.arange(WAY), (TASKS, 1)))
