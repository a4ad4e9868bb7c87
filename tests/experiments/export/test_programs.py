"""Exported learners in a process without metarun give the values that they give here, for any number of images."""

import bare_tensorflow
import few_shot
import numpy as np
import pytest
import tensorflow as tf
from few_shot import OPTIONS
from recurrent_bandit import DependentBandit

from metarun.algorithms.build import Setup, build
from metarun.algorithms.learner import Support
from metarun.algorithms.networks.options import Conv4Options, GRUOptions, MLPOptions
from metarun.algorithms.options import ClassifierOptions, MatchingNetworkOptions, ReptileOptions, RL2Options
from metarun.algorithms.rl.rollout import Seen
from metarun.algorithms.rl2 import Player
from metarun.datasets.images.preprocessing import Preprocessing
from metarun.experiments.export import programs

IMAGES = Preprocessing(height=16, width=16, channels=1, mean=(0.2,), std=(0.5,))
LABELS = (2, 0, 1, 1, 0, 2, 2)  # in any order, of classes of different sizes
DRAWN = tf.constant(programs.DRAWN[None])
NORM, PLAIN = MLPOptions(hidden=(6,), batch_norm=True), MLPOptions(hidden=(6,))
CONV = Conv4Options(filters=3)
ADAM = ReptileOptions(inner_lr=0.01, inner_steps=3, inner_batch=3, inner_optimizer="adam")
QUICK = {"maml": (OPTIONS["maml"], NORM, "inductive")}
SLOW = {
    f"{name}-{network.name}{'-norm' if network.batch_norm else ''}-{protocol}": (options, network, protocol)
    for name, options in (OPTIONS | {"adam": ADAM, "plain": MatchingNetworkOptions()}).items()
    for network in (NORM, PLAIN, CONV)
    for protocol in ("inductive", "transductive")
    if protocol == "inductive" or not isinstance(options, ClassifierOptions)  # of which a spec is inductive
}


def images(number, seed):
    return np.random.default_rng(seed).integers(0, 256, (number, *IMAGES.shape)).astype(np.uint8)


def saved(folder, options, network, protocol):
    """Save a learner in both ways; return the probabilities that it gives here for its fifth and sixth call."""
    learner = few_shot.learner(options, network, protocol, IMAGES.shape, jit=False)
    if options.name == "reptile":  # as after a training
        for moment in learner.moments.values():
            moment.assign(tf.fill(moment.shape, 0.01))
        learner.steps_taken.assign(50)
    way = 3 if options.name in ("maml", "reptile") else None
    programs.save(programs.adapting(learner, IMAGES.shape, IMAGES.as_input, way), str(folder / "adapting"))
    support = Support(IMAGES.as_input(images(7, 0))[None], tf.constant([LABELS]), 3, DRAWN, False)
    known = learner.fit(support)
    names = ("ape", "bee", "\u00e9l\u00e9phant")
    programs.save(programs.fitted(learner, IMAGES.shape, IMAGES.as_input, known, names), str(folder / "fitted"))
    swapped = learner.fit(support._replace(y=tf.constant([LABELS[::-1]])))
    queries = IMAGES.as_input(images(5, 1))[None]
    return [tf.nn.softmax(learner.classify(each, queries, 3)[0]).numpy() for each in (known, swapped)]


def requests(folder, labels=LABELS):
    support = {"support_images": images(7, 0).tolist(), "support_labels": list(labels)}
    return [
        (folder / "adapting", programs.SERVED, {"inputs": support | {"query_images": images(5, 1).tolist()}}),
        (folder / "fitted", programs.SERVED, {"instances": images(5, 1).tolist()}),
        (folder / "fitted", programs.SERVED, {"instances": [{"images": each} for each in images(1, 1).tolist()]}),
    ]


def check_answers(expected, wrong, adapting, fitted, alone):
    for answers in (adapting, fitted):
        np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-6)
    assert np.abs(wrong - expected).max() > 1e-4
    names = np.array(["ape", "bee", "\u00e9l\u00e9phant"])
    np.testing.assert_array_equal(fitted["label"], names[expected.argmax(axis=1)])
    return np.abs(alone["probabilities"] - expected[:1]).max()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return what each learner gives here and what it gives there, and what is said of bad labels; by one process."""
    folder = tmp_path_factory.mktemp("quick")
    here = {name: saved(folder / name, *case) for name, case in QUICK.items()}
    calls = [each for name in QUICK for each in requests(folder / name)]
    bad = [requests(folder / name, labels)[0] for name in QUICK for labels in BAD]
    there = bare_tensorflow.call(folder / "calls", *calls, *bad)
    answers = {name: (*here[name], *there[3 * place : 3 * place + 3]) for place, name in enumerate(QUICK)}
    return answers, there[len(calls) :]


BAD = ([0, 2, 0, 0, 0, 2, 2], [0, 1, 2, -1, 0, 1, 2], [0, 1, 2])  # a class without images, below 0, too few


@pytest.mark.parametrize("name", QUICK)
def test_values_are_those_of_the_learner(quick, name):
    """Reject labels of another order, and queries that see each other (an image alone would have another answer)."""
    assert check_answers(*quick[0][name]) < 1e-6


def test_labels_that_leave_a_class_without_images_are_refused(quick):
    """Reject a prototype at zero, and the cross-entropy of a class that the last layer does not have."""
    assert len(quick[1]) == len(QUICK) * len(BAD)
    for answers in quick[1]:
        assert "support_labels: one for each support image" in str(answers["error"])


@pytest.mark.slow
def test_values_of_every_learner_network_and_protocol(tmp_path):
    """Reject, as above, and a transductive model that takes images one by one."""
    here = {name: saved(tmp_path / name, *case) for name, case in SLOW.items()}
    calls = [each for name in SLOW for each in requests(tmp_path / name)]
    bad = [requests(tmp_path / "protonet-mlp-norm-inductive", labels)[0] for labels in BAD]
    there = bare_tensorflow.call(tmp_path / "calls", *calls, *bad)
    assert all("support_labels: one for each support image" in str(each["error"]) for each in there[len(calls) :])
    for place, (name, (options, network, protocol)) in enumerate(SLOW.items()):
        alone = check_answers(*here[name], *there[3 * place : 3 * place + 3])
        together = protocol == "transductive" and network.batch_norm
        assert (alone > 1e-4) == (together and not options.name.startswith(("baseline", "simpleshot"))), name


@pytest.mark.slow
def test_a_regression_adapts_to_its_points(tmp_path):
    """Reject the network before adaptation."""
    learner = few_shot.learner(OPTIONS["maml"], PLAIN, "inductive", (1,), regression=True, jit=False)
    programs.save(programs.regressing(learner, (1,), (1,), tf.float32), str(tmp_path / "model"))
    x, y, q = (np.linspace(-2, 2, number, dtype=np.float32)[:, None] for number in (6, 6, 4))
    body = {"inputs": {"support_x": x.tolist(), "support_y": y.tolist(), "query_x": q.tolist()}}
    (answers,) = bare_tensorflow.call(tmp_path / "calls", (tmp_path / "model", programs.SERVED, body))
    fitted = learner.fit(Support(tf.constant(x[None]), tf.constant(y[None]), 1, DRAWN, True))
    np.testing.assert_allclose(answers["predictions"], learner.classify(fitted, q[None], 1)[0], atol=1e-6)
    assert np.abs(answers["predictions"] - learner.network(learner.network.parameters, q[None])[0]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("box", [False, True], ids=["discrete", "box"])
def test_a_policy_plays_the_trials_that_it_played_here(tmp_path, box):
    """Reject a state that is not handed on, and a reward or a flag that the policy does not see."""
    source = DependentBandit(episodes=3, horizon=2, box=box)
    setup = Setup(RL2Options(), GRUOptions(units=5), meta_batch=4, steps=10, jit=False)
    learner = build(setup, source)
    programs.save(programs.stepping(learner), str(tmp_path / "model"))
    rollout = learner.play(source.sample("test", 0, 4, seed=0))
    names = ("state", "observation", "previous_action", "previous_reward", "previous_done")
    states, expected, calls = [learner.policy.start(4)], [], []
    for number in range(6):
        seen = Seen(*(each[number] for each in rollout.seen))
        numbers, after = Player(learner).consider(states[-1], seen)
        rows = zip(*(each.numpy().tolist() for each in (states[-1], *seen)), strict=True)
        body = {"instances": [dict(zip(names, row, strict=True)) for row in rows]}
        calls.append((tmp_path / "model", programs.SERVED, body))
        states.append(after)
        expected.append(numbers.numpy())
    start = (tmp_path / "model", "initial_state", {"inputs": {"trials": 4}})
    first, *answers = bare_tensorflow.call(tmp_path / "calls", start, *calls)
    np.testing.assert_array_equal(first["state"], states[0])
    for name, each in zip(names[2:], rollout.seen[1:], strict=True):
        np.testing.assert_array_equal(first[name], each[0])
    np.testing.assert_allclose(expected, rollout.recorded, atol=1e-6)
    for found, after, numbers in zip(answers, states[1:], expected, strict=True):
        np.testing.assert_allclose(found["state"], after, atol=1e-6)
        if box:
            mean, log_std = np.split(numbers, 2, axis=-1)
            np.testing.assert_allclose(found["action_mean"], mean, atol=1e-6)
            np.testing.assert_allclose(found["action_deviation"], np.exp(log_std), atol=1e-6)
        else:
            np.testing.assert_allclose(found["action_probabilities"], tf.nn.softmax(numbers), atol=1e-6)
    assert np.abs(expected[5] - expected[1]).max() > 1e-4
