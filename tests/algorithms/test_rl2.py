"""RL^2: what the policy sees, advantages, PPO's gradient, the line search, learning."""

import numpy as np
import pytest
import tensorflow as tf
from recurrent_bandit import DependentBandit
from rl2_learner import learner, loop_of_advantages

from metarun.algorithms.rl.minibatches import Minibatches, mean_of_each, weighted_mean
from metarun.algorithms.rl.rollout import encode
from metarun.algorithms.rl2 import advantages, discounted_sums
from metarun.algorithms.workers import Workers


def values_of(one):
    return [variable.numpy() for variable in one.variables]


@pytest.fixture
def source():
    return DependentBandit(episodes=3, horizon=2, good=0.8)


def test_inputs_are_those_of_the_recipe(source):
    """Read observation and action before one-hot, reward raw, terminal; at first action 0, reward 0, terminal 1."""
    rollout = learner(source).play(source.sample("train", 0, 5, seed=0))
    x = encode(source.observations, source.actions, rollout.seen, tf.float64).numpy()  # [N, T, 2 + 2 + 1 + 1]
    assert x.shape == (6, 5, 6)
    np.testing.assert_array_equal(x[0], np.tile([1, 0, 1, 0, 0, 1], (5, 1)))
    np.testing.assert_array_equal(x[:, :, 5], np.tile([[1], [0], [1], [0], [1], [0]], (1, 5)))
    np.testing.assert_array_equal(x[1:, :, 3], rollout.action[:-1])
    np.testing.assert_array_equal(x[1:, :, 4], rollout.reward[:-1])
    np.testing.assert_array_equal(x[:, :, 1], np.tile([[0], [1], [0], [1], [0], [1]], (1, 5)))


def test_memory_crosses_episodes_and_not_trials(source):
    """Reject memory cleared at the end of an episode, which gives other distributions from step 2 on."""
    one = learner(source)
    trials = source.sample("train", 0, 4, seed=0)
    rollout = one.play(trials)
    x = encode(source.observations, source.actions, rollout.seen, tf.float64)
    whole = one.policy.unroll(one.policy.weights(), x)
    np.testing.assert_allclose(rollout.recorded, whole, atol=1e-6)  # what was played is what the update computes
    by_episode = tf.concat([one.policy.unroll(one.policy.weights(), x[n : n + 2]) for n in (0, 2, 4)], axis=0)
    assert np.abs(by_episode - whole)[2:].max() > 1e-3 and np.abs(by_episode - whole)[:2].max() < 1e-12
    again = one.play(trials)
    np.testing.assert_array_equal(rollout.recorded, again.recorded)  # nothing is left of the trials before
    np.testing.assert_array_equal(rollout.recorded[0, 0], rollout.recorded[0, 3])


def test_actions_are_drawn_from_the_policy():
    """Reject the most probable action. The frequency of each action is its probability."""
    source = DependentBandit(episodes=1)
    one = learner(source)
    one.parameters["head/bias"].assign([0.0, 1.0])
    rollout = one.play(source.sample("train", 0, 20_000, seed=0))
    expected = tf.nn.softmax(rollout.recorded)[0, 0, 1]
    assert 0.6 < expected < 0.85
    assert np.mean(rollout.action) == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(20_000))


def test_advantages_against_a_plain_loop():
    """Reject sums that are cut where episodes end. Advantages are summed over the whole trial."""
    generator = np.random.default_rng(0)
    reward, values = generator.normal(size=(2, 6, 3)), generator.normal(size=(2, 6, 3))
    got = advantages(tf.constant(reward), tf.constant(values), 0.9, 0.7).numpy()
    for m in range(2):
        for b in range(3):
            right = loop_of_advantages(reward[m, :, b], values[m, :, b], 0.9, 0.7)
            np.testing.assert_allclose(got[m, :, b], right, atol=1e-12)
            wrong = loop_of_advantages(reward[m, :, b], values[m, :, b], 0.9, 0.7, ends=(1, 3, 5))
            assert np.abs(got[m, :, b] - wrong).max() > 0.1


def test_discounted_sums():
    sums = discounted_sums(tf.constant([[[1.0], [2.0], [4.0]]]), 0.5).numpy().ravel()
    np.testing.assert_allclose(sums, [3.0, 4.0, 4.0])


def test_batch_is_standardised_and_its_targets_follow_the_running_moments(source):
    """Reject moments with the padding. Padding counts for nothing: 5 trials in mini-batches of 2."""
    one = learner(source, minibatch=2, baseline_normalisation_rate=0.75)
    trials = source.sample("train", 0, 5, seed=0)
    rollout = one.play(trials)
    batch = one.batch(rollout, trials.keys, one.parts(5))
    assert batch.inputs.shape == (3, 6, 2, 6) and batch.weight.numpy().tolist() == [[1, 1], [1, 1], [1, 0]]
    real = np.concatenate([batch.advantage[m, :, :n] for m, n in enumerate((2, 2, 1))], axis=1)
    assert real.mean() == pytest.approx(0, abs=1e-7) and real.std() == pytest.approx(1, abs=1e-6)
    assert abs(batch.advantage.numpy().std() - 1) > 1e-3
    returns = np.array([loop_of_advantages(r, np.zeros(6), 0.99, 1.0) for r in rollout.reward.numpy().T])
    assert one.return_mean.numpy() == pytest.approx(0.75 * returns.mean(), abs=1e-7)
    assert one.return_std.numpy() == pytest.approx(0.25 + 0.75 * returns.std(), abs=1e-7)


def test_advantages_and_targets_of_a_batch(source):
    """Reject returns as they are, outputs as they are, lambda for the discount. The baseline learns returns that are
    normalised by the moments after this batch, and its outputs are brought back by those before it."""
    one = learner(source, minibatch=4, discount=0.9, gae_lambda=0.3, baseline_normalisation_rate=0.5)
    one.return_mean.assign(3.0)
    one.return_std.assign(2.0)
    trials = source.sample("train", 0, 4, seed=0)
    rollout = one.play(trials)
    batch = one.batch(rollout, trials.keys, one.parts(4))
    outputs = one._values_of(batch.inputs).numpy()[0]
    reward = rollout.reward.numpy().astype(float)
    returns = np.stack([loop_of_advantages(r, np.zeros(6), 0.9, 1.0) for r in reward.T], axis=1)
    moved = (3 + returns.mean()) / 2, (2 + returns.std()) / 2
    np.testing.assert_allclose(batch.target[0], (returns - moved[0]) / moved[1], rtol=1e-5)

    def standardised(outputs, discount=0.9, gae_lambda=0.3):
        each = [loop_of_advantages(r, v, discount, gae_lambda) for r, v in zip(reward.T, outputs.T, strict=True)]
        told = np.stack(each, axis=1)
        return (told - told.mean()) / told.std()

    np.testing.assert_allclose(batch.advantage[0], standardised(2 * outputs + 3), rtol=1e-5, atol=1e-6)
    for wrong in (standardised(outputs), standardised(2 * outputs + 3, 0.3, 0.9)):
        assert np.abs(batch.advantage[0] - wrong).max() > 0.05


def test_minibatches_hold_every_trial_once():
    x = tf.reshape(tf.range(2 * 7, dtype=tf.float64), (2, 7))
    whole = Minibatches(7, 3)
    parts, weight, trials = whole.cut(x), whole.weights(tf.float64), whole.trials(tf.float64)
    assert parts.shape == (3, 2, 3)
    np.testing.assert_array_equal(parts[2], [[6, 0, 0], [13, 0, 0]])
    assert weighted_mean(parts, weight, trials).numpy() == tf.reduce_mean(x).numpy() != tf.reduce_mean(parts).numpy()
    mean = mean_of_each(lambda each: weighted_mean(*each)[None], (parts, weight, trials), trials, 1)
    np.testing.assert_allclose(mean, [tf.reduce_mean(x)])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_share_out_each_minibatch(count):
    """Reject means over a worker's own trials. The workers' parts add up to the mean of each minibatch. The last has
    one trial, and nothing for some workers."""
    x = tf.reshape(tf.range(2 * 7, dtype=tf.float64), (2, 7))
    wanted = [x.numpy()[:, first : first + 3].mean() for first in (0, 3, 6)]
    means, own = np.zeros(3), np.zeros(3)
    for index in range(count):
        one = Minibatches(7, 3, Workers(index, count))
        parts, weight, trials = one.cut(tf.gather(x, one.rows, axis=1)), one.weights(x.dtype), one.trials(x.dtype)
        assert parts.shape[0] == 3
        means += [weighted_mean(parts[m], weight[m], trials[m]) for m in range(3)]
        own += [np.mean(parts[m]) / count for m in range(3)]
    np.testing.assert_allclose(means, wanted)
    assert count == 1 or np.abs(own - wanted).max() > 0.1


@pytest.mark.parametrize("box", [False, True])
def test_the_gradient_is_that_of_the_clipped_objective(box):
    """Reject the gradient without the clip. Central differences in float64."""
    source = DependentBandit(episodes=4, box=box)
    one = learner(source, minibatch=64, entropy_bonus=0.1)
    trials = source.sample("train", 0, 40, seed=0)
    rollout = one.play(trials)
    batch = tf.nest.map_structure(lambda part: part[0], one.batch(rollout, trials.keys, one.parts(40)))
    generator = np.random.default_rng(1)
    for variable in one.parameters.values():  # away from the old policy, where the clip has nothing to do
        variable.assign_add(generator.normal(size=variable.shape) * 0.2)
    _, gradients = one.policy_gradient(batch)
    directions = {name: generator.normal(size=value.shape) for name, value in one.parameters.items()}

    def objective(step, clip=0.1):
        theta = {name: value + step * directions[name] for name, value in one.parameters.items()}
        changed = one.options.model_copy(update={"clip": clip})
        kept, one.options = one.options, changed
        loss = float(one.objective(theta, batch)[0])
        one.options = kept
        return loss

    def slope(clip):
        return (objective(1e-6, clip) - objective(-1e-6, clip)) / 2e-6

    analytic = sum(float(tf.reduce_sum(gradients[name] * directions[name])) for name in directions)
    assert analytic == pytest.approx(slope(0.1), rel=1e-5, abs=1e-7)
    assert abs(analytic - slope(1e9)) > 1e-2 * abs(analytic)


def test_the_objective_is_that_of_ppo():
    """Reject the larger of both gains, a bonus that is a price. Schulman et al. 2017, equation 7, less the bonus."""
    source = DependentBandit(episodes=4)
    one = learner(source, minibatch=64, entropy_bonus=0.1)
    trials = source.sample("train", 0, 40, seed=0)
    rollout = one.play(trials)
    batch = tf.nest.map_structure(lambda part: part[0], one.batch(rollout, trials.keys, one.parts(40)))
    generator = np.random.default_rng(1)
    theta = {name: value + generator.normal(size=value.shape) for name, value in one.parameters.items()}

    def log_softmax(numbers):
        return numbers - np.log(np.exp(numbers).sum(axis=-1, keepdims=True))

    old = log_softmax(batch.old.numpy())
    new = log_softmax(one.policy.unroll(one.policy.weights(theta), batch.inputs).numpy())
    taken = batch.action.numpy()[..., None].astype(int)
    ratio = np.exp(np.take_along_axis(new - old, taken, -1))[..., 0]
    gains = ratio * batch.advantage.numpy(), np.clip(ratio, 0.9, 1.1) * batch.advantage.numpy()
    entropy, kl = -(np.exp(new) * new).sum(-1), (np.exp(old) * (old - new)).sum(-1)
    loss, measures = one.objective(theta, batch)
    right = -np.minimum(*gains).mean() - 0.1 * entropy.mean()
    assert float(loss) == pytest.approx(right, rel=1e-5)
    np.testing.assert_allclose(measures, [-gains[0].mean(), kl.mean(), entropy.mean()], rtol=1e-5)
    reverse = (np.exp(new) * (new - old)).sum(-1).mean()
    assert abs(reverse - kl.mean()) > 0.01 and abs(-np.maximum(*gains).mean() - 0.1 * entropy.mean() - right) > 0.01
    assert 0.2 * entropy.mean() > 0.01


def test_the_pass_that_is_kept_is_the_best_within_the_limit(source, monkeypatch):
    """Reject the last pass within the limit, and the best of all. Four passes have these surrogates and KLs."""
    one = learner(source, epochs=4, kl_limit=0.1)
    told = tf.constant([[-1.0, 0.01, 0.5], [-3.0, 0.05, 0.5], [-2.0, 0.05, 0.5], [-9.0, 0.5, 0.5]], tf.float64)
    passes = tf.Variable(0)

    def counted(*_, **__):
        return tf.gather(told, passes.assign_add(1) - 1)

    trials = source.sample("train", 0, 4, seed=0)
    rollout = one.play(trials)
    batch = one.batch(rollout, trials.keys, one.parts(4))
    monkeypatch.setattr(one, "_one_pass", counted)
    monkeypatch.setattr(one, "_line_search", lambda *_: (tf.constant(1.0), tf.zeros(3)))
    assert int(one._improve(batch)["epoch_kept"]) == 2


def test_kl_and_entropy_agree_with_samples_of_the_gaussian():
    """Reject KL(new || old). KL(old || new) as a mean of log-ratios."""
    from metarun.algorithms.rl.distributions import DiagonalGaussian

    of, generator = DiagonalGaussian(), np.random.default_rng(0)
    old, new = tf.constant([0.3, -1.0, 0.2, -0.5], tf.float64), tf.constant([0.0, -0.5, -0.3, 0.1], tf.float64)
    draws = tf.constant([0.3, -1.0] + np.exp([0.2, -0.5]) * generator.normal(size=(200_000, 2)))
    ratio = of.log_probability(old, draws) - of.log_probability(new, draws)
    kl = float(of.kl(old, new))
    assert kl == pytest.approx(np.mean(ratio), abs=5 * np.std(ratio) / np.sqrt(200_000))
    assert abs(kl - float(of.kl(new, old))) > 0.02
    assert float(of.entropy(old)) == pytest.approx(-np.mean(of.log_probability(old, draws)), abs=0.01)


@pytest.mark.slow
def test_a_step_stays_within_the_limit(source):
    """Reject no line search, whose KL is larger. However long it was: whole (learning rate 0.003), shortened (0.3), not
    taken at all (1e6)."""
    trials = source.sample("train", 0, 24, seed=0)
    limited, free = (learner(source, minibatch=8, kl_limit=limit) for limit in (1e-3, 1e9))
    first = values_of(limited)

    def step(one, rate):
        for variable, value in zip(one.variables, first, strict=True):
            variable.assign(value)
        one.optimizer.learning_rate.assign(rate)
        return {name: float(value) for name, value in one.train_step(trials).items()}

    played = limited.play(trials)
    x = encode(source.observations, source.actions, played.seen, tf.float64)
    for rate, shares in ((0.003, [1.0]), (0.3, [0.5**n for n in range(1, 11)]), (1e6, [0.0])):
        metrics = step(limited, rate)
        now = limited.policy.unroll(limited.policy.weights(), x)
        assert np.mean(limited.distribution.kl(played.recorded, now)) == pytest.approx(metrics["kl"], abs=1e-9)
        assert metrics["kl"] <= 1e-3 and metrics["step_kept"] in shares
        assert rate == 0.003 or not step(free, rate)["kl"] <= 1e-3


@pytest.mark.slow
def test_box_actions_learn():
    source = DependentBandit(episodes=4, box=True)
    one = learner(source, precision="float32", units=16, jit=True, minibatch=64)
    for step in range(15):
        metrics = one.train_step(source.sample("train", 256 * step, 256, seed=0))
    assert float(metrics["total_reward"]) > 2.6  # chance: 2.0


@pytest.mark.slow
def test_it_learns_within_a_trial_in_one_trace():
    """Play ten pulls, where one of two arms pays: chance is 5, and without memory nothing beats it; 9.5 is the best."""
    source = DependentBandit(episodes=10)
    one = learner(source, precision="float32", units=32, jit=True, minibatch=32)
    for step in range(25):
        metrics = one.train_step(source.sample("train", 200 * step, 200, seed=0))
    assert one.compiled_iteration.experimental_get_tracing_count() == 1
    assert all(value.shape == () for value in metrics.values())
    test = one.evaluate(source.sample("test", 0, 500, seed=0))
    assert all(value.shape[0] == 500 for value in test.values())
    assert np.mean(test["total_reward"]) > 8.5
    assert np.mean(test["regret"]) == pytest.approx(10 - np.mean(test["total_reward"]), abs=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"shuffle": True, "kl_limit": None, "baseline_target": "td_lambda"},
    ],
)
def test_the_same_calls_give_the_same_bits_and_resume(source, more):
    """Reject a state with one of them left out. The whole state is in the variables: put back, they lead to the same
    bits."""
    one = learner(source, 0.02, precision="float32", jit=True, minibatch=5, **more)
    batches = [source.sample("train", 12 * step, 12, seed=0) for step in range(4)]
    states = [values_of(one)]
    for trials in batches:
        one.train_step(trials)
        states.append(values_of(one))

    def differences(start, leave_out=None):
        for number, (variable, value) in enumerate(zip(one.variables, states[start], strict=True)):
            if number != leave_out:
                variable.assign(value)
        for trials in batches[start:]:
            one.train_step(trials)
        return sum((now != then).sum() for now, then in zip(values_of(one), states[-1], strict=True))

    assert differences(0) == 0 and differences(2) == 0
    changed = [n for n, (a, b) in enumerate(zip(states[2], states[4], strict=True)) if (a != b).any()]
    assert len(changed) == len(states[0]) - 2  # all but the two learning rates
    assert all(differences(2, leave_out=number) > 0 for number in changed)


def test_operations_are_the_products_of_the_graph():
    """Check that the count is one pass and one mini-batch: the loops' bodies are in the graph once, those over steps
    too."""
    from products import products

    source = DependentBandit(episodes=1)
    one = learner(source, epochs=1, minibatch=16, backtracks=0)
    trials = source.sample("train", 0, 16, seed=0)
    counted = products(tf.function(one.iteration).get_concrete_function(trials))
    assert 16 * one.operations() == pytest.approx(counted, rel=0.03)
