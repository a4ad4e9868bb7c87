"""`maml` for a Keras model against gradients by hand, and what it keeps, takes and refuses."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import ALPHA, LABELS, dense, drawn, model_of, moved, network, relabelled, weights_of

from metarun.algorithms.keras_update import KEPT
from metarun.algorithms.maml import maml
from metarun.algorithms.networks.keras_network import KerasNetwork, exact_moments

layers, optimizers = keras.layers, keras.optimizers
L2 = 0.125  # float32 has it exactly


def cross_entropy(logits, labels):
    picked = tf.reduce_sum(logits * tf.one_hot(labels, 3, dtype=logits.dtype), axis=1)
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - picked)


def by_hand(loss, weights, tasks, steps=1, first_order=False, inner_loss=None, constraint=tf.identity):
    """Return the gradient of the mean loss after `steps` of descent, by one tape inside another.

    `constraint` is that of the first weight.
    """
    start = [tf.constant(weight) for weight in weights]
    with tf.GradientTape() as outer:
        outer.watch(start)
        each = []
        for task in range(len(tasks[0])):
            support_x, support_y, query_x, query_y = (part[task] for part in tasks)
            own = start
            for _ in range(steps):
                with tf.GradientTape() as inner:
                    inner.watch(own)
                    value = (inner_loss or loss)(own, support_x, support_y)
                slopes = inner.gradient(value, own)
                slopes = [tf.stop_gradient(slope) for slope in slopes] if first_order else slopes
                own = [weight - ALPHA * slope for weight, slope in zip(own, slopes, strict=True)]
                own[0] = constraint(own[0])
            each.append(loss(own, query_x, query_y))
        total = tf.add_n(each) / len(each)
    return [slope.numpy() for slope in outer.gradient(total, start)]


def dense_loss(kernel_penalty=0.0, activity_penalty=0.0):
    """Return the loss of `network`, with penalties as Keras adds them: of the weights, and per example."""

    def loss(weights, x, y):
        hidden = tf.tanh(x @ weights[0] + weights[1])
        penalty = kernel_penalty * tf.reduce_sum(weights[0] ** 2)
        penalty += activity_penalty * tf.reduce_sum(hidden**2) / len(x)
        return cross_entropy(hidden @ weights[2] + weights[3], y) + penalty

    return loss


def error(found, expected):
    return max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (network, "uint8"),
        (network, "column"),
        (lambda: network("softmax"), "int64"),
        (lambda: model_of(model_of(network(), layers.Softmax(dtype="float64"))), "one-hot"),
    ],
)
def test_labels_and_softmax_are_taken_as_they_are_meant(make, labels):
    """Reject first order; softmax outputs as logits."""
    tasks = drawn()
    given = relabelled(tasks, LABELS[labels])
    model = make()
    weights = weights_of(model)
    found = moved(model, given, inner_steps=2)
    loss = dense_loss()

    def twice(weights, x, y):
        return cross_entropy(tf.nn.softmax(tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]), y)

    assert error(found, by_hand(loss, weights, tasks, steps=2)) < 1e-12
    for wrong in (by_hand(loss, weights, tasks, 2, first_order=True), by_hand(twice, weights, tasks, 2)):
        assert error(found, wrong) > 1e-3


def test_the_losses_of_the_model_are_in_the_inner_and_in_the_outer_loss():
    """Reject none of them, or none in the inner or in the outer loss. The second update is as exact as the first."""
    tasks, penalties = (
        drawn(),
        {"kernel_regularizer": keras.regularizers.L2(L2), "activity_regularizer": keras.regularizers.L2(L2)},
    )
    model, loss = network(**penalties), dense_loss(L2, L2)
    outer = optimizers.SGD(1.0)
    for _ in range(2):
        weights = weights_of(model)
        found = moved(model, tasks, outer)
        assert error(found, by_hand(loss, weights, tasks)) < 1e-12
    bare = dense_loss()
    for wrong in (by_hand(bare, weights, tasks), by_hand(loss, weights, tasks, inner_loss=bare)):
        assert error(found, wrong) > 1e-3
    assert error(found, by_hand(bare, weights, tasks, inner_loss=loss)) > 1e-3
    before = weights_of(model)
    told = maml(model, optimizers.SGD(0.25), outer, tasks, inner_steps=0)
    each = [loss([tf.constant(weight) for weight in before], x, y) for x, y in zip(*tasks[2:], strict=True)]
    assert float(told) == pytest.approx(float(np.mean(each)), rel=1e-12)


@pytest.mark.parametrize(
    "outer",
    [
        lambda: optimizers.LossScaleOptimizer(optimizers.SGD(1.0)),
        lambda: optimizers.SGD(1.0, loss_scale_factor=1024.0),
    ],
)
def test_fault_10_an_optimizer_that_scales_losses_makes_steps_of_the_same_size(outer):
    """Reject steps smaller by the scale, and a meta-loss that is told with it."""
    tasks, model = drawn(), network()
    weights = weights_of(model)
    expected = by_hand(dense_loss(), weights, tasks)
    assert error(moved(model, tasks, outer()), expected) < 1e-12
    assert max(np.abs(slope).max() for slope in expected) > 1e-2
    plain = float(maml(network(), optimizers.SGD(ALPHA), optimizers.SGD(1.0), tasks))
    assert float(maml(network(), optimizers.SGD(ALPHA), outer(), tasks)) == pytest.approx(plain, rel=1e-12)


def test_fault_10_half_precision_moves_as_far_as_single_precision():
    """Take the optimizer that Keras wraps by itself. A step that overflows leaves weights and averages finite."""
    tasks, steps, start = drawn(dtype=np.float32), {}, None
    for policy in ("mixed_float16", "float32"):
        parts = [layers.Dense(4, "tanh", dtype=policy), layers.BatchNormalization(dtype=policy)]
        model = model_of(*parts, layers.Dense(3, dtype=policy), dtype="float32")
        start = start or model.get_weights()
        model.set_weights(start)
        model.compile(optimizers.SGD(1.0), "mse")
        if policy == "mixed_float16":
            model.compile(optimizers.LossScaleOptimizer(optimizers.SGD(1.0), initial_scale=2.0**40), "mse")
        while True:
            before = weights_of(model)
            assert np.isfinite(float(maml(model, optimizers.SGD(ALPHA), model.optimizer, tasks))) or policy != "float32"
            steps[policy] = [old - new for old, new in zip(before, weights_of(model), strict=True)]
            assert all(np.isfinite(weight).all() for weight in model.get_weights())
            if any(step.any() for step in steps[policy]):
                break
    largest = max(np.abs(step).max() for step in steps["float32"])
    assert error(steps["mixed_float16"], steps["float32"]) < 0.03 * largest


def test_fault_10_recurrent_layers_are_exact():
    """Compare LSTM with its equations by hand. Rejected: first order."""
    tasks = drawn(tasks=2, shape=(3, 2))
    model = model_of(layers.LSTM(2, dtype="float64"), dense(3), shape=(3, 2))
    weights = weights_of(model)

    def loss(weights, x, y):
        kernel, recurrent, bias, last, offset = weights
        hidden = cell = tf.zeros((len(x), 2), tf.float64)
        for step in range(3):
            gates = x[:, step] @ kernel + hidden @ recurrent + bias
            let_in, forget, candidate, let_out = tf.split(gates, 4, axis=1)
            cell = tf.sigmoid(forget) * cell + tf.sigmoid(let_in) * tf.tanh(candidate)
            hidden = tf.sigmoid(let_out) * tf.tanh(cell)
        return cross_entropy(hidden @ last + offset, y)

    found = moved(model, tasks)
    assert error(found, by_hand(loss, weights, tasks)) < 1e-12
    assert error(found, by_hand(loss, weights, tasks, first_order=True)) > 1e-4


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_fault_10_recurrent_layers_are_refused_only_where_they_draw(kind):
    """Reject a layer that could draw random numbers, and does not, told to draw them."""
    layer = getattr(layers, kind)
    KerasNetwork(model_of(layer(2, dtype="float64"), dense(3), shape=(3, 2)))
    for rate, refused in (("dropout", KerasNetwork), ("recurrent_dropout", lambda m: moved(m, drawn(shape=(3, 2))))):
        model = model_of(layer(2, dtype="float64", name="drawing", **{rate: 0.1}), dense(3), shape=(3, 2))
        with pytest.raises(ValueError, match="remove drawing: it draws random numbers.* rates to 0"):
            refused(model)


class Counting(layers.Layer):
    """Count how often Python calls it, which is when it is traced."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def test_an_update_is_traced_once_and_again_only_for_what_is_new():
    """Reject a trace per call, per inner optimizer, per learning rate or per size; one that misses what changed."""
    counting = Counting(dtype="float64")
    model, tasks = model_of(counting, dense(4, "tanh", name="first"), dense(3)), drawn()
    outer, counts, counting.calls = optimizers.SGD(1.0), [], 0

    def call(tasks, rate=ALPHA):
        before = weights_of(model)
        maml(model, optimizers.SGD(rate), outer, tasks)
        counts.append(counting.calls)
        return [old - new for old, new in zip(before, weights_of(model), strict=True)]

    for rate in (ALPHA, ALPHA, 0.5):
        weights = weights_of(model)
        slope = call(tasks, rate)
    assert error(slope, by_hand(dense_loss(), weights, tasks)) > 1e-3  # with another rate
    assert counts == [counts[0]] * 3 and counts[0] > 0
    for size in (2, 4, 5, 6):
        sized = drawn(tasks=size, supports=size, queries=size + 1)
        weights = weights_of(model)
        assert error(call(sized), by_hand(dense_loss(), weights, sized)) < 1e-12
    assert len(set(counts[3:])) <= 2  # the sizes, then any sizes
    before = counting.calls
    for setting in ("clip", "frozen", "as before"):
        outer.global_clipnorm = 1e-3 if setting == "clip" else None
        model.get_layer("first").trainable = setting != "frozen"
        slope = call(tasks)
        if setting == "clip":
            assert np.sqrt(sum((each**2).sum() for each in slope)) == pytest.approx(1e-3)
        assert len(slope) == (2 if setting == "frozen" else 4)
    assert counting.calls == before + 2 * counts[0]


def test_it_is_the_same_inside_a_function_of_tensorflow():
    """Trace a loop over tasks of a data set whose number is not known. Rejected: a loop that learns not."""
    tasks, outside, inside = drawn(tasks=4), network(), network()
    inner, outer, other = optimizers.SGD(ALPHA), optimizers.Adam(0.1), optimizers.Adam(0.1)

    @tf.function
    def epoch(model, outer):
        loss = tf.constant(0.0, tf.float64)
        for batch in tf.data.Dataset.from_tensor_slices(tasks).batch(3):
            loss = maml(model, inner, outer, batch)
        return loss

    loss = epoch(inside, outer)
    for start, end in ((0, 3), (3, 4)):
        expected = maml(outside, inner, other, tuple(part[start:end] for part in tasks))
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert error(weights_of(inside), weights_of(outside)) < 1e-12
    assert error(weights_of(inside), weights_of(network())) > 0.1


def test_what_is_kept_ends_with_the_model_and_with_the_optimizer(tmp_path):
    model, inner, outer = network(), optimizers.SGD(ALPHA), optimizers.Adam(0.1)
    maml(model, inner, outer, drawn())
    maml(model, inner, other := optimizers.SGD(0.1), drawn())
    assert len(getattr(model, KEPT)) == 2
    gone = weakref.ref(outer)
    del outer
    gc.collect()
    assert gone() is None and len(getattr(model, KEPT)) == 1
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert error(weights_of(copy), weights_of(model)) == 0 and not hasattr(copy, KEPT)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert float(other.learning_rate) == pytest.approx(0.1)


def test_several_inputs_and_equal_names():
    """Compare both with the update of one plain model. Rejected: layers of one name that share their weights."""
    tasks = drawn()
    expected = moved(network(), tasks)

    class Twins(keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.one, self.other = dense(4, "tanh", name="twin"), dense(3, name="twin")

        def call(self, x):
            return self.other(self.one(x))

    twins = Twins()
    twins(tasks[0][0])
    assert len({variable.path for variable in twins.trainable_variables}) == 2
    assert len(KerasNetwork(twins).parameters) == 4
    left, right = keras.Input((1,), dtype="float64", name="left"), keras.Input((2,), dtype="float64", name="right")
    joined = layers.Concatenate(dtype="float64")([left, right])
    two = keras.Model([left, right], dense(3)(dense(4, "tanh")(joined)))
    split = [(x[..., :1], x[..., 1:]) for x in tasks[::2]]
    named = [{"left": one, "right": other} for one, other in split]
    start = weights_of(network())
    for model, supports, queries in (
        (twins, tasks[0], tasks[2]),
        (two, *split),
        (two, *named),
    ):
        model.set_weights(start)
        assert error(moved(model, (supports, tasks[1], queries, tasks[3])), expected) < 1e-12


def test_moving_averages_follow_the_queries_of_adapted_models():
    """Find `predict` near the training mode afterwards. Rejected: averages at 0 and 1; those of the support set."""
    momentum, epsilon = 0.75, 1e-3
    norm = layers.BatchNormalization(momentum=momentum, epsilon=epsilon, dtype="float64")
    model, tasks = model_of(dense(4), norm, dense(3)), drawn(queries=40)
    tasks = (3 * tasks[0] + 2, tasks[1], 3 * tasks[2] + 2, tasks[3])
    weights = weights_of(model)

    def normalised(weights, x):
        hidden = x @ weights[0] + weights[1]
        mean, variance = tf.reduce_mean(hidden, 0), tf.math.reduce_variance(hidden, 0)
        return (hidden - mean) / tf.sqrt(variance + epsilon) * weights[2] + weights[3], mean, variance

    def loss(weights, x, y):
        return cross_entropy(normalised(weights, x)[0] @ weights[4] + weights[5], y)

    outer = optimizers.SGD(1.0)
    assert error(moved(model, tasks, outer), by_hand(loss, weights, tasks)) < 1e-12
    means, variances = [], []
    for support_x, support_y, query_x, _ in zip(*tasks, strict=True):
        own = [tf.constant(weight) for weight in weights]
        with tf.GradientTape() as tape:
            tape.watch(own)
            value = loss(own, support_x, support_y)
        own = [w - ALPHA * slope for w, slope in zip(own, tape.gradient(value, own), strict=True)]
        _, mean, variance = normalised(own, query_x)
        means.append(mean), variances.append(variance)
    found = [norm.moving_mean.numpy(), norm.moving_variance.numpy()]
    expected = [0.25 * np.mean(means, axis=0), 0.75 + 0.25 * np.mean(variances, axis=0)]
    assert error(found, expected) < 1e-12
    outer.learning_rate = 0.0
    before = model.predict(tasks[2][0], verbose=0)
    for _ in range(20):
        maml(model, optimizers.SGD(ALPHA), outer, tasks)
    training = model(tasks[2][0], training=True).numpy()
    distances = [np.abs(each - training).mean() for each in (model.predict(tasks[2][0], verbose=0), before)]
    assert distances[0] < 0.3 * distances[1]


def test_other_threads_have_the_moments_of_tensorflow():
    """Reject a replaced function, which another thread would use while a model is applied here."""
    x, original, found = tf.constant([[1.0], [2.0], [4.0]]), tf.nn.moments, {}

    def second_derivative(name):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                variance = tf.nn.moments(x, [0])[1]
            slope = inner.gradient(variance, x)
        found[name] = outer.gradient(slope, x).numpy().ravel()

    with exact_moments():
        assert tf.nn.moments is original
        second_derivative("here")
        thread = threading.Thread(target=second_derivative, args=("there",))
        thread.start(), thread.join()
    second_derivative("afterwards")
    np.testing.assert_allclose(found["here"], 0.0, atol=1e-6)  # the sum over a row of 2/n (1 - 1/n) and -2/n^2
    np.testing.assert_allclose(found["there"], 2 / 3, atol=1e-6)
    np.testing.assert_allclose(found["afterwards"], 2 / 3, atol=1e-6)


def test_the_optimizers_and_constraints_act_as_in_keras():
    """Reject an outer schedule that stands still, a constraint that is dropped in the inner or the outer step."""
    tasks, rates = drawn(), optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    model, outer = network(), optimizers.SGD(rates)
    for rate in (1.0, 0.5, 0.25):
        weights = weights_of(model)
        expected = [rate * slope for slope in by_hand(dense_loss(), weights, tasks)]
        assert error(moved(model, tasks, outer), expected) < 1e-7  # a schedule computes in float32
    model = network(kernel_constraint="non_neg")
    model.layers[0].kernel.assign(np.full((3, 4), 0.01))
    weights = weights_of(model)
    moved(model, tasks)
    for constraint, right in ((tf.nn.relu, True), (tf.identity, False)):
        slopes = by_hand(dense_loss(), weights, tasks, constraint=constraint)
        expected = [weight - slope for weight, slope in zip(weights, slopes, strict=True)]
        expected[0] = expected[0].clip(0)
        assert (error(weights_of(model), expected) < 1e-12) == right
    assert (weights_of(model)[0] == 0).any()


@pytest.mark.usefixtures("eagerly")
def test_it_runs_without_tracing():
    """Step by step in Python, for a debugger. Rejected: softmax as logits, which only a trace would show."""
    tasks, model = drawn(), network("softmax")
    weights = weights_of(model)
    assert error(moved(model, tasks), by_hand(dense_loss(), weights, tasks)) < 1e-12
    with pytest.raises(ValueError, match="ends in a sigmoid"):
        moved(network("sigmoid"), tasks)
