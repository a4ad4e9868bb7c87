"""A GPU that TensorFlow does not see is told, and where one is required it is an error. GPUs are shared with others."""

import os
import subprocess

import pytest
import tensorflow as tf

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.model import build
from metarun.experiments.system import gpus
from metarun.experiments.system.failures import explain
from metarun.experiments.system.startup import import_tensorflow

REASON = "libcudnn is missing"


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Hide every sign of a GPU of this machine; return the folder that stands for /dev."""
    for name in (*gpus.NAMED, *gpus.COUNTED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "_reason", lambda: REASON)
    return tmp_path


def nvidia_smi(folder, prints="GPU 0: NVIDIA H200 (UUID: GPU-1)", code=0):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{prints}'\nexit {code}\n")
    program.chmod(0o755)


@pytest.fixture
def card(bare, monkeypatch):
    """Return the devices in use: the second of two feigned GPUs of 140 GiB, on which this process and two others are.

    Slices by MIG have no numbers there.
    """
    program = bare / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        "*--list-gpus*) echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-2)';;\n"
        "*--id=1*memory.free*) echo '40960, 143360';;\n"
        f"*--id=1*compute-apps*) echo '{os.getpid()}, python, 512'; echo '812, /opt/a, b/julia, 10240';"
        " echo '9, [Not Found], [N/A]';;\n"
        "*--id=MIG*) echo '[N/A], [N/A]';;\n"
        "*) echo 'No devices were found'; exit 6;;\nesac\n"
    )
    program.chmod(0o755)
    used = [tf.config.PhysicalDevice("/physical_device:GPU:1", "GPU")]
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: used)
    return used


def test_memory_and_processes_of_the_gpu_in_use(card, monkeypatch):
    """Reject the first GPU in place of the one in use, this process among the others, and numbers that are unknown."""
    assert gpus.memory() == (40 * 2**30, 140 * 2**30)
    assert gpus.occupants() == " (on the GPU: julia (process 812) with 10.0 GiB, [Not Found] (process 9))"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,MIG-7")
    assert gpus.memory() is None and gpus.occupants() == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,1")
    assert gpus.memory().free == 40 * 2**30
    card.clear()
    assert gpus.memory() is None and gpus.occupants() == ""


def test_tf32_is_of_gpus_and_named_in_the_spec(card, monkeypatch):
    """Reject a row that says tf32 of products in float32, one that says float32 of products in TF32, and another digest
    of a spec without it."""
    plain = load("quickstart/protonet").experiment
    spec = load("quickstart/protonet", ["precision=tf32"]).experiment
    assert spec.digest != plain.digest and spec.deciding | {"precision": "float32"} == plain.deciding
    details = {"compute_capability": (7, 0), "device_name": "Tesla V100"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    for precision in ("tf32", "bfloat16"):
        with pytest.raises(RunError, match=f"precision: {precision} needs a GPU of .* 8.0, and Tesla V100 has 7.0"):
            build(spec.model_copy(update={"precision": precision}), 0)
    details["compute_capability"] = (9, 0)
    learner = build(spec, 0).learner
    assert tf.config.experimental.tensor_float_32_execution_enabled()
    assert {value.dtype for value in learner.parameters.values()} == {tf.float32}
    build(plain, 0)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    card.clear()
    with pytest.raises(RunError, match="precision: tf32 has no effect without a GPU, and there is a GPU .*libcudnn"):
        build(spec, 0)


def test_a_process_takes_no_more_of_a_gpu_than_it_needs(bare, monkeypatch):
    for name in ("TF_FORCE_GPU_ALLOW_GROWTH", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # is as it was after the test
        monkeypatch.delenv(name)
    import_tensorflow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # TF32 for all programs, whatever they say
    import_tensorflow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"  # the user's choice
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ


def test_memory_that_ran_out_is_told_with_the_processes_on_the_gpu(card):
    told, code = explain(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor by GPU_0_bfc"))
    assert code == 1 and told.startswith("error: out of memory (on the GPU: julia (process 812) with 10.0 GiB, ")
    card.clear()
    assert explain(MemoryError())[0].startswith("error: out of memory: the same command")


@pytest.mark.parametrize(
    "said",
    [
        "{{function_node __wrapped__X_device_/job:localhost/device:GPU:0}} A deterministic GPU implementation of X is "
        "not currently available. [Op:X] name: ",
        "Graph execution error:\n\nDetected at node a/MaxPoolGrad defined at (most recent call last):\nFile b.py\nGPU "
        "MaxPool gradient ops do not yet have a deterministic XLA implementation.\n\t [[{{node a/MaxPoolGrad}}]]",
    ],
)
def test_an_operation_without_a_deterministic_kernel_is_told_in_one_line(said):
    told, code = explain(tf.errors.UnimplementedError(None, None, said))
    assert code == 1 and "\n" not in told and "cannot give equal bits twice on a GPU" in told and "[" not in told
    assert "implementation of X is not currently available)" in told or "deterministic XLA implementation)" in told
    assert "internal error" in explain(tf.errors.UnimplementedError(None, None, "no kernel for int4"))[0]


def test_fault_15_signs_of_a_gpu(bare, monkeypatch):
    assert gpus.signs() == []
    nvidia_smi(bare)
    assert gpus.signs() == ["nvidia-smi lists NVIDIA H200"]
    nvidia_smi(bare, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", 9)
    assert gpus.signs() == []
    for name in ("nvidia0", "nvidiactl", "kfd"):  # nvidiactl is there without a card
        (bare / name).touch()
    assert gpus.signs() == [f"{bare}/nvidia0", f"{bare}/kfd"]
    for name in ("nvidia0", "kfd"):
        (bare / name).unlink()
    for name, value, is_sign in [
        ("SLURM_JOB_GPUS", "0", True),
        ("SLURM_GPUS_ON_NODE", "0", False),
        ("SLURM_GPUS", "a100:2", True),
        ("CUDA_VISIBLE_DEVICES", "0", True),
        ("ROCR_VISIBLE_DEVICES", "1,2", True),
    ]:
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert gpus.signs() == ([f"{name}={value}"] if is_sign else [])


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_not_missed(bare, monkeypatch, value):
    nvidia_smi(bare)
    monkeypatch.setenv("SLURM_JOB_GPUS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpus.signs() == [] and gpus.unused() is None


def test_fault_15_an_unused_gpu_is_told_at_the_start(bare, capsys):
    import_tensorflow()
    assert capsys.readouterr().err == ""
    nvidia_smi(bare)
    import_tensorflow()
    told = capsys.readouterr().err
    assert told.startswith("warning: ") and "NVIDIA H200" in told and REASON in told and told.count("\n") == 1


def test_fault_15_a_required_gpu_is_an_error(bare):
    on_gpu = load("quickstart/protonet", ["device=gpu"]).experiment
    with pytest.raises(RunError, match="a GPU is asked for, and this machine has none"):
        import_tensorflow(needs_gpu=True)
    with pytest.raises(RunError, match="this machine has none"):
        build(on_gpu, 0)
    nvidia_smi(bare)
    with pytest.raises(RunError, match=f"NVIDIA H200.*{REASON}"):
        import_tensorflow(needs_gpu=True)
    assert on_gpu.digest == load("quickstart/protonet").experiment.digest


def test_no_word_where_tensorflow_has_the_gpu(bare, monkeypatch, capsys):
    nvidia_smi(bare)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    import_tensorflow(needs_gpu=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("logged", "helps"),
    [
        ("Could not find cuda drivers on your machine, GPU will not be used.", "driver's library"),
        ("Cannot dlopen some GPU libraries. Skipping registering GPU devices", "tensorflow[and-cuda]"),
        ("failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)", "tensorflow[and-cuda]"),
    ],
)
def test_the_reason_is_what_tensorflow_logs(monkeypatch, logged, helps):
    log = f"I0000 00:00:1.2    8 port.cc:1] oneDNN is on\nE0000 00:00:1796044472.4    83 cuda.cc:52] {logged}\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", log))
    assert logged in gpus._reason() and helps in gpus._reason() and "oneDNN" not in gpus._reason()


def test_a_tensorflow_without_gpus_is_the_reason(monkeypatch):
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_cuda_build": False})
    assert "built for CPUs alone" in gpus._reason()
