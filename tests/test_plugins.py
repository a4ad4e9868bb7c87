"""A package of someone else's, with a task distribution of gymnasium environments and an algorithm, is installed."""

import csv
import json
import re

import pytest
from packages import install, run_with

pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")

CODE = '''
from typing import Literal

import gymnasium
import numpy as np

from metarun.datasets.options import Options


class Corridor(gymnasium.Env):
    """Reward 1 at one of the two ends; which one is what a trial is about."""

    observation_space = gymnasium.spaces.Discrete(5)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, goal):
        self.goal = goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 2
        return self.place, {}

    def step(self, action):
        self.place += 1 if action == 1 else -1
        there = self.place == self.goal
        return self.place, float(there), self.place in (0, 4), False, {}


class Corridors(Options):
    """Corridors with a reward at one end."""

    name: Literal["corridors"] = "corridors"
    episodes: int = 4
    limit: int | None = 5

    def conflicts(self, experiment):
        if self.limit and self.limit < self.episodes:
            yield "dataset.limit", f"is {self.limit}, less than episodes: {self.episodes}"

    def build(self, dtype):
        from metarun.datasets.gymnasium import GymnasiumSource

        def make(generator: np.random.Generator) -> gymnasium.Env:
            return Corridor(generator.choice([0, 4]))

        return GymnasiumSource("corridors", make, episodes=self.episodes, horizon=4)


def broken():
    raise RuntimeError("no good")


class Misnamed(Options):
    name: Literal["other"] = "other"

    def build(self, dtype):
        return None


class AnyName(Options):
    name: str = "any_name"

    def build(self, dtype):
        return None
'''
ALGORITHM = '''
from typing import Literal

from metarun.algorithms import Algorithm
from metarun.algorithms.options import PrototypicalNetworkOptions


class MyOptions(PrototypicalNetworkOptions):
    """Prototypes, as we see them."""

    name: Literal["my_prototypes"] = "my_prototypes"
    margin: float = 0.0

    def conflicts(self, experiment):
        if self.margin and self.distance == "cosine":
            yield "algorithm.margin", "has no effect with distance: cosine"
        if self.margin and experiment.train.shot < 5:
            yield "train.shot", f"is {experiment.train.shot}: my_prototypes has a margin from 5 shots on"



class HeadedOptions(PrototypicalNetworkOptions):
    """With a last layer of its own."""

    name: Literal["headed"] = "headed"


def learner():
    from metarun.algorithms.protonet import PrototypicalNetwork

    return PrototypicalNetwork


entry = Algorithm(MyOptions, learner, has_head=False)
headed = Algorithm(HeadedOptions, learner)
bare = Algorithm(dict, learner)
a_class = Algorithm(MyOptions, MyOptions)
untrained = Algorithm(MyOptions, learner, kind="classical")
odd = Algorithm(MyOptions, learner, kind="bandit")
'''
ENTRY_POINTS = """[metarun.datasets]
corridors = corridors:Corridors
misnamed = corridors:Misnamed
missing = corridors:Nothing
any_name = corridors:AnyName
[metarun.algorithms]
my_prototypes = my_prototypes:entry
headed = my_prototypes:headed
bare = my_prototypes:bare
a_class = my_prototypes:a_class
untrained = my_prototypes:untrained
odd = my_prototypes:odd
"""
RL2 = """
name: corridors
algorithm: {name: rl2, minibatch: 32}
network: {name: gru, units: 16}
dataset: {name: corridors}
optimizer: {learning_rate: 0.01}
train: {meta_batch: 64, steps: 12, log_every: 1}
validation: null
test: {episodes: 40}
"""
PROTOTYPES = """
name: prototypes
algorithm: {name: my_prototypes}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 3, steps: 3}
validation: null
test: {way: 3, episodes: 4}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    modules = {"corridors.py": CODE, "my_prototypes.py": ALGORITHM}
    return install(tmp_path_factory.mktemp("site"), "corridors", ENTRY_POINTS, modules)


@pytest.mark.slow
def test_rl2_learns_in_environments_of_gymnasium(installed, tmp_path):
    """Check that always the same end earns 2 of 4 on average; what it found before says which end. At first it walks at
    random."""
    (tmp_path / "spec.yaml").write_text(RL2)
    done = run_with(installed, "train", "spec.yaml", "--out", "runs", cwd=tmp_path)
    assert "metarun.datasets misnamed of corridors (corridors:Misnamed) is left out: its options lack" in done.stderr
    assert "missing of corridors (corridors:Nothing) is left out: AttributeError" in done.stderr
    assert 'any_name of corridors (corridors:AnyName) is left out: its options lack `name: Literal["any' in done.stderr
    assert "my_prototypes:bare) is left out: its options are not a subclass of" in done.stderr
    assert "a_class) is left out: its learner is a class" in done.stderr
    assert "untrained) is left out: kind" in done.stderr
    assert 'odd) is left out: its kind is "bandit"' in done.stderr
    run = tmp_path / "runs" / "corridors" / "seed-0"
    with open(run / "metrics.csv", newline="") as file:
        rewards = [float(line["total_reward"]) for line in csv.DictReader(file)]
    assert len(rewards) == 12 and rewards[-1] > rewards[0] + 0.3
    assert not (run / "curves.csv").exists()  # nobody knows the best actions
    run_with(installed, "train", "spec.yaml", "--out", "again", cwd=tmp_path)
    with open(tmp_path / "again" / "corridors" / "seed-0" / "metrics.csv", newline="") as file:
        assert [float(line["total_reward"]) for line in csv.DictReader(file)] == rewards


@pytest.mark.slow
def test_fault_12_an_edited_algorithm_of_another_package_is_another(installed, tmp_path, session_cache, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(session_cache))
    (tmp_path / "spec.yaml").write_text(PROTOTYPES)
    done = run_with(installed, "train", "spec.yaml", "--out", "runs", cwd=tmp_path)
    assert "my_prototypes" in done.stdout
    row = json.loads((tmp_path / "runs/prototypes/seed-0/result.json").read_text())
    assert re.fullmatch("algorithm corridors 1.0 [0-9a-f]{16}", row["plugins"])
    told = run_with(installed, "describe", "my_prototypes", cwd=tmp_path)
    assert "Prototypes, as we see them." in told.stdout and "distance" in told.stdout
    edited = install(
        tmp_path / "edited", "corridors", ENTRY_POINTS, {"corridors.py": CODE, "my_prototypes.py": f"{ALGORITHM}\n"}
    )
    for command in (["train", "spec.yaml"], ["evaluate", "runs/prototypes/seed-0", "--shot", 2]):
        done = run_with(edited, *command, cwd=tmp_path, code=1)
        assert f"has other code of its algorithm, {row['plugins'].removeprefix('algorithm ')}, than is" in done.stderr


def test_a_plugin_says_whether_its_network_has_a_last_layer(installed, tmp_path):
    spec = PROTOTYPES.replace("{name: mlp, hidden: [16]}", "{name: conv4, head_initializer: normal}")
    told = {}
    for name in ("my_prototypes", "headed"):
        (tmp_path / "spec.yaml").write_text(
            spec.replace("my_prototypes", name).replace("test: {way: 3", "test: {way: 5")
        )
        told[name] = run_with(installed, "validate", "spec.yaml", cwd=tmp_path, code=2).stderr
    assert "head_initializer: has no effect" in told["my_prototypes"] and "test.way" not in told["my_prototypes"]
    assert "test.way: is 5" in told["headed"] and "head_initializer" not in told["headed"]


def test_a_plugin_says_what_contradicts_what(installed, tmp_path):
    """Reject checks only where all values are right by themselves. A contradiction has a file and line, beside other
    mistakes."""
    margin = "{name: my_prototypes,\n  margin: 1.0,\n  distance: cosine}"
    for test, more in (("way: 3", []), ("way: three", ["prototypes.yaml:11: test.way: expected"])):
        spec = PROTOTYPES.replace("{name: my_prototypes}", margin).replace("test: {way: 3", f"test: {{{test}")
        (tmp_path / "prototypes.yaml").write_text(spec)
        done = run_with(installed, "validate", "prototypes.yaml", cwd=tmp_path, code=2)
        lines = [line for line in done.stderr.splitlines() if line.startswith("prototypes.yaml")]
        assert lines[:2] == [
            "prototypes.yaml:4: algorithm.margin: has no effect with distance: cosine",
            "prototypes.yaml:9: train.shot: is 1: my_prototypes has a margin from 5 shots on",
        ]
        assert [line[: len(more[0])] for line in lines[2:]] == more
    (tmp_path / "trials.yaml").write_text(RL2.replace("{name: corridors}", "{name: corridors, limit: 3}"))
    done = run_with(installed, "validate", "trials.yaml", cwd=tmp_path, code=2)
    assert "trials.yaml:5: dataset.limit: is 3, less than episodes: 4" in done.stderr


def test_an_option_that_is_null_stays_null(installed, tmp_path):
    """Reject a resolved spec without it, which would be another experiment. The option's default is a number."""
    for told, line in (("", "limit: 5"), (", limit: null", "limit: null")):
        (tmp_path / "spec.yaml").write_text(RL2.replace("{name: corridors}", f"{{name: corridors{told}}}"))
        assert line in run_with(installed, "show", "spec.yaml", cwd=tmp_path).stdout


def test_a_classical_method_is_for_the_built_in_trials(installed, tmp_path):
    spec = "name: x\nalgorithm: {name: random}\ndataset: {name: corridors}\ntest: {episodes: 4}\n"
    (tmp_path / "spec.yaml").write_text(spec)
    done = run_with(installed, "validate", "spec.yaml", cwd=tmp_path, code=2)
    assert "algorithm.name: random is not for corridors" in done.stderr


def test_without_it_a_spec_says_what_there_is(installed, tmp_path):
    (tmp_path / "spec.yaml").write_text(RL2)
    done = run_with(tmp_path, "validate", "spec.yaml", cwd=tmp_path, code=2)
    assert "unknown dataset 'corridors'" in done.stderr and "the package that has it is not installed" in done.stderr
