"""Submissions to a feigned sbatch: what reaches it, and what is left where it refuses."""

import json
import os
import shlex
from pathlib import Path

import pytest
import slurm_jobs
from click.testing import CliRunner
from feigned_slurm import FeignedSlurm
from rows import ROW
from submitit.core.utils import CommandFunction  # here, before CliRunner replaces the streams that its logger keeps

from metarun.cli.main import metarun as group
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.jobs import job
from metarun.experiments.jobs.settings import settled
from metarun.experiments.jobs.submission import find_submissions
from metarun.experiments.runs.rows import Row
from metarun.experiments.runs.sweep import grid

SHELL = {  # of `salloc`, `srun` and MPI's launchers, and defaults of Slurm's commands
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURMD_NODENAME": "node1",
    "SBATCH_PARTITION": "nowhere",
    "SRUN_CPUS_PER_TASK": "3",
    "SALLOC_ACCOUNT": "a",
    "SQUEUE_STATES": "RUNNING",
    "PMI_RANK": "1",
    "PMIX_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "SUBMITIT_EXECUTOR": "slurm",
    "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    "CUDA_VISIBLE_DEVICES": "3",
}


@pytest.fixture
def feigned(tmp_path, monkeypatch):
    """Start a feigned Slurm; the spec is in the current folder, and the user has no settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("METARUN_CLUSTER", raising=False)
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METARUN_OFFLINE", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("tiny.yaml").write_text(slurm_jobs.SPEC)
    return FeignedSlurm(tmp_path / "bin", monkeypatch)


def metarun(*arguments, raises=None):
    """Run the command in this process; return its output, or the message of the error that it raises."""
    done = CliRunner().invoke(group, list(map(str, arguments)))
    if raises:
        assert isinstance(done.exception, raises), (done.output, done.exception)
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_fault_19_the_shells_allocation_reaches_no_job(feigned, monkeypatch):
    """Reject a job with the shell's SLURM_NTASKS, squeue with its states, sbatch with another partition."""
    metarun("submit", "tiny.yaml", "--out", "before")
    plain = set(os.environ)
    for name, value in {**SHELL, "SLURM_CONF": "/etc/here.conf", "MINE": "1"}.items():
        monkeypatch.setenv(name, value)
    told = metarun("submit", "tiny.yaml")
    assert "SBATCH_PARTITION of this shell: not used" in told and os.environ["SLURM_NTASKS"] == "4"
    first, _, *inside = feigned.environments()
    assert len(inside) == 3 and all(not each & SHELL.keys() for each in inside[:2])
    assert all(plain & first | {"SLURM_CONF", "MINE"} <= each for each in inside)
    assert inside[-1] & SHELL.keys() == {"CUDA_VISIBLE_DEVICES"}  # of squeue, which has no use for it
    monkeypatch.delenv("SLURM_JOB_ID")  # no allocation: the GPUs are the user's choice
    metarun("submit", "tiny.yaml", "--out", "other")
    assert "CUDA_VISIBLE_DEVICES" in feigned.environments()[-2]


def test_fault_19_status_shows_the_job_of_the_table(feigned):
    metarun("submit", "tiny.yaml")
    (submission,) = find_submissions(Path("runs"))
    table = f"{submission.table}|{submission.of_table}"

    def status():
        return metarun("status", "runs").splitlines()[-1]

    feigned.queue(f"{table}|PENDING|Dependency")
    assert status() == f"table: waiting for Dependency (job {submission.table})"
    feigned.queue(f"{table}|RUNNING|None")
    assert status() == f"table: being written (job {submission.table})"
    feigned.queue()
    lost = f"; print it with `metarun table`, or `metarun reproduce` for a paper's (job {submission.table})"
    assert status() == f"table: not written: its job ended before it started{lost}"
    (submission.folder / f"{submission.table}_0_log.out").write_text("slurmstepd: error: no memory\n\n")
    assert status() == f"table: not written: its job ended early; its log ends with: slurmstepd: error: no memory{lost}"
    Path("runs/.results.lock").unlink(missing_ok=True)
    Path("runs/.results.lock").mkdir()
    with pytest.raises(SystemExit):
        job.plainly(job.write_table, "runs", None, str(submission.outcome))
    assert status() == f"table: not written: runs/.results.lock: Is a directory{lost}"
    Path("runs/.results.lock").rmdir()
    job.write_table("runs", None, str(submission.outcome))
    feigned.queue(f"{table}|COMPLETING|None")
    assert status() == f"table: written (job {submission.table})"
    feigned.queue()
    submission.table = None
    submission.outcome.unlink()
    submission.write()
    last = metarun("status", ".").splitlines()[-1]
    assert last.startswith("table of runs: not written: no job for it was submitted; print it with `metarun table`")


@pytest.mark.parametrize("name", ["50%acc", "100%", "a%%b", "a\\b", "a\nb", "a\tb", "\udcff"])
def test_fault_21_a_path_that_sbatch_would_change_is_refused(feigned, name):
    """Reject a job that ends before it starts, because its log has another name. So it is by way of a link."""
    Path(name).mkdir()
    Path("link").symlink_to(name)
    for out in (f"{name}/runs", "link"):
        for more in ((), ("--dry-run",)):
            told = metarun("submit", "tiny.yaml", "--out", out, *more, raises=RunError)
            assert told.endswith(" in its path: choose another --out") and "\n" not in told and told.isprintable()
    assert not feigned.scripts() and not any(Path(name).iterdir())


def test_fault_21_other_paths_are_taken_as_they_are(feigned):
    """Reject a message whose commands do not work when they are typed."""
    for number, name in enumerate(
        ["a b", "a'b", 'a"b', "-x", "--out=x", "ünï", "#b", "$HOME", "~", "a*b", "!x", "a;b"]
    ):
        told = metarun("submit", "tiny.yaml", "--out", name)
        log = shlex.quote(f"{Path(name).resolve()}/.jobs/{find_submissions(Path(name))[0].name}/%j_0_log.out")
        assert f"#SBATCH --output={log}" in feigned.scripts()[2 * number].splitlines()
        typed = shlex.split(told.split("`")[1])
        assert typed[:2] == ["metarun", "status"] and Path(typed[2]) == Path(name) and typed[2][0] != "-"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"partition": "a\\b"}, "partition: a backslash, a line break or a control character is no value"),
        ({"account": "a\n#SBATCH --hold"}, "account: a backslash, a line break"),
        ({"slurm": {"comment": "x\r"}}, "slurm.comment: a backslash, a line break"),
        ({"slurm": {"comment": "a\x00"}}, "slurm.comment: a backslash, a line break"),
        ({"slurm": {"comment\nhold": "a"}}, "expected the long name of an option"),
        ({"slurm": {"-p": "a"}}, "slurm.-p: expected the long name of an option of sbatch, got '-p'"),
        ({"slurm": {"qos=a": "a"}}, "slurm.qos=a: expected the long name of an option"),
        ({"slurm": {"job_name": "a"}}, "slurm.job_name: metarun itself sets this option of sbatch: leave it out"),
        ({"slurm": {"output": "/tmp/%j"}}, "slurm.output: metarun itself sets this"),
        ({"slurm": {"out": "/tmp/%j"}}, "slurm.out: metarun itself sets this"),
        ({"slurm": {"parsable": True}}, "slurm.parsable: metarun itself sets this"),
        ({"slurm": {"clusters": "b"}}, "slurm.clusters: metarun itself sets this"),
    ],
)
def test_fault_21_a_setting_that_sbatch_would_change_is_refused(feigned, settings, part):
    with pytest.raises(SpecError) as refused:
        settled(None, settings)
    assert part in str(refused.value)
    assert settled(None, {"slurm": {"wait-all-nodes": 1, "comment": "50% of a 'b' \"c\" $d #e"}})


def test_fault_27_fresh_sets_nothing_aside_that_sbatch_refuses(feigned):
    """Reject finished runs renamed for a submission that was refused, and the reason of a failure that is lost."""
    (run, _) = grid(["tiny.yaml"], [], [0, 1], Path("runs"))
    row = Row(**ROW | {"spec_digest": run.experiment.digest, "seed": 0}).as_json()
    kept = {"seed-0/result.json": json.dumps(row), "seed-1/failure.txt": "nan\n", "seed-1/restarts.json": "{}"}
    metarun("submit", "tiny.yaml", "--seeds", "0-1")
    for name, text in kept.items():
        (Path("runs/tiny") / name).write_text(text)

    def contents():
        files = [path for path in Path("runs/tiny").rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.read_text() for path in files}

    before = contents()
    feigned.refuse("sbatch: error: invalid partition")
    for more in ((), ("--fresh",)):
        told = metarun("submit", "tiny.yaml", "--seeds", "0-2", *more, raises=RunError)
        assert told == "sbatch refuses: invalid partition"
        assert contents() == before
    assert sorted(os.listdir("runs/tiny")) == ["seed-0", "seed-1"]
    feigned.accept()
    metarun("submit", "tiny.yaml", "--seeds", "0-2", "--fresh")
    assert sorted(os.listdir("runs/tiny")) == ["seed-0", "seed-0~1", "seed-1", "seed-1~1", "seed-2"]


def test_fault_31_the_error_of_sbatch_is_printed_once(feigned, capfd):
    feigned.refuse("sbatch: error: Batch job submission failed: Invalid account")
    told = metarun("submit", "tiny.yaml", raises=RunError)
    assert told == "sbatch refuses: Batch job submission failed: Invalid account"
    assert "Invalid account" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_submission_that_is_interrupted_leaves_no_trace(feigned, monkeypatch, error):
    """Reject a record of runs that wait for no job, and jobs of runs that were put back."""

    def interrupted(*arguments):
        raise error

    monkeypatch.setattr(CommandFunction, "__call__", interrupted)
    done = CliRunner().invoke(group, ["submit", "tiny.yaml"], standalone_mode=False)
    assert done.exit_code == 1 and (feigned.folder / "cancelled").read_text().startswith("--name=metarun-")
    assert not list(Path("runs").glob(".jobs/metarun-*")) and not Path("runs/tiny").exists()


def test_jobs_that_were_taken_in_unknown_words_are_cancelled(feigned):
    """Reject jobs in the queue that no record has, of runs that are told to be refused."""
    (feigned.folder / "answer").write_text("thank you\n")
    told = metarun("submit", "tiny.yaml", raises=RunError)
    assert told.startswith("sbatch refuses: Could not make sense of sbatch output")
    assert (feigned.folder / "cancelled").read_text().startswith("--name=metarun-")
    assert not list(Path("runs").glob(".jobs/metarun-*")) and not Path("runs/tiny").exists()
