"""Experiments whose tasks are trials, from spec to row: RL^2, and the classical methods beside it."""

import csv
import json

import numpy as np
import pytest
import yaml

from metarun.algorithms.classical.policy import ClassicalPolicy
from metarun.experiments.config.load import load, resolved_yaml, shipped_specs
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import plan
from metarun.experiments.reports.table import lines_of, render
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import Row, as_frame
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

UCB1 = """
name: tiny
algorithm: {name: ucb1, tuned_on: validation}
dataset: {name: bandits, arms: 3, pulls: 20}
validation: {episodes: 200}
test: {episodes: 150}
published: {value: 15.0, source: "a paper, Table 1"}
"""
RL2 = """
name: tiny
algorithm: {name: rl2, minibatch: 32}
network: {name: gru, units: 8}
dataset: {name: mdps, states: 3, actions: 2, horizon: 3, episodes: 2}
train: {meta_batch: 48, steps: 3, log_every: 1}
validation: {episodes: 20, every: 2}
test: {episodes: 30}
jit: off
"""


def loaded(tmp_path, text, *overrides):
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return load(path, overrides).experiment


def mistakes(tmp_path, text, *overrides):
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, text, *overrides)
    return "\n".join(caught.value.problems)


def test_a_classical_method_is_tuned_on_validation_trials(tmp_path):
    """Check that the row names the value with the highest mean on the validation trials, which tuning on the test
    trials, the wrong one here, would not have chosen by the same numbers."""
    experiment, directory = loaded(tmp_path, UCB1), RunDirectory(tmp_path / "run")
    row = train(Run(experiment, 0, directory))
    with directory.tuning.open(newline="") as file:
        told = [(float(line["scale"]), float(line["total_reward"])) for line in csv.DictReader(file)]
    best = max(told, key=lambda each: each[1])[0]
    assert row.tuned == f"scale {best:g} (tuned on val)" and len(told) == 11
    assert (row.trial, row.metric, row.way, row.protocol) == ("3 arms, 20 pulls", "total_reward", None, None)
    assert 10.0 < row.mean < 20.0 and row.train_steps == 0 and row.parameters == 0 and row.published == 15.0
    on_test = loaded(tmp_path, UCB1, "algorithm.tuned_on=test")
    other = train(Run(on_test, 0, RunDirectory(tmp_path / "other")))
    assert other.tuned.endswith("(tuned on test)") and other.spec_digest != row.spec_digest
    assert (tmp_path / "other" / "tuning.csv").read_text() != directory.tuning.read_text()
    assert other.episodes_digest == row.episodes_digest  # the same trials


def test_the_curves_of_a_run_end_at_its_row(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    row = train(Run(loaded(tmp_path, UCB1, "algorithm.scale=0.2"), 0, directory))
    assert row.tuned == "scale 0.2" and not directory.tuning.exists()
    with pytest.raises(RunError, match="ucb1 is not trained: run `metarun train`"):
        evaluate(tmp_path / "run", "val", {})
    with directory.curves.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == list(range(1, 21))
    assert float(lines[-1]["regret_by_step"]) == pytest.approx(row.regret, rel=1e-5)
    shares = np.mean([float(line["optimal_by_step"]) for line in lines])
    assert shares == pytest.approx(row.optimal_actions, rel=1e-5)
    assert float(lines[0]["regret_by_step"]) < float(lines[-1]["regret_by_step"])


@pytest.mark.slow
def test_rl2_with_momentum_takes_one_step_of_the_schedule_per_iteration(tmp_path):
    """Reject decays that count the ten updates of an iteration."""
    optimizer = "{name: sgd, learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-3, schedule: step, "
    optimizer += "decay_steps: [1, 2], decay_factors: [0.5, 0.1]}"
    directory = RunDirectory(tmp_path / "run")
    train(Run(loaded(tmp_path, f"{RL2}optimizer: {optimizer}\n"), 0, directory))
    with directory.metrics.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "train"]
    assert [float(line["learning_rate"]) for line in lines] == pytest.approx([0.1, 0.05, 0.005])
    assert all(float(line["kl"]) <= 0.01 for line in lines)


def test_rl2_leaves_a_whole_run(tmp_path):
    experiment, directory = loaded(tmp_path, RL2), RunDirectory(tmp_path / "run")
    row = train(Run(experiment, 0, directory))
    assert row.metric == "total_reward" and row.train_steps == 3 and row.parameters > 100 and np.isfinite(row.mean)
    with directory.metrics.open(newline="") as file:
        lines = list(csv.DictReader(file))
    training, validation = ([line for line in lines if line["split"] == split] for split in ("train", "val"))
    assert len(training) == 3 and len(validation) == 2
    assert all(float(line["kl"]) <= 0.01 for line in training) and all(line["regret"] for line in validation)
    again = yaml.safe_load(directory.spec.read_text())
    assert "way" not in again["train"] and "protocol" not in again
    assert load(directory.spec).experiment.digest == experiment.digest
    assert train(Run(experiment, 0, directory)) == row  # finished
    other, path, before = evaluate(tmp_path / "run", "val", {"episodes": 10})
    assert (other.split, other.episodes, other.metric, before) == ("val", 10, "total_reward", False) and path.exists()
    with pytest.raises(SpecError, match="test.shot: has no effect"):
        evaluate(tmp_path / "run", "val", {"shot": 5})


@pytest.mark.slow
def test_fault_09_the_learning_rate_of_an_iteration(tmp_path):
    """Take the rate of an iteration whatever the number of updates in it, here ten. Rejected: an end in the first of
    three iterations; the rate of the next iteration, [0.2, 0.1, 0.0]."""
    experiment = loaded(tmp_path, RL2, "optimizer.schedule=linear", "optimizer.learning_rate=0.3")
    train(Run(experiment, 0, RunDirectory(tmp_path / "run")))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rates = [float(line["learning_rate"]) for line in csv.DictReader(file) if line["split"] == "train"]
    assert rates == pytest.approx([0.3, 0.2, 0.1])


def test_a_table_of_trials(tmp_path):
    rows = [
        train(
            Run(loaded(tmp_path, UCB1, f"name={name}", f"algorithm={{name: {name}}}"), 0, RunDirectory(tmp_path / name))
        )
        for name in ("random", "thompson_sampling")
    ]
    assert rows[1].mean > rows[0].mean + 2 * rows[0].ci95
    text = render(lines_of(as_frame(rows)), "text")
    assert "3 arms, 20 pulls" in text and "total_reward" in text and "way" not in text and "protocol" not in text
    assert Row.model_validate(json.loads((tmp_path / "random" / "result.json").read_text())) == rows[0]


@pytest.mark.parametrize(
    ("text", "override", "line"),
    [
        (RL2, "network={name: mlp}", "network.name: rl2 needs a recurrent network: use gru, not mlp"),
        (RL2, "dataset={name: glyphs}", "dataset.name: rl2 plays trials: use bandits or mdps, not glyphs"),
        (RL2, "protocol=inductive", "protocol: has no effect: rl2 plays trials"),
        (RL2, "train.way=7", "train.way: has no effect: rl2 plays trials"),
        (RL2, "network=", "network: is missing: rl2 has a network"),
        (RL2, "train.steps=0", "train.steps: is 0: rl2 learns by training"),
        (RL2, "precision=bfloat16", "precision: bfloat16 is for images"),
        (UCB1, "train.steps=5", "train: has no effect: ucb1 is not trained"),
        (UCB1, "network={name: gru}", "network: has no effect: ucb1 is not trained"),
        (UCB1, "optimizer.learning_rate=0.1", "optimizer: has no effect: ucb1 is not trained"),
        (UCB1, "jit=off", "jit: has no effect: ucb1 is not trained"),
        (UCB1, "seeds=[0, 1]", "seeds: has no effect: the random choices of ucb1 depend on test.episode_seed"),
        (UCB1, "dataset={name: mdps}", "algorithm.name: ucb1 is not for mdps"),
        (UCB1, "algorithm={name: greedy, prior_mean: 0.0}", "algorithm.prior_mean: has no effect on bandits"),
        (
            UCB1,
            "algorithm={name: ucb1, scale: 0.1, tuned_on: test}",
            "algorithm.tuned_on: has no effect: scale is given",
        ),
        (UCB1, "validation=", "validation: is null: scale is tuned on validation trials"),
    ],
)
def test_mistakes_in_specs_of_trials(tmp_path, text, override, line):
    assert line in mistakes(tmp_path, text, override)


def test_mistakes_of_few_shot_specs_with_trials():
    for override, line in (
        ("dataset={name: bandits}", "dataset.name: bandits are trials: maml is a few-shot learner, use rl2"),
        ("network={name: gru}", "network.name: gru is for rl2: maml has conv4, resnet12 and mlp"),
        ("protocol=", "protocol: is missing: How batch norm sees the queries"),
        ("network=", "network: is missing: maml has a network"),
    ):
        with pytest.raises(SpecError) as caught:
            load("quickstart/maml", [override])
        assert line in "\n".join(caught.value.problems)


def test_every_cell_of_both_tables_ships(tmp_path):
    """Check that RL^2 has 250,000 steps in a batch of every size; a cell without its override has 25,000 trials."""
    tables = (load_table("duan2016-bandits"), load_table("duan2016-mdps"))
    specs = [one.experiment for table in tables for one in plan(table, tmp_path)]
    bandits = {(s.dataset.arms, s.dataset.pulls, s.algorithm.name) for s in specs if s.dataset.name == "bandits"}
    mdps = {(s.dataset.episodes, s.algorithm.name) for s in specs if s.dataset.name == "mdps"}
    assert len(bandits) == 3 * 3 * 8 and len(mdps) == 5 * 8 and len(specs) == 72 + 40
    assert all(spec.published and spec.test.episodes == 1000 for spec in specs)
    for spec in specs:
        steps = spec.dataset.pulls if spec.dataset.name == "bandits" else 10 * spec.dataset.episodes
        if spec.algorithm.name == "rl2":
            assert spec.train.meta_batch * steps == pytest.approx(250_000, rel=0.01)
    assert resolved_yaml(load("duan2016/bandits-ucb1").experiment).count("train:") == 0


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("mdps-rl2", "bandits-gittins")), "mdps-beb"]
)
def test_shipped_specs_of_trials_run(name, tmp_path):
    overrides = ["test.episodes=8"]
    if name.endswith("-rl2"):
        overrides += [
            "jit=off",
            "train.meta_batch=8",
            "train.steps=2",
            "validation.episodes=4",
            "algorithm.minibatch=4",
        ]
    row = train(Run(load(f"duan2016/{name}", overrides).experiment, 0, RunDirectory(tmp_path / "run")))
    assert np.isfinite(row.mean) and row.episodes == 8


def test_there_is_nothing_to_benchmark_in_a_classical_method(tmp_path):
    from metarun.experiments.training.benchmark import benchmark

    with pytest.raises(RunError, match="ucb1 is not trained"):
        benchmark(loaded(tmp_path, UCB1), None, 0.0)


def test_the_first_of_equal_values_is_chosen(tmp_path, monkeypatch):
    """Check that the first is what numpy's argmax and the paper's code choose; the last one is wrong."""
    monkeypatch.setattr(ClassicalPolicy, "play", lambda self, trials, value: {"total_reward": trials.keys[:, 0] * 0})
    import tensorflow as tf

    from metarun.experiments.evaluation import tuning

    monkeypatch.setattr(tuning, "total_rewards", lambda *_: np.array([[1.0, 2.0]] * 11))
    experiment = loaded(tmp_path, UCB1)
    from metarun.experiments.model import build

    model = build(experiment, 0)
    tuning.tune(model, RunDirectory(tmp_path))
    assert model.learner.chosen == 0.0 and tf.executing_eagerly()


def one_of_each() -> list[str]:
    """Return a shipped spec of trials for each algorithm with each dataset."""
    specs = {name: load(name).experiment for name in shipped_specs()}
    found = {(spec.algorithm.name, spec.dataset.name): name for name, spec in specs.items() if spec.kind.plays_trials}
    return sorted(found.values())


SMALL = {"bandits": "dataset.pulls=5", "mdps": "dataset.episodes=2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each())
def test_every_algorithm_of_trials_runs_as_shipped(name, tmp_path):
    """Run short trials. Specs of one algorithm and one dataset differ in numbers alone."""
    spec = load(name).experiment
    overrides = ["test.episodes=4", "validation.episodes=4", SMALL[spec.dataset.name]]
    if spec.kind.is_trained:
        overrides += ["train.meta_batch=4", "train.steps=2", "algorithm.minibatch=4"]
    row = train(Run(load(name, overrides).experiment, 0, RunDirectory(tmp_path / "run")))
    assert np.isfinite(row.mean) and row.episodes == 4
