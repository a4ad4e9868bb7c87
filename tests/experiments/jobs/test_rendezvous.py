"""Workers wait for each other, and say for whom."""

import json
import socket
import threading
from contextlib import ExitStack

import pytest
import slurm_jobs
from click.testing import CliRunner

from metarun.cli.main import metarun as group
from metarun.experiments.errors import RunError
from metarun.experiments.jobs import rendezvous
from metarun.experiments.jobs.rendezvous import Rendezvous, gather

STEP = {  # of `srun -n2` on this host
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURMD_NODENAME": "localhost",
}


def addresses(count: int) -> list[str]:
    """Return free addresses of this host."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(rendezvous, "QUIET", 0.0)


@pytest.mark.parametrize("named_by", ["srun", "TF_CONFIG"])
def test_fault_20_a_worker_that_is_alone_says_so_and_ends(tmp_path, monkeypatch, impatient, named_by):
    """Reject a command that is silent for ever."""
    monkeypatch.setattr("metarun.experiments.system.startup.silence_libraries", lambda: None)  # of this process
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(slurm_jobs.SPEC)
    told = {"cluster": {"worker": addresses(2)}, "task": {"type": "worker", "index": 0}}
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in (STEP if named_by == "srun" else {"TF_CONFIG": json.dumps(told)}).items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(group, ["train", "tiny.yaml", "-s", "train.meta_batch=2", "--wait", "0.002"])
    where = "SLURM_STEP_NUM_TASKS=2" if named_by == "srun" else "TF_CONFIG"
    assert f"waiting for worker 1 of 2 ({where}); to train alone: unset it\n" in done.output
    assert isinstance(done.exception, RunError) and str(done.exception).startswith(
        f"worker 1 of 2 did not start within 0.002 minutes ({where}): start all workers, wait longer ("
    )
    assert not (tmp_path / "runs").exists()


def test_fault_20_only_those_that_are_missing_are_named(impatient, capsys):
    with ExitStack() as stack:
        there = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        one, three, four = addresses(3)
        told = Rendezvous([one, f"127.0.0.1:{there.getsockname()[1]}", three, four], 0)
        with pytest.raises(RunError, match="workers 2, 3 of 4 did not start"):
            gather(told, 0.001)
        assert "waiting for workers 2, 3 of 4 (TF_CONFIG)" in capsys.readouterr().err
        taken = Rendezvous([told.addresses[1], one], 0)
        with pytest.raises(RunError, match="of this worker cannot be used: Address already in use"):
            gather(taken, 0.001)


def test_workers_that_start_one_after_the_other_all_begin(capsys):
    """Reject one that is late, and is not answered any more by those that have seen all others."""
    told, begun, errors = addresses(3), threading.Barrier(3), []

    def work(index):
        try:
            gather(Rendezvous(told, index), 1.0)
            with socket.create_server(("127.0.0.1", int(told[index].partition(":")[2]))):  # as TensorFlow does then
                begun.wait(60)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not capsys.readouterr().err
