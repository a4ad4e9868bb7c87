"""Make a classifier from support images, and classify with it: the test's own numbers, and classes of any size."""

import few_shot
import numpy as np
import pytest
import tensorflow as tf
from few_shot import OPTIONS

from metarun.algorithms.learner import Support, classify_with_scores
from metarun.algorithms.networks.options import MLPOptions
from metarun.datasets.tasks import Shape

WAY = 3
NETWORK = MLPOptions(hidden=(6,), batch_norm=True)
PLAIN = MLPOptions(hidden=(6,))


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("name", OPTIONS)
def test_classifying_is_the_last_output_of_a_test(make_source, name, protocol):
    """Reject the network before adaptation, or another task's."""
    batch = make_source(dtype="float64").sample("test", 0, 2, Shape(WAY, 2, 2), seed=0)
    model = few_shot.learner(OPTIONS[name], NETWORK, protocol, precision="float64")
    fitted = model.fit(Support.of_task(batch))
    found, expected = model.classify(fitted, batch.query_x, WAY).numpy(), model.predict(batch).numpy()[-1]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    if name in ("maml", "reptile"):
        assert np.abs(model.predict(batch).numpy()[0] - expected).max() > 1e-6


@pytest.mark.parametrize("name", OPTIONS)
def test_a_class_does_not_win_because_it_has_more_images(make_source, name):
    """Reject a mean over the images, which counts a class by their number, and another order of the labels."""
    batch = make_source(dtype="float64").sample("test", 0, 1, Shape(WAY, 2, 4), seed=0)
    once, often = [0, 1, 2, 3, 4, 5], [5, 0, 1, 0, 1, 2, 0, 1, 3, 4]  # three copies of the first class, in any order
    expected = _without_batch_norm(name, 6).predict(batch).numpy()[-1]
    for rows in (once, often):
        model = _without_batch_norm(name, len(rows))
        support = Support(
            tf.gather(batch.support_x, rows, axis=1), tf.gather(batch.support_y, rows, axis=1), WAY, batch.drawn, False
        )
        found = model.classify(model.fit(support), batch.query_x, WAY).numpy()
        np.testing.assert_allclose(_probabilities(found), _probabilities(expected), atol=1e-9)
    by_image = {"balanced": True} if name in ("maml", "reptile") else {"y": support.y[:, ::-1]}
    wrong = model.classify(model.fit(support._replace(**by_image)), batch.query_x, WAY).numpy()
    assert np.abs(_probabilities(wrong) - _probabilities(expected)).max() > 1e-6


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("name", OPTIONS)
def test_scores_are_the_largest_logits_or_the_largest_cosines(make_source, name, protocol):
    """Reject a probability: softmax does not change where all logits grow alike, and matchingnet's are such already."""
    batch = make_source(dtype="float64").sample("test", 0, 1, Shape(WAY, 2, 2), seed=0)
    model = few_shot.learner(OPTIONS[name], NETWORK, protocol, precision="float64")
    fitted = model.fit(Support.of_task(batch))
    logits, scores = classify_with_scores(model, fitted, batch.query_x, WAY)
    np.testing.assert_allclose(logits, model.classify(fitted, batch.query_x, WAY), atol=1e-12)
    expected = logits.numpy().max(axis=-1)
    if name == "matchingnet":
        supports, queries = model.embed(batch)
        known = model.summary(model.own, supports, None, WAY)["supports"]
        queries = model.embed_queries(model.own, queries, known).numpy()
        supports, queries = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (known.numpy(), queries))
        assert np.abs(scores - expected).max() > 0.01
        expected = (queries @ supports.transpose(0, 2, 1)).max(axis=-1)
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_weights_of_images_share_the_weight_of_their_class():
    support = Support(tf.zeros((1, 4, 2)), tf.constant([[0, 0, 0, 1]]), 2, tf.zeros((1, 1), tf.int32), False)
    np.testing.assert_allclose(support.weights, [[1 / 3, 1 / 3, 1 / 3, 1]])
    assert support._replace(balanced=True).weights is None


def _without_batch_norm(name, images):
    options = OPTIONS[name]
    if name == "reptile":  # every mini-batch has all images
        options = options.model_copy(update={"test_inner_batch": images})
    if name == "matchingnet":  # no LSTM, which would read every copy
        options = options.model_copy(update={"full_context_embeddings": False})
    return few_shot.learner(options, PLAIN, "inductive", precision="float64")


def _probabilities(logits):
    return tf.nn.softmax(logits).numpy()
