"""Heads in closed form, against plain numpy."""

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.heads.closed import CentroidHead, RidgeHead, SimilarityHead, distances, ridge
from metarun.algorithms.heads.options import CentroidHeadOptions, RidgeHeadOptions, SimilarityHeadOptions
from metarun.algorithms.learner import Support
from metarun.algorithms.memory import peak_bytes

TASKS, WAY, SHOT = 2, 3, 2
LABELS = np.repeat(np.arange(WAY), SHOT)


def data(width, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(TASKS, WAY * SHOT, width)) + 1, generator.normal(size=(TASKS, 4, width)) + 1


def support(x, labels=LABELS, balanced=True):
    y = np.tile(labels, (TASKS, 1)).astype(np.int32)
    return Support(tf.constant(x), tf.constant(y), WAY, tf.constant(np.zeros((TASKS, 1), np.int32)), balanced)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("features", ["UN", "L2N", "CL2N"])
def test_nearest_centroids_of_transformed_features(features):
    """Reject class means that are normalised again, and centring after the division."""
    supports, queries = data(5)
    mean = np.full(5, 0.7)
    head = CentroidHead(CentroidHeadOptions(features=features))
    fitted = head.fit(tf.constant(supports), support(supports), tf.constant(mean))
    found = softmax(head.logits(fitted, tf.constant(queries)).numpy())

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def expected(task, again=False, late=False):
        change = {"UN": lambda x: x, "L2N": unit, "CL2N": lambda x: unit(x) - mean if late else unit(x - mean)}[
            features
        ]
        means = np.array([change(supports[task])[k == LABELS].mean(axis=0) for k in range(WAY)])
        means = unit(means) if again else means
        return softmax(-((change(queries[task])[:, None] - means) ** 2).sum(axis=-1))

    for task in range(TASKS):
        np.testing.assert_allclose(found[task], expected(task), rtol=1e-9)
        assert np.abs(found[task] - expected(task, again=True)).max() > 1e-4
        if features == "CL2N":
            assert np.abs(found[task] - expected(task, late=True)).max() > 1e-4


def test_distances_keep_their_digits_and_little_memory():
    """Reject products of queries and means in float32, and differences from all classes at once."""
    generator = np.random.default_rng(0)
    queries, centroids = (300 + generator.normal(size=(2, n, 1000)).astype(np.float32) for n in (15, 20))
    found = distances(tf.constant(queries), tf.constant(centroids)).numpy()
    expected = ((queries[:, :, None].astype(np.float64) - centroids[:, None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    squares = (queries**2).sum(axis=-1)[:, :, None] + (centroids**2).sum(axis=-1)[:, None]
    assert np.abs(squares - 2 * queries @ centroids.transpose(0, 2, 1) - expected).max() > 1
    traced = tf.function(distances).get_concrete_function(*map(tf.TensorSpec, (queries.shape, centroids.shape)))
    assert peak_bytes(traced) < 3 * (queries.nbytes + centroids.nbytes) < 20 * queries.nbytes


@pytest.mark.parametrize("width", [3, 5, 20])  # 6 images: more than features, as many as with the ones, fewer
def test_ridge_regression_in_both_forms(width):
    """Reject a penalty that does not grow with the images, no column of ones, and a bias without penalty."""
    supports, queries = data(width)
    head = RidgeHead(RidgeHeadOptions(penalty=0.4, scale=3.0))
    found = head.logits(head.fit(tf.constant(supports), support(supports)), tf.constant(queries)).numpy()
    y = np.eye(WAY)[LABELS]
    for task in range(TASKS):
        x = np.concatenate([supports[task], np.ones((WAY * SHOT, 1))], axis=1)
        asked = np.concatenate([queries[task], np.ones((4, 1))], axis=1)
        penalty = 0.4 * WAY * SHOT * np.eye(width + 1)
        np.testing.assert_allclose(found[task], 3 * asked @ np.linalg.solve(x.T @ x + penalty, x.T @ y), rtol=1e-9)
        small = np.linalg.solve(x.T @ x + 0.4 * np.eye(width + 1), x.T @ y)
        free = penalty.copy()
        free[-1, -1] = 0
        without = np.linalg.solve(supports[task].T @ supports[task] + penalty[:-1, :-1], supports[task].T @ y)
        for wrong in (asked @ small, asked @ np.linalg.solve(x.T @ x + free, x.T @ y), queries[task] @ without):
            assert np.abs(found[task] - 3 * wrong).max() > 1e-3


@pytest.mark.parametrize("width", [2, 64])
def test_a_tiny_penalty_and_equal_images_or_features_have_a_solution(width):
    """Compare with the least penalty in float64; reject a matrix that rounding leaves without a factor."""
    supports, queries = (10 * each.astype(np.float32) for each in data(width))
    supports[:, 1] = supports[:, 0]
    supports[..., 1] = supports[..., 0]
    head = RidgeHead(RidgeHeadOptions(penalty=1e-12, scale=1.0))
    found = head.logits(head.fit(tf.constant(supports), support(supports)), tf.constant(queries)).numpy()
    y = np.eye(WAY)[LABELS]
    for task in range(TASKS):
        x = np.concatenate([supports[task].astype(np.float64), np.ones((WAY * SHOT, 1))], axis=1)
        asked = np.concatenate([queries[task], np.ones((4, 1))], axis=1)
        kernel = x @ x.T + 2.0**-19 * (x * x).sum() * np.eye(len(x))
        np.testing.assert_allclose(found[task], asked @ x.T @ np.linalg.solve(kernel, y), atol=0.05)


@pytest.mark.parametrize("width", [3, 20])
def test_ridge_regression_has_the_right_gradient(width):
    """Compare with differences; reject the gradient of weights that are taken for constants."""
    supports, queries = (tf.constant(each) for each in data(width))
    labels = tf.one_hot(np.tile(LABELS, (TASKS, 1)), WAY, dtype=tf.float64)
    targets = tf.constant(np.random.default_rng(3).normal(size=(TASKS, 4, WAY)))
    penalty = tf.constant(0.7, tf.float64)

    def loss(x, still=False):
        weights = ridge(x, labels, None, penalty)
        weights = tf.stop_gradient(weights) if still else weights
        asked = tf.concat([queries + tf.reduce_mean(x, axis=1, keepdims=True), tf.ones((TASKS, 4, 1), tf.float64)], -1)
        return tf.reduce_sum(targets * (asked @ weights))

    gradients = []
    for still in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(supports)
            value = loss(supports, still)
        gradients.append(tape.gradient(value, supports).numpy())
    for place in ((0, 0, 0), (1, 4, width - 1)):
        step = np.zeros(supports.shape)
        step[place] = 1e-5
        difference = (loss(supports + step) - loss(supports - step)).numpy() / 2e-5
        np.testing.assert_allclose(gradients[0][place], difference, rtol=1e-6)
        assert abs(gradients[1][place] - difference) > 1e-4


def test_similarities_weight_the_labels():
    """Reject the cosine to the class mean, which long features decide."""
    supports, queries = data(5)
    supports[:, ::2] *= 5
    head = SimilarityHead(SimilarityHeadOptions(scale=2.0))
    found = head.logits(head.fit(tf.constant(supports), support(supports)), tf.constant(queries)).numpy()
    for task in range(TASKS):
        unit = supports[task] / np.linalg.norm(supports[task], axis=1, keepdims=True)
        asked = queries[task] / np.linalg.norm(queries[task], axis=1, keepdims=True)
        expected = np.stack([2 * (asked @ unit[k == LABELS].T).mean(axis=1) for k in range(WAY)], axis=1)
        np.testing.assert_allclose(found[task], expected, rtol=1e-9)
        means = np.stack([supports[task][k == LABELS].mean(axis=0) for k in range(WAY)])
        wrong = 2 * asked @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        assert np.abs(found[task] - wrong).max() > 1e-2
