"""RL^2 by other options than those of the paper's code: shuffled passes, no limit, other targets and losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent_bandit import DependentBandit
from rl2_learner import learner, loop_of_advantages

from metarun.algorithms.networks.options import GRUOptions
from metarun.algorithms.options import RL2Options
from metarun.algorithms.rl.minibatches import Minibatches, order_of, shuffled
from metarun.algorithms.rl2 import RL2
from metarun.algorithms.workers import Workers
from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError


@pytest.fixture
def source():
    return DependentBandit(episodes=3, horizon=2, good=0.8)


def test_targets_of_td_lambda(source):
    """Reject returns, standardised advantages in the target, targets that are normalised at rate 0."""
    told = {"baseline_target": "td_lambda", "standardise_advantages": False, "baseline_normalisation_rate": 0.0}
    one = learner(source, minibatch=4, discount=0.9, gae_lambda=0.3, **told)
    trials = source.sample("train", 0, 4, seed=0)
    rollout = one.play(trials)
    batch = one.batch(rollout, trials.keys, one.parts(4))
    values, reward = one._values_of(batch.inputs).numpy()[0], rollout.reward.numpy().astype(float)
    each = [loop_of_advantages(r, v, 0.9, 0.3) for r, v in zip(reward.T, values.T, strict=True)]
    advantage = np.stack(each, axis=1)
    np.testing.assert_allclose(batch.advantage[0], advantage, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.target[0], values + advantage, rtol=1e-5, atol=1e-6)
    returns = np.stack([loop_of_advantages(r, np.zeros(6), 0.9, 1.0) for r in reward.T], axis=1)
    for wrong in (returns, values + (advantage - advantage.mean()) / advantage.std(), (returns - 1) / returns.std()):
        assert np.abs(batch.target[0] - wrong).max() > 0.05


def test_the_loss_of_the_baseline(source):
    """Reject Huber's loss with the square beyond 1, and twice the square within."""
    errors = tf.constant([-3.0, -1.0, 0.0, 0.5, 2.0], tf.float64)
    squared, huber = (learner(source, baseline_loss=kind)._baseline_error(errors) for kind in ("squared", "huber"))
    np.testing.assert_allclose(squared, [9, 1, 0, 0.25, 4])
    np.testing.assert_allclose(huber, [2.5, 0.5, 0, 0.125, 1.5])
    one = learner(source, baseline_loss="huber", minibatch=4)
    trials = source.sample("train", 0, 4, seed=0)
    batch = tf.nest.map_structure(lambda part: part[0], one.batch(one.play(trials), trials.keys, one.parts(4)))
    loss, _ = one._baseline_gradient(batch)
    expected = one._baseline_error(one._values_of(batch.inputs[None])[0] - batch.target)
    assert float(loss) == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-6)


def test_without_a_limit_the_last_pass_is_kept(source):
    """Reject the best pass, and a step that is shortened: the parameters are those after all passes, one by one."""
    trials = source.sample("train", 0, 24, seed=0)
    one = learner(source, 0.1, minibatch=12, epochs=2, kl_limit=None)
    start = [variable.numpy() for variable in one.variables]
    metrics = one.train_step(trials)
    kept = {name: value.numpy() for name, value in one.parameters.items()}
    assert metrics["step_kept"] == 1 and metrics["epoch_kept"] == 2 and metrics["kl"] > 0.01
    for variable, value in zip(one.variables, start, strict=True):
        variable.assign(value)
    batch, _ = one.collect(trials)
    for number in (0, 1, 0, 1):
        one._policy_update(Workers(0, 1), tf.nest.map_structure(lambda part, n=number: part[n], batch))
    for name, value in one.parameters.items():
        np.testing.assert_allclose(value, kept[name], atol=1e-12)


def test_weight_decay_leaves_out_layer_norm():
    """Reject decay of gains and offsets; the matrices and the head's bias are decayed."""
    told, source = [], DependentBandit(episodes=1)

    def optimizer(undecayed):
        told.append({id(variable) for variable in undecayed})
        return keras.optimizers.Adam()

    for layer_norm in (True, False):
        network = GRUOptions(units=4, weight_norm=False, layer_norm=layer_norm)
        one = RL2(source, network, optimizer, RL2Options(minibatch=2))
        for net, undecayed in zip((one.policy, one.baseline), told[-2:], strict=True):
            names = {name for name, variable in net.parameters.items() if id(variable) in undecayed}
            assert names == ({"input/gain", "bias", "recurrent/gain", "recurrent/bias"} if layer_norm else set())


def test_shuffled_minibatches_hold_every_trial_once(source):
    """Reject the same order in every pass, an order for each array, padding among the trials, an order by position.

    Seven trials in mini-batches of three: two of the last are padding.
    """
    whole, keys = Minibatches(7, 3), source.sample("train", 0, 7, seed=0).keys
    x = tf.reshape(tf.range(2 * 7, dtype=tf.float64), (2, 7))
    parts, words, weight = whole.cut(x), whole.cut(keys[None]), whole.weights(tf.float64)
    orders = []
    for number in range(3):
        new = shuffled(parts, order_of(words, weight, number)).numpy()
        assert new.shape == (3, 2, 3) and not new[2, :, 1:].any()
        order = np.transpose(new, (0, 2, 1)).reshape(9, 2)[:7]
        assert sorted(order[:, 0]) == list(range(7))
        np.testing.assert_array_equal(order[:, 1], order[:, 0] + 7)  # the steps of a trial stay together
        other = shuffled(tf.cast(parts[..., None], tf.float32), order_of(words, weight, number))[..., 0]
        np.testing.assert_array_equal(other, new)
        orders.append(order[:, 0].astype(int).tolist())
    assert len({tuple(order) for order in orders}) == 3
    turned = shuffled(whole.cut(x[:, ::-1]), order_of(whole.cut(keys[None, ::-1]), weight, 0)).numpy()
    np.testing.assert_array_equal(np.transpose(turned, (0, 2, 1)).reshape(9, 2)[:7, 0], orders[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["algorithm.shuffle=true", "algorithm.minibatch=2500"], "shuffle: has no effect: a minibatch holds all"),
        (["algorithm.kl_limit=null", "algorithm.backtracks=3"], "backtracks: has no effect without kl_limit"),
        (["network.layer_norm=true"], "layer_norm: has no use beside weight_norm"),
        (["optimizer.weight_decay=0.1", "optimizer.decay_norm=true"], "decay_norm: has no effect: .* no layer norm"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(SpecError, match=said):
        load("duan2016/mdps-rl2", changes)


def test_defaults_are_those_of_the_paper(source):
    """Reject other bits of an unset option than of its default written out."""
    told = {"shuffle": False, "standardise_advantages": True, "baseline_target": "returns", "baseline_loss": "squared"}
    trials, found = source.sample("train", 0, 4, seed=0), []
    for options in ({}, told):
        one = learner(source, minibatch=2, **options)
        batch = one.batch(one.play(trials), trials.keys, one.parts(4))
        order = one._one_pass(lambda part: part.advantage[:1, 0], batch, 1, 1)
        found.append([batch.advantage, batch.target, one._baseline_error(batch.target), order])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)
