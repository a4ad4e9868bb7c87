"""Requests to a cluster, the locks that its disks must have, and the images that must be there."""

import errno
import fcntl
from pathlib import Path

import pytest
import slurm_jobs
from click.testing import CliRunner

from metarun.cli.validate import command as validate
from metarun.datasets.errors import DataError
from metarun.experiments.config.cluster import Cluster
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.jobs.arrays import for_table, options
from metarun.experiments.jobs.submit import preview
from metarun.experiments.runs.rows import merge
from metarun.experiments.runs.sweep import grid
from metarun.experiments.system import lock


def test_the_job_that_writes_the_table_asks_for_little():
    """Reject what the runs wait for, and what they need. The job waits for the runs alone."""
    slurm = {"dependency": "afterok:77", "gres": "gpu:1", "mem-per-cpu": "8G", "qos": "low", "reservation": "x"}
    runs = Cluster(partition="p", account="a", memory="64G", workers=4, cpus=8, slurm=slurm)
    asked, whole = map(options, for_table(runs))
    assert asked["additional_parameters"].keys() == {"signal", "requeue", "qos", "reservation"}
    assert (asked["partition"], asked["account"], asked["cpus_per_task"]) == ("p", "a", 1) and "mem" not in asked
    assert whole["additional_parameters"]["gres"] == "gpu:1" and whole["mem"] == "64G"  # for sites that refuse less
    assert "dependency" not in whole["additional_parameters"] and whole["time"] == 30


def test_disks_without_locks_are_told(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    wanted = r"lock cannot be locked \(Function not implemented\): choose an --out on a disk with locks"
    with pytest.raises(RunError, match=wanted), lock.locked(tmp_path / ".lock"):
        pass
    with pytest.raises(RunError, match=wanted):
        merge(tmp_path)


def test_images_that_are_not_there_are_told_before_the_queue(tmp_path):
    spec = slurm_jobs.SPEC.replace("{name: sinusoid}", "{name: imagefolder, path: nowhere}")
    spec = spec.replace("{name: maml, inner_lr: 0.01}", "{name: protonet}").replace("way: 1", "way: 2")
    (tmp_path / "images.yaml").write_text(spec)
    told = slurm_jobs.metarun(tmp_path, "submit", "images.yaml", "--executor", "local", code=1)
    assert f"before submitting: imagefolder, not here: {tmp_path / 'nowhere'} is not a folder" in told


def test_fault_27_a_preview_and_validate_refuse_a_folder_that_is_not_there(tmp_path, monkeypatch):
    """Refuse a folder that is missing; a dataset that is to be downloaded is no mistake. Rejected: ok, and an error
    once the run starts."""
    spec = slurm_jobs.SPEC.replace("{name: sinusoid}", "{name: imagefolder, path: nowhere}")
    spec = spec.replace("{name: maml, inner_lr: 0.01}", "{name: protonet}").replace("way: 1", "way: 2")
    (tmp_path / "images.yaml").write_text(spec)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "empty"))
    nowhere, out = tmp_path / "nowhere", Path("runs")
    for told in (f"{nowhere} is not a folder", f"{nowhere} has no class folders with images"):
        with pytest.raises(DataError, match=f"before submitting: .*{told}"):
            preview(grid(["images.yaml"], (), [], out), out, "local", {})
        error = CliRunner().invoke(validate, ["images.yaml"]).exception
        assert isinstance(error, SpecError) and str(error).startswith(f"images.yaml:5: dataset.path: {told}")
        nowhere.mkdir(exist_ok=True)
    (tmp_path / "images.yaml").write_text(spec.replace("imagefolder, path: nowhere", "omniglot"))
    assert CliRunner().invoke(validate, ["images.yaml"]).output.startswith("images.yaml: ok")
    preview(grid(["images.yaml"], (), [], out), out, "local", {})
