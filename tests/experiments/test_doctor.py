"""The output of `metarun doctor`, and when it ends with 1."""

import pytest
import tensorflow as tf
from click.testing import CliRunner

from metarun import experiments
from metarun.cli.main import metarun as group
from metarun.datasets.errors import DataError
from metarun.experiments import doctor
from metarun.experiments.errors import RunError
from metarun.experiments.system import gpus

NAMES = ["metarun", "python", "system", "processor", "cores", "packages", "oneDNN", "threads", "memory", "GPUs"]


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """Let this machine have no Slurm, and no GPU but what a test feigns."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpus, "signs", lambda: [])
    monkeypatch.setattr(gpus, "_reason", lambda: "libcudnn is missing")
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(code=0):
    done = CliRunner().invoke(group, ["doctor"])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_fault_15_doctor_says_what_is_there(healthy, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    lines = printed().splitlines()
    assert [line.split()[0] for line in lines] == [*NAMES, "cache", "runs", "Slurm", "environment"]
    assert "XLA_FLAGS=--xla_cpu_enable_fast_math=false" in lines[-1] and "TF_CPP" not in lines[-1]
    assert not list(healthy.iterdir())  # nothing is left behind


def test_fault_15_doctor_ends_with_1_where_a_gpu_is_not_used(healthy, monkeypatch):
    monkeypatch.setattr(gpus, "signs", lambda: ["nvidia-smi lists NVIDIA H200"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    told = printed(code=1)
    assert "none (CUDA_VISIBLE_DEVICES=0)" in told
    assert "problem: there is a GPU (nvidia-smi lists NVIDIA H200), but TensorFlow does not see it: libcudnn" in told


def test_doctor_says_how_much_of_a_gpu_is_free(healthy, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [tf.config.PhysicalDevice("/x:GPU:0", kind)])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "NVIDIA H200"})
    monkeypatch.setattr(doctor, "describe", lambda: {"onednn": True, "intra_op_threads": 1, "inter_op_threads": 1})
    monkeypatch.setattr(gpus, "memory", lambda: gpus.Memory(40 * 2**30, 140 * 2**30))
    monkeypatch.setattr(gpus, "occupants", lambda: " (on the GPU: julia (process 812))")
    assert "NVIDIA H200; 40.0 of 140.0 GiB free (on the GPU: julia (process 812))\n" in printed()


def test_doctor_tells_a_disk_without_locks_and_a_full_one(healthy, monkeypatch):
    def refuse(path):
        raise RunError(f"{path} cannot be locked (Function not implemented)")

    with monkeypatch.context() as context:
        context.setattr(doctor.lock, "waited", refuse)
        assert printed(code=1).count("problem: ") == 2
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    assert printed(code=1).count("problem: the disk is full") == 2


def test_doctor_tells_a_slurm_that_does_not_answer(healthy, monkeypatch):
    def silent(*command, timeout):
        raise RunError("sinfo: Unable to contact slurm controller")

    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "slurm", silent)
    assert "problem: no controller answers it (sinfo: Unable to contact" in printed(code=1)


def test_doctor_goes_on_where_tensorflow_cannot_be_imported(healthy, monkeypatch):
    def fail(needs_gpu):
        raise DataError("TensorFlow cannot be imported")

    monkeypatch.setattr(experiments.system.startup, "import_tensorflow", fail)
    told = printed(code=1)
    assert "cannot be imported\n            problem: TensorFlow cannot be imported" in told and "\nSlurm" in told
