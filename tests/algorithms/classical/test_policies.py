"""Classical opponents: each rule on a case solved by hand, and whole trials against the published tables."""

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.classical import bandits as bandit_policies
from metarun.algorithms.classical import mdps as mdp_policies
from metarun.algorithms.classical import options
from metarun.algorithms.classical.bandits import RULES, Counts, rule_parameter
from metarun.algorithms.classical.mdps import PLANS, Experience, MDPPolicy, Situation, optimistic_expectation
from metarun.algorithms.classical.policy import ClassicalPolicy
from metarun.algorithms.rl.rollout import Seen
from metarun.datasets import bandits, mdps
from metarun.datasets.options import BanditsOptions, MDPsOptions
from metarun.datasets.random import TaskKeys

CLASSES = {
    entry.model_fields["name"].default: entry
    for entry in vars(options).values()
    if isinstance(entry, type) and issubclass(entry, options.ClassicalOptions) and "name" in entry.model_fields
}
TASKS = 20_000
KEYS = TaskKeys.of_stream(0, "train", 0, TASKS)
MDPS = mdps.build(MDPsOptions(states=3, actions=2, horizon=3, episodes=4))


def counts(successes, failures, tasks=1):
    parts = (np.tile(np.array(part, np.float32), (tasks, 1)) for part in (successes, failures))
    return Counts(*map(tf.constant, parts))


def arms(name, parameter, successes, failures, number=10, tasks=1):
    keys = TaskKeys(tuple(word[:tasks] for word in KEYS.key))
    return RULES[name](counts(successes, failures, tasks), tf.constant(number), keys, tf.constant(parameter)).numpy()


def test_every_method_has_options_and_a_rule_for_the_datasets_that_it_names():
    play = {"bandits": {*RULES, "random"}, "mdps": {*PLANS, "random"}}
    for dataset, names in play.items():
        assert {name for name, entry in CLASSES.items() if dataset in entry.grids} == names
    for entry in CLASSES.values():
        assert (entry.parameter is None) == (not issubclass(entry, options.TunedOptions))
        assert all(bool(grid) == (entry.parameter is not None) for grid in entry.grids.values())


def test_counts_follow_what_was_seen():
    seen = Seen(tf.zeros(2, tf.int32), tf.constant([1, 0]), tf.constant([1.0, 0.0]), tf.ones(2, tf.bool))
    start = counts([0, 0], [0, 0], tasks=2)
    after = start.after(seen, tf.constant(1))
    np.testing.assert_array_equal(after.successes, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(after.failures, [[0, 0], [1, 0]])
    before = start.after(seen, tf.constant(0))  # wrong variant: the action 0 that stands before the first step counts
    assert float(tf.reduce_sum(before.failures + before.successes)) == 0


def test_greedy_takes_the_best_mean_and_the_first_of_equals():
    assert arms("greedy", 0.0, [0, 2, 1], [0, 1, 0]) == [2]  # 1/2, 3/5, 2/3; wrong variant: s / n has 0/0, 2/3, 1
    assert arms("greedy", 0.0, [0, 9, 2], [0, 2, 0]) == [1]  # 10/13 against 3/4; wrong variant: 9/11 against 1
    assert arms("greedy", 0.0, [0, 1, 1], [0, 0, 0]) == [1]


def test_epsilon_greedy_explores_with_probability_epsilon():
    drawn = np.bincount(arms("epsilon_greedy", 0.4, [0, 0, 5, 0], [1, 1, 1, 1], tasks=TASKS), minlength=4) / TASKS
    np.testing.assert_allclose(drawn, [0.1, 0.1, 0.7, 0.1], atol=0.013)
    # wrong variant: the best arm is left out when exploring: 0.6


def test_ucb1_index():
    """Compare by hand, t = 20: 0.7 + 0.5 sqrt(2 ln 20 / 10) = 1.087 against 0.5 + 0.5 sqrt(2 ln 20 / 4) = 1.112."""
    assert arms("ucb1", 0.5, [6, 1], [2, 1], number=20) == [1]
    assert arms("ucb1", 0.4, [6, 1], [2, 1], number=20) == [0]  # 1.010 against 0.990
    assert arms("ucb1", 0.5, [6, 1], [2, 1], number=10) == [0]  # 1.039 against 1.037: t is the number of the pull


def test_thompson_sampling_takes_an_arm_as_often_as_it_is_best():
    """Check that Beta(2, 1) is above Beta(1, 1) with probability 2/3."""
    share = arms("thompson_sampling", 1.0, [0, 1], [0, 0], tasks=TASKS).mean()
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / TASKS)
    assert arms("greedy", 1.0, [0, 1], [0, 0], tasks=TASKS).mean() == 1  # wrong variant


def test_optimistic_thompson_sampling_takes_the_densest_draw():
    """Compare Beta(3, 1) with Beta(1, 1): the density grows with the first arm's draw, so that of two draws the larger
    first counts: E max = 6/7. Wrong variant: the larger draw of each arm, 6/8."""
    share = 1 - arms("optimistic_thompson_sampling", 2.0, [2, 0], [0, 0], tasks=TASKS).mean()
    close = 4 * np.sqrt(6 / 49 / TASKS)
    assert abs(share - 6 / 7) < close < 6 / 7 - 6 / 8
    alone = 1 - arms("optimistic_thompson_sampling", 1.0, [2, 0], [0, 0], tasks=TASKS).mean()
    assert abs(alone - 3 / 4) < 4 * np.sqrt(3 / 16 / TASKS)


def test_gittins_finds_its_place_in_large_tables():
    """Find 16,800,001, which is no float32: the next one has another index."""
    counts, size = Counts(tf.constant([[4000.0]]), tf.constant([[1.0]])), 4200
    table = tf.tensor_scatter_nd_update(tf.zeros((size, size)), [[4000, 1]], [7.0])
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandit_policies, "_best", lambda index: found.append(float(index[0, 0])))
        bandit_policies.gittins(counts, None, None, table)
    assert found == [7.0]


def test_gittins_prefers_the_arm_that_it_knows_less():
    source = bandits.build(BanditsOptions(arms=2, pulls=12))
    table = rule_parameter("gittins", 0.99, source)
    pulls = counts([6, 0], [4, 0])  # means 7/12 and 1/2
    assert RULES["gittins"](pulls, tf.constant(10), KEYS, table).numpy() == [1]
    assert RULES["greedy"](pulls, tf.constant(10), KEYS, table).numpy() == [0]
    known = counts([11, 0], [0, 1])
    assert RULES["gittins"](known, tf.constant(12), KEYS, table).numpy() == [0]


def experience():
    """Return the experience of a trial in which some of 3 x 2 pairs were seen."""
    visits = np.array([[[3, 1], [0, 2], [1, 0]]], np.float32)
    rewards = np.array([[[4.5, -1], [0, 1], [2, 0]]], np.float32)
    moves = np.zeros((1, 3, 2, 3), np.float32)
    moves[0, 0, 0], moves[0, 0, 1], moves[0, 1, 1] = [0, 2, 1], [0, 0, 1], [1, 0, 0]
    return Experience(*map(tf.constant, (visits, rewards, moves)))


def planned(name, prior_mean, parameter, episode=0):
    keys = TaskKeys.of_stream(0, "train", 0, 1)
    now = Situation(MDPS, experience(), tf.constant(episode), keys, prior_mean, tf.constant(parameter))
    return PLANS[name](now)[0].numpy()


def backwards(rewards, transitions, bonus=0.0):
    """Compute values [H, S, A] in plain numpy, with `bonus` times the number of steps that follow."""
    after, values = np.zeros(3), []
    for follow in range(3):
        values.insert(0, rewards + transitions @ after + bonus * follow)
        after = values[0].max(axis=1)
    return np.array(values)


def estimates(mean, weight, concentration):
    visits, rewards, moves = (part[0].numpy().astype(float) for part in experience())
    transitions = concentration + moves
    return (mean * weight + rewards) / (weight + visits), transitions / transitions.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("prior_mean", [0.0, 1.0])
def test_greedy_plans_with_the_estimates(prior_mean):
    values = planned("greedy", prior_mean, 1.0)
    right = backwards(*estimates(prior_mean, 1e-4, 1e-4))
    np.testing.assert_allclose(values, right, rtol=1e-4)
    assert np.abs(values - backwards(*estimates(1 - prior_mean, 1e-4, 1e-4))).max() > 0.5  # wrong variant: other mean
    assert np.abs(values - backwards(*estimates(prior_mean, 1, 1))).max() > 0.1  # wrong variant: the full prior


def test_exploration_bonus():
    values = planned("beb", 0.0, 0.01)
    visits, _, moves = experience()
    rewards, transitions = estimates(0.0, 1, 1)
    rewards = rewards + 1 / (2 + visits[0].numpy())
    bonus = 2 * 0.01 * 3**3 / (1 + 3 + moves[0].numpy().sum(axis=-1))
    np.testing.assert_allclose(values, backwards(rewards, transitions, bonus), rtol=1e-5)
    assert np.abs(values - backwards(rewards + bonus, transitions)).max() > 0.05  # wrong variant: a bonus on every step


def test_posterior_sampling_has_the_posteriors_moments():
    source = mdps.build(MDPsOptions(states=3, actions=2, horizon=1))
    many = Experience(*(tf.repeat(part, TASKS, axis=0) for part in experience()))
    values = {
        samples: PLANS["psrl"](Situation(source, many, tf.constant(0), KEYS, 0.0, tf.constant(samples))).numpy()[:, 0]
        for samples in (1.0, 2.0)
    }
    mean, deviation = estimates(0.0, 1, 1)[0], 1 / np.sqrt(1 + experience()[0][0].numpy())
    np.testing.assert_allclose(values[1.0].mean(axis=0), mean, atol=4 / np.sqrt(TASKS))
    np.testing.assert_allclose(values[1.0].std(axis=0), deviation, rtol=0.03)
    # the larger of two normal numbers: + deviation / sqrt(pi); wrong variant: the same draw twice
    np.testing.assert_allclose(values[2.0].mean(axis=0), mean + deviation / np.sqrt(np.pi), atol=4 / np.sqrt(TASKS))


def test_posterior_transitions_are_dirichlet():
    prior = mdp_policies.Prior.of(MDPS, 0.0)
    many = Experience(*(tf.repeat(part, TASKS, axis=0) for part in experience()))
    drawn = prior.draw(many, KEYS)[1].numpy()[:, 0, 0]  # Dirichlet(1, 3, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), [1 / 6, 1 / 2, 1 / 3], atol=0.006)
    np.testing.assert_allclose(drawn.var(axis=0), [5 / 252, 9 / 252, 8 / 252], rtol=0.05)


def moved_by_hand(probabilities, width, after):
    """Compute the best expected value of `after` within the width, as in figure 2 of Jaksch, Ortner and Auer (2010)."""
    order, moved = np.argsort(-after), probabilities.astype(float).copy()
    moved[order[0]] = min(1, moved[order[0]] + width / 2)
    for state in order[::-1]:
        if moved.sum() > 1:
            moved[state] = max(0, 1 - moved.sum() + moved[state])
    return moved @ after


def test_optimistic_expectation_is_that_of_the_papers_procedure():
    generator = np.random.default_rng(0)
    transitions = generator.dirichlet(np.ones(5), (4, 5, 3)).astype(np.float32)
    width = generator.uniform(0, 2.5, (4, 5, 3)).astype(np.float32)
    after = generator.normal(size=(4, 5)).astype(np.float32)
    result = optimistic_expectation(*map(tf.constant, (transitions, width, after))).numpy()
    for place in np.ndindex(4, 5, 3):
        right = moved_by_hand(transitions[place], width[place], after[place[0]])
        assert result[place] == pytest.approx(right, abs=1e-5)
    plain = np.einsum("tsan,tn->tsa", transitions, after)
    assert (result >= plain - 1e-5).all()
    whole = optimistic_expectation(tf.constant(transitions), tf.constant(2 * width), tf.constant(after)).numpy()
    assert np.abs(result - whole).max() > 0.1  # wrong variant: the whole width moves


def test_ucrl2_widths():
    """Check that values without width are those of the estimates; the last step shows the reward's width alone."""
    np.testing.assert_allclose(planned("ucrl2", 0.0, 0.0), backwards(*estimates(0.0, 1e-4, 1e-5)), rtol=1e-4, atol=1e-5)
    last = planned("ucrl2", 0.0, 0.1, episode=4)[2]
    visits = np.maximum(experience()[0][0].numpy(), 1)
    right = estimates(0.0, 1e-4, 1e-5)[0] + 0.1 * np.sqrt(4 * np.log(2 * 3 * 2 * 6 / 0.05) / visits)
    np.testing.assert_allclose(last, right, rtol=1e-4)


def test_ucrl2_plans_with_the_width_of_the_transitions():
    """Reject visits for the moves seen, 8 for 4, no factor of the number of states. The step before the last."""
    visits, _, moves = (part[0].numpy().astype(float) for part in experience())
    rewards, transitions = estimates(0.0, 1e-4, 1e-5)
    logarithm = np.log(2 * 3 * 2 * 2 / 0.05)
    rewards = rewards + 0.1 * np.sqrt(4 * logarithm / np.maximum(visits, 1))
    after = rewards.max(axis=1)

    def planned_by_hand(seen, factor):
        width = 0.1 * np.sqrt(factor * logarithm / np.maximum(seen, 1))
        optimistic = [moved_by_hand(transitions[place], width[place], after) for place in np.ndindex(3, 2)]
        return rewards + np.reshape(optimistic, (3, 2))

    values = planned("ucrl2", 0.0, 0.1)[1]
    np.testing.assert_allclose(values, planned_by_hand(moves.sum(axis=-1), 4 * 3), rtol=1e-3)
    for wrong in ((visits, 4 * 3), (moves.sum(axis=-1), 8 * 3), (moves.sum(axis=-1), 4)):
        assert np.abs(values - planned_by_hand(*wrong)).max() > 0.02


def test_experience_counts_no_move_at_the_end_of_an_episode_and_nothing_before_the_first_step():
    start = MDPPolicy(MDPS, PLANS["greedy"], 0.0, tf.constant(1.0)).start(2).experience
    seen = Seen(tf.constant([2, 0]), tf.constant([1, 1]), tf.constant([3.0, 4.0]), tf.constant([False, True]))
    after = start.after(tf.constant([1, 2]), seen, tf.constant(3))
    assert after.visits.numpy()[0, 1, 1] == after.visits.numpy()[1, 2, 1] == 1 and after.visits.numpy().sum() == 2
    assert after.rewards.numpy()[0, 1, 1] == 3 and after.rewards.numpy()[1, 2, 1] == 4
    assert after.moves.numpy()[0, 1, 1, 2] == 1 and after.moves.numpy().sum() == 1  # wrong variant: 2
    assert sum(part.numpy().sum() for part in start.after(tf.constant([1, 2]), seen, tf.constant(0))) == 0


def test_equal_values_are_chosen_at_random():
    source = mdps.build(MDPsOptions(states=2, actions=4, horizon=2, episodes=1))
    policy = MDPPolicy(source, PLANS["greedy"], 0.0, tf.constant(1.0))
    zeros = tf.zeros(TASKS, tf.int32)
    seen = Seen(zeros, zeros, tf.zeros(TASKS), tf.ones(TASKS, tf.bool))
    drawn = policy.act(policy.start(TASKS), seen, tf.constant(0), KEYS)[0].numpy()
    counted = np.bincount(drawn, minlength=4)
    assert ((counted - TASKS / 4) ** 2 / (TASKS / 4)).sum() < 16.3  # wrong variant: always the first


def test_epsilon_is_the_probability_of_a_random_action():
    """Reject a policy without exploration, whose reward in the table is close. The plan prefers its last action."""
    source = mdps.build(MDPsOptions(states=2, actions=4, horizon=2, episodes=1))
    zeros = tf.zeros(TASKS, tf.int32)
    seen = Seen(zeros, zeros, tf.zeros(TASKS), tf.ones(TASKS, tf.bool))

    def plan(now):
        return tf.tile(tf.constant([0.0, 1.0, 2.0, 3.0])[None, None, None], (TASKS, 2, 2, 1))

    for epsilon, share in ((1.0, 0.25), (0.2, 0.85)):
        policy = MDPPolicy(source, plan, 0.0, tf.constant(epsilon), explores=True)
        drawn = policy.act(policy.start(TASKS), seen, tf.constant(0), KEYS)[0].numpy()
        assert np.mean(drawn == 3) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / TASKS))
        assert set(drawn) == {0, 1, 2, 3}


PUBLISHED = {  # Duan et al. 2016, table 1, n = 10, k = 5; table 2, n = 10
    "bandits": {
        "random": (5.0, None),
        "gittins": (6.6, 0.9),
        "thompson_sampling": (5.7, None),
        "optimistic_thompson_sampling": (6.5, 20),
        "ucb1": (6.7, 0.1),
        "epsilon_greedy": (6.6, 0.0),
        "greedy": (6.6, None),
    },
    "mdps": {
        "random": (100.1, None),
        "psrl": (138.1, None),
        "opsrl": (144.1, 20),
        "ucrl2": (146.6, 10**-0.4),
        "beb": (150.2, 10**-2.8),
        "epsilon_greedy": (132.8, 0.1),
        "greedy": (134.8, None),
    },
}


def mean_reward(name, source, value, tasks, prior_mean=0.0):
    entry = CLASSES[name]
    learner = ClassicalPolicy(
        entry(**({"prior_mean": prior_mean} if "prior_mean" in entry.model_fields else {})), source
    )
    return np.mean(learner.play(source.sample("test", 0, tasks, seed=0), value)["total_reward"])


@pytest.mark.parametrize("name", PUBLISHED["bandits"])
def test_published_bandits(name):
    """Compare within 0.25: 4000 trials here and 1000 there leave a standard error of 0.08; the table has one
    decimal."""
    source, (published, value) = bandits.build(BanditsOptions(arms=5, pulls=10)), PUBLISHED["bandits"][name]
    ours = mean_reward(name, source, value, 4000)
    assert abs(ours - published) < 0.25
    others = [other for other, _ in PUBLISHED["bandits"].values() if abs(other - published) > 0.5]
    assert all(abs(ours - other) > 0.25 for other in others)


@pytest.mark.slow
def test_published_thompson_sampling_of_longer_trials():
    source = bandits.build(BanditsOptions(arms=10, pulls=100))
    assert abs(mean_reward("thompson_sampling", source, None, 2000) - 76.7) < 1.5
    assert abs(mean_reward("greedy", bandits.build(BanditsOptions(arms=5, pulls=100)), None, 2000) - 74.8) < 2


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "greedy" else pytest.mark.slow) for name in PUBLISHED["mdps"]],
)
def test_published_mdps_with_the_papers_prior_mean(name):
    published, value = PUBLISHED["mdps"][name]
    ours = mean_reward(name, mdps.build(MDPsOptions(episodes=10)), value, 1000)
    assert abs(ours - published) < 4.5  # four standard errors


def test_published_greedy_is_not_that_of_the_right_prior_mean():
    assert mean_reward("greedy", mdps.build(MDPsOptions(episodes=10)), None, 1000, prior_mean=1.0) > 145


@pytest.mark.slow
def test_one_program_serves_all_values_and_a_given_value_is_not_tuned():
    source = bandits.build(BanditsOptions(arms=3, pulls=5))
    trials = source.sample("val", 0, 10, seed=0)
    for name in ("ucb1", "gittins", "optimistic_thompson_sampling"):
        learner = ClassicalPolicy(CLASSES[name](), source)
        assert learner.chosen is None and len(learner.grid) > 1
        results = [learner.play(trials, value)["total_reward"].numpy() for value in learner.grid[:4]]
        with pytest.raises(ValueError, match="neither in the spec nor tuned"):
            learner.evaluate(trials)
        assert learner._play.experimental_get_tracing_count() == 1
        assert len(results) == 4 and results[0].shape == (10,)
    given = ClassicalPolicy(options.UCB1Options(scale=0.7), source)
    assert given.chosen == 0.7 and given.grid == ()
    np.testing.assert_array_equal(given.evaluate(trials)["regret"], given.play(trials, 0.7)["regret"])


def test_a_compiled_trial_is_the_trial_step_by_step():
    source = bandits.build(BanditsOptions(arms=3, pulls=6))
    trials = source.sample("val", 0, 5, seed=0)
    plain = ClassicalPolicy(options.ThompsonSamplingOptions(), source, jit_compile=False)
    fused = ClassicalPolicy(options.ThompsonSamplingOptions(), source)
    for name, values in fused.evaluate(trials).items():
        np.testing.assert_allclose(values, plain.evaluate(trials)[name], rtol=1e-5, atol=1e-6)
    assert bandit_policies.random_action(KEYS, 3).numpy().max() == 2
