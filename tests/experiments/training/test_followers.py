"""A run over many workers is the run of one worker; a worker that dies stops the others, and the run goes on."""

import csv
import json
import signal
import socket
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import sharing
from processes import Started, stopping

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.experiments.config.checks import unshareable
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.jobs.rendezvous import find
from metarun.experiments.model import Model
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.weights import weights_of
from metarun.experiments.training.followers import start_together
from metarun.experiments.training.train import train

TINY = """
name: tiny
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 5, steps: STEPS, log_every: 40}
validation: {episodes: 450, every: 100}
test: {way: 1, shot: 5, query: 5, episodes: 450}
"""


def start(count: int, cache: Path, *arguments: object, **options) -> list[Started]:
    """Start the workers of one run on this host."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    environment = {"METARUN_CACHE": str(cache)}
    started = []
    for index in range(count):
        told = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        one = environment | ({"TF_CONFIG": json.dumps(told)} if count > 1 else {})
        started.append(Started(*arguments, **options, **one))
    return started


def finish(workers: list[Started], seconds: float = 1200) -> list[tuple[int, str, str]]:
    """Wait for the workers; return the exit code, output and errors of each."""
    try:
        ended = [worker.wait(seconds) for worker in workers]
        return [(each.returncode, each.stdout, each.stderr) for each in ended]
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, session_cache):
    """Return a function that trains with so many workers in a precision and gives the variables of each case."""
    found = {}

    def train(count, precision):
        if (count, precision) not in found:
            file = tmp_path_factory.mktemp("shared") / "variables.npz"
            workers = start(count, session_cache, file, precision, program=sharing.main)
            for code, _, errors in finish(workers):
                assert code == 0, errors
            with np.load(file) as arrays:
                names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
                found[count, precision] = {
                    name: [arrays[key] for key in arrays if key.rpartition("/")[0] == name] for name in names
                }
        return found[count, precision]

    return train


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(np.abs(a.astype(float) - b).max() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("count", "precision", "tolerance"),
    [
        pytest.param(2, "float64", 1e-10, marks=pytest.mark.slow),
        pytest.param(4, "float64", 1e-10, marks=pytest.mark.slow),
        pytest.param(2, "float32", 1e-5, marks=pytest.mark.slow),
        pytest.param(4, "float32", 1e-5, marks=pytest.mark.slow),
    ],
)
def test_many_workers_train_as_one(trained, count, precision, tolerance):
    """Check that the variables after 20 steps are equal, also with uneven shares: parameters, batch norm's averages,
    the optimizer's moments."""
    one, many = trained(1, precision), trained(count, precision)
    far = {name: distance(one[name], many[name]) for name in one}
    assert max(far.values()) < tolerance, far


@pytest.mark.slow
@pytest.mark.parametrize("wrong", sharing.WRONG)
def test_what_is_not_the_sum_over_all_tasks_is_seen(trained, wrong):
    assert distance(trained(1, "float64")["maml"], trained(2, "float64")[wrong]) > 1e-3


def test_every_learner_is_shared_out():
    trainable = {name for name, entry in ALGORITHMS.items() if KINDS[entry.kind].is_trained}
    assert trainable == {case["algorithm"]["name"] for case in sharing.CASES.values()}


class Recorded:
    """Record what a chief agreed on, or, given that, hear it as a worker."""

    def __init__(self, told=()):
        self.index, self.told, self.heard = bool(told), [], list(told)

    def agree(self, number):
        self.told.append(number)
        return self.heard.pop(0) if self.heard else number

    def spread(self, variables):
        pass


def test_workers_of_several_seeds_are_no_run():
    """Reject tasks of three streams in one meta-batch, called seed 0."""
    experiment = Experiment(name="shared", **sharing.CASES["maml"] | {"train": {"steps": 1}})
    source, learner = SimpleNamespace(content_digest="a"), SimpleNamespace(variables=[])
    chief = Recorded()
    start_together(Model(experiment, 0, source, learner, chief), 7)
    assert start_together(Model(experiment, 0, source, learner, Recorded(chief.told))) == 7
    with pytest.raises(RunError, match="worker True has another spec, seed"):
        start_together(Model(experiment, 1, source, learner, Recorded(chief.told)))


def write_spec(folder: Path, steps: int = 2000) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("STEPS", str(steps)))
    return path


def results(run: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the contents of the final files without times and device; numbers as arrays."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    left_out = ("split", "seconds", "tasks_per_second")
    numbers = np.array([[float(row[key] or 0) for key in row if key not in left_out] for row in rows])
    row = json.loads((run / "result.json").read_text())
    episodes = np.loadtxt(run / "episodes.csv", delimiter=",", skiprows=1)
    return numbers, episodes, {key: row[key] for key in ("spec_digest", "episodes_digest", "train_steps", "episodes")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, session_cache):
    """Train with one worker; return the folder of the run."""
    folder = tmp_path_factory.mktemp("alone")
    [(code, _, errors)] = finish(start(1, session_cache, "train", write_spec(folder), "--out", folder))
    assert code == 0, errors
    return folder / "tiny" / "seed-0"


def assert_same_run(run: Path, other: Path) -> None:
    for mine, wanted in zip(results(run), results(other), strict=True):
        if isinstance(mine, dict):
            assert mine == wanted
        else:
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_workers_leave_the_run_of_one(tmp_path, alone, session_cache):
    command = ("train", write_spec(tmp_path), "--out", tmp_path)
    chief, other = finish(start(2, session_cache, *command))
    assert chief[0] == other[0] == 0, chief[2] + other[2]
    assert "tiny" in chief[1] and other[1:] == ("", "")
    run = tmp_path / "tiny" / "seed-0"
    assert_same_run(run, alone)
    assert json.loads((run / "result.json").read_text())["device"].startswith("2 x ")
    again = finish(start(2, session_cache, *command))
    assert [code for code, *_ in again] == [0, 0] and "is finished" in again[0][2]


@pytest.mark.slow
def test_two_workers_start_from_the_weights_of_a_run(tmp_path, alone, session_cache):
    """Reject a worker that starts from the weights of its seed: its part of the gradient is that of another model."""
    spec = write_spec(tmp_path, 20)
    changes = ("name=new", f"network.init={alone}", "validation=null", "test.episodes=10")
    given = [part for change in changes for part in ("-s", change)]
    chief, other = finish(start(2, session_cache, "train", spec, *given, "--out", tmp_path))
    assert chief[0] == other[0] == 0, chief[2] + other[2]
    assert f"starts from the weights of {alone}" in chief[2] and other[1:] == ("", "")
    together, one = (Run.at(tmp_path / folder, load(spec, changes).experiment, 0) for folder in (".", "one"))
    assert read_row(together.directory.result).init == train(one).init != ""
    weights = [checkpoint.read(run.directory.checkpoint(20))[1] for run in (together, one)]
    assert distance(*weights) < 1e-6 and distance(weights[1], weights_of(alone).arrays) > 1e-3


@pytest.mark.slow
def test_two_workers_end_early_at_one_step(tmp_path, session_cache):
    """Reject a worker that goes on where the chief has ended; also in a start of which the test alone is left."""
    spec = write_spec(tmp_path, 400)
    frozen = "optimizer={schedule: step, decay_steps: [30], decay_factor: 1e-12}"
    changes = ("train.patience=1", "validation={episodes: 10, every: 20}", frozen, "test.episodes=10")
    given = [part for change in changes for part in ("-s", change)]
    together, one = (Run.at(tmp_path / folder, load(spec, changes).experiment, 0) for folder in (".", "one"))
    found = train(one)
    assert found.stopped_early and found.train_steps < 100
    for _ in range(2):
        chief, other = finish(start(2, session_cache, "train", spec, *given, "--out", tmp_path), 300)
        assert chief[0] == other[0] == 0, chief[2] + other[2]
        row = read_row(together.directory.result)
        assert (row.stopped_early, row.train_steps) == (True, found.train_steps)
        together.directory.result.unlink()


@pytest.mark.slow
def test_two_workers_validate_with_the_mean_of_the_chief(tmp_path, session_cache):
    """Reject validation tasks that a worker centres by zeros, or by the mean of another checkpoint."""
    spec, train = tmp_path / "tiny.yaml", "{meta_batch: 16, steps: 60, log_every: 10}"
    spec.write_text(
        "name: tiny\nalgorithm: {name: simpleshot, norm_groups: 2}\n"
        "network: {name: mlp, hidden: [32], batch_norm: true}\n"
        f"dataset: {{name: glyphs}}\nprotocol: inductive\ntrain: {train}\n"
        "validation: {episodes: 450, every: 20}\ntest: {episodes: 450}\n"
    )
    for count in (1, 2):
        for code, _, errors in finish(start(count, session_cache, "train", spec, "--out", tmp_path / str(count)), 300):
            assert code == 0, errors
    one, two = (pandas.read_csv(tmp_path / str(count) / "tiny" / "seed-0" / "metrics.csv") for count in (1, 2))
    one, two = (each[each["split"] == "val"].reset_index(drop=True) for each in (one, two))
    assert len(one) == 3 and np.abs(one["accuracy"] - two["accuracy"]).max() < 1e-3
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_worker_that_dies_stops_the_others_and_another_number_goes_on(tmp_path, session_cache, victim):
    spec, run = write_spec(tmp_path, 1_000_000), RunDirectory(tmp_path / "tiny" / "seed-0")
    workers = start(2, session_cache, "train", spec, "--out", tmp_path)
    wait_for(lambda: len(run.newest_checkpoints()) > 1, workers)
    workers[victim].send_signal(signal.SIGKILL)
    code, _, errors = finish(workers)[1 - victim]
    assert code == 1 and f"error: worker {victim} is lost" in errors and len(errors.splitlines()) < 6, errors
    reached = run.newest_checkpoints()[0]
    again = start(1, session_cache, "train", spec, "--out", tmp_path)
    wait_for(lambda: reached not in run.newest_checkpoints(), again)
    again[0].send_signal(signal.SIGTERM)
    code, _, errors = finish(again)[0]
    assert code == 130 and step_of(run.newest_checkpoints()[0]) > step_of(reached), errors


@pytest.mark.slow
def test_a_signal_to_any_worker_stops_all_at_one_step_and_one_worker_ends_the_run(tmp_path, alone, session_cache):
    spec, run = write_spec(tmp_path), RunDirectory(tmp_path / "tiny" / "seed-0")
    program = partial(stopping, worker=1)
    chief, other = finish(start(2, session_cache, "train", spec, "--out", tmp_path, program=program))
    assert chief[0] == other[0] == 130, chief[2] + other[2]
    assert "the same command resumes from there" in chief[2] and other[1:] == ("", "")
    assert not run.finished and run.newest_checkpoints()
    [(code, _, errors)] = finish(start(1, session_cache, "train", spec, "--out", tmp_path))
    assert code == 0, errors
    assert_same_run(run.path, alone)


def step_of(path: Path) -> int:
    """Return the step of a checkpoint."""
    return int(path.stem.removeprefix("step-"))


def wait_for(seen, workers: list[Started]) -> None:
    end = time.monotonic() + 300
    while not seen():
        dead = [worker for worker in workers if worker.poll() is not None]
        if dead or time.monotonic() > end:
            pytest.fail("\n".join(errors for _, _, errors in finish(workers)))
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("told", "part"),
    [
        ("x", "Expecting value"),
        ("[]", "no worker of a cluster"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "'task' is missing"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "twice"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "host:port"),
        ('{"cluster": {"worker": ["a:1"], "ps": []}, "task": {"type": "worker", "index": 0}}', "'ps' is neither"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "no worker 2"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}', "no worker -1"),
    ],
)
def test_a_wrong_cluster_is_refused_in_one_line(told, part):
    with pytest.raises(RunError, match=part) as refused:
        find({"TF_CONFIG": told})
    assert "\n" not in str(refused.value) and "unset it" in str(refused.value)


def test_the_cluster_of_srun(monkeypatch):
    monkeypatch.setattr(
        "metarun.experiments.jobs.rendezvous.reach", {"gpu08": "gpu08", "gpu09": "10.0.0.9", "login": "l"}.get
    )
    slurm = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_JOB_ID": "17",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NODELIST": "gpu[08-09],login",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2),2",
        "SLURMD_NODENAME": "login",
    }
    found = find(slurm)
    assert found and found.index == 2 and len(set(found.addresses)) == 4
    assert [address.split(":")[0] for address in found.addresses] == ["gpu08", "10.0.0.9", "l", "l"]
    assert find({**slurm, "SLURM_PROCID": "3", "SLURM_JOB_ID": "18"}).addresses != found.addresses
    with pytest.raises(RunError, match="--distribution=block"):
        find({**slurm, "SLURM_PROCID": "1"})
    assert find({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "17"}) is None  # a batch script is one process


@pytest.mark.parametrize(
    ("case", "change", "part"),
    [
        ("maml", {}, "a meta_batch of 5"),
        ("rl2", {}, "a minibatch of 8"),
        ("rl2", {"shuffle": True}, "mini-batches that are shuffled: start one, or shuffle: false"),
        ("reptile", {"serial": True}, "algorithm.serial"),
    ],
)
def test_what_workers_cannot_share_out_is_said(case, change, part):
    told = sharing.CASES[case]
    told = told | {"algorithm": told["algorithm"] | change, "train": told["train"] | {"steps": 1}}
    assert part in (unshareable(Experiment(name="shared", **told), 9) or "")


@pytest.mark.parametrize(
    ("settings", "network", "part"),
    [
        ({}, {"batch_norm": True}, "batch norm sees a mini-batch whole, which 3 workers cannot share: set algorithm."),
        ({"norm_groups": 2}, {"batch_norm": True}, "sees a mini-batch in 2 parts, which 3 workers cannot share"),
        ({"norm_groups": 6}, {"batch_norm": True}, None),
        ({}, {"batch_norm": False}, None),
    ],
)
def test_workers_share_a_mini_batch_if_batch_norm_lets_them(settings, network, part):
    """Reject the advice to set norm_groups where there is no batch norm, which is refused as without effect."""
    told = {
        "algorithm": {"name": "baseline", **settings},
        "network": {"name": "mlp", "hidden": [4], **network},
        "dataset": {"name": "glyphs"},
        "protocol": "inductive",
        "train": {"meta_batch": 12, "steps": 1},
    }
    experiment = Experiment(name="shared", **told)
    reason = unshareable(experiment, 3)
    assert part in reason if part else reason is None
    assert "divides train.meta_batch" in unshareable(experiment, 5)
