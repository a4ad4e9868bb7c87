"""The requirements of `metarun check-plugin`: what is built in meets them, and each finds the fault that it is for."""

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.algorithms.workers import WHOLE
from metarun.cli.main import metarun as group
from metarun.experiments import model as models
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.evaluation import independence
from metarun.experiments.evaluation.independence import refuse_dependent
from metarun.experiments.training import conformance, train
from metarun.experiments.training.conformance import CHECKS, OF_EPISODES, examine, example, resumed_runs_are_equal

TRAINED = [name for name, entry in ALGORITHMS.items() if KINDS[entry.kind].is_trained]
LONG = ("maml", "matchingnet", "reptile", "rl2", "r2d2", "baseline++", "simpleshot")  # which other tests try, too
pytestmark = pytest.mark.usefixtures("cache_folder", "eagerly")


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in TRAINED),
        *(pytest.param(f"{name}, resumed", marks=pytest.mark.slow) for name in TRAINED),
    ],
)
def test_fault_30_every_trained_algorithm_meets_the_requirements(name, monkeypatch):
    name, _, resumed = name.partition(", ")
    checks = {said: check for said, check in CHECKS.items() if (check is resumed_runs_are_equal) == bool(resumed)}
    monkeypatch.setattr(conformance, "CHECKS", checks)
    found = dict(examine(example(name)))
    assert found == dict.fromkeys(found)
    left_out = OF_EPISODES if KINDS[ALGORITHMS[name].kind].plays_trials else ()
    assert found.keys() == {said for said, check in checks.items() if check not in left_out}


def transductive(model):
    model.learner.problem = model.learner.problem._replace(protocol="transductive")


def forgetful(model):
    model.learner.variables = list(model.learner.parameters.values())  # without the optimizer


def learning_from_tests(model):
    evaluate = model.learner.evaluate

    def changed(batch):
        next(iter(model.learner.parameters.values())).assign_add(tf.ones_like(first))
        return evaluate(batch)

    first = next(iter(model.learner.parameters.values()))
    model.learner.evaluate = changed


def seedless(model):
    for value in model.learner.parameters.values():
        value.assign(tf.ones_like(value))


DRAWN = np.random.default_rng(0)  # goes on from run to run


def random(model):
    step = model.learner.train_step

    def changed(batch, share=WHOLE):
        first = next(iter(model.learner.parameters.values()))
        first.assign_add(DRAWN.normal(scale=0.1, size=first.shape).astype(first.dtype.as_numpy_dtype))
        return step(batch, share=share)

    model.learner.train_step = changed


def still(model):
    model.learner.train_step = lambda batch, share=WHOLE: {"loss": tf.constant(1.0)}


def infinite(model):
    step = model.learner.train_step
    model.learner.train_step = lambda batch, share=WHOLE: {**step(batch, share=share), "loss": tf.constant(np.inf)}


def alone(model):
    step = model.learner.train_step
    model.learner.train_step = lambda batch, share=WHOLE: step(batch)


def one_number(model):
    evaluate = model.learner.evaluate
    model.learner.evaluate = lambda batch: {name: tf.reduce_mean(value) for name, value in evaluate(batch).items()}


def mixing_tasks(model):
    predict = model.learner.predict

    def changed(batch):
        outputs = predict(batch)
        return outputs - tf.reduce_mean(outputs, axis=1, keepdims=True) * tf.range(3, dtype=outputs.dtype)

    model.learner.predict = changed


def impure(model):
    sample = model.source.sample
    model.source.sample = lambda split, index, tasks, *more: sample(split, index + tasks, tasks, *more)


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (transductive, "protocol: tasks and queries are judged apart", "which is transductive"),
        (mixing_tasks, "protocol: tasks and queries are judged apart", "each must be judged alone"),
        (forgetful, "variables are the whole state", "lacks some of the state"),
        (learning_from_tests, "a test gives values of tasks and changes nothing", "differs in a second test"),
        (one_number, "a test gives values of tasks and changes nothing", "a value a task"),
        (seedless, "the seed decides the first weights", "two seeds give the same weights"),
        pytest.param(
            random,
            "resumed runs and repeated runs are equal, bit for bit",
            "other bits at a second time",
            marks=pytest.mark.slow,
        ),
        (still, "dtypes; a step is finite and changes weights", "changes no parameter"),
        (infinite, "dtypes; a step is finite and changes weights", "loss is not finite"),
        (alone, "two workers make the step of one, or are refused", "average with `share.mean`"),
        (impure, "tasks are pure functions of seed and number", "drawn alone is another one"),
    ],
)
def test_fault_30_each_requirement_finds_its_fault(broken, check, said, monkeypatch):
    """Reject a requirement that what is broken meets."""
    build = models.build

    def break_it(*arguments, **options):
        model = build(*arguments, **options)
        broken(model)
        return model

    for module in (conformance, train):
        monkeypatch.setattr(module, "build", break_it)
    monkeypatch.setattr(conformance, "CHECKS", {check: CHECKS[check]})
    ((_, problem),) = examine(example("protonet"))
    assert said in problem


def test_fault_30_a_learner_that_ignores_the_protocol_is_refused(monkeypatch):
    experiment = example("protonet")
    honest, dishonest = models.build(experiment, 0), models.build(experiment, 0)
    transductive(dishonest)
    refuse_dependent(dishonest)  # what is built in is tested elsewhere
    monkeypatch.setattr(independence, "package_of", lambda options: "sunny 1.0 0123")
    refuse_dependent(honest)
    with pytest.raises(RunError, match="protonet of .*depends on the others, which is transductive"):
        refuse_dependent(dishonest)


def test_check_plugin_prints_each_requirement_and_fails_with_one(monkeypatch):
    checks = {"good": lambda experiment: None, "bad": lambda experiment: "wrong", "broken": lambda experiment: 1 / 0}
    monkeypatch.setattr(conformance, "CHECKS", checks)
    done = CliRunner().invoke(group, ["check-plugin", "protonet", "-s", "train.shot=3"])
    assert done.exit_code == 1
    assert done.stdout == "ok     good\nFAILS  bad: wrong\nFAILS  broken: ZeroDivisionError: division by zero\n"
    with pytest.raises(SpecError, match="'protonett' is installed; did you mean protonet"):
        example("protonett")


@pytest.mark.parametrize("name", ["glyphs", "sinusoid", "bandits", "conv4"])
def test_an_example_uses_what_it_is_for(name):
    experiment = example(name)
    assert name in (experiment.dataset.name, experiment.network.name)
