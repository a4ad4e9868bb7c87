"""benchmarks/gpu.py without a GPU: what it compares, how it ends, and the whole of it on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metarun.experiments.config.load import load

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu(script):
    return script("benchmarks/gpu.py")


@pytest.fixture
def check(gpu):
    return gpu.Check(minutes=1.0, small=True, threads=1)


def test_gradients_are_compared_as_a_whole(gpu):
    """Reject a comparison by the largest entry, which misses a layer that is wrong, and one of float32 with float32."""
    generator = np.random.default_rng(0)
    side = {f"maml|{kind}|1|{name}": generator.normal(size=4) for kind in ("float64", "float32") for name in "ab"}
    assert gpu.difference(side, side, "maml", 1, "float64") == 0
    other = side | {"maml|float64|1|b": side["maml|float64|1|b"] * (1 + 1e-6)}
    assert 1e-8 < gpu.difference(other, side, "maml", 1, "float64") < 1e-6
    assert gpu.difference(side, side, "maml", 1, "float32") > 0.1


def test_processes_that_fail_or_take_too_long_are_told(gpu, check):
    """Reject a process that goes on after the time is over."""
    assert check.run(["-c", "print(1)"]) == "1\n"
    with pytest.raises(gpu.Failed, match="^ValueError: no$"):
        check.run(["-c", "raise ValueError('no')"])
    check.end -= 60
    begun = []
    start = check.start
    check.start = lambda *some: begun.append(start(*some)) or begun[-1]
    with pytest.raises(gpu.Failed, match="no time left"):
        check.together([(["-c", "import time; time.sleep(600)"], {}, None)])
    assert begun[0].returncode == -9


def test_the_exit_code_is_1_if_a_check_fails(gpu, monkeypatch, capsys):
    """Reject a section that is left out, for want of time, as a failure; and one that ends with an error as none."""

    def fails(check):
        raise gpu.Failed("RunError: no")

    def late(check):
        check.end -= 600
        raise gpu.Failed("no time left")

    sections = {"machine": lambda check: None, "repeat": late}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    assert gpu.main([]) == 0
    assert "left out: the rest of repeat: no time left" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "SECTIONS", sections | {"rates": fails})
    assert gpu.main(["--only", "rates"]) == 1
    assert "FAILED rates: RunError: no" in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["maml", "protonet"])
def test_its_runs_are_valid_specs(gpu, tmp_path, algorithm):
    for small in (True, False):
        path = tmp_path / f"{small}.yaml"
        path.write_text(gpu.spec(algorithm, small, PRECISION="float64"))
        experiment = load(str(path)).experiment
        assert experiment.precision == "float64" and experiment.compiles


def test_its_gradients_are_of_valid_specs(gpu, script):
    parts = script("benchmarks/gpu_parts.py")
    for name in gpu.ALGORITHMS:
        experiment = parts.experiment_of(name, "float64", 4, "train.meta_batch=64")
        assert experiment.precision == "float64" and experiment.compiles and experiment.train.meta_batch == 64


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--threads", "1", "--minutes", "20"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "left out: everything that needs a GPU: TensorFlow lists none",
        "ok     maml: float64 equals the CPU's within 1e-09",
        "ok     protonet: two runs are equal, bit for bit",
        "ok     two workers make the weights of one in float64",
        "left out: two runs that share a GPU: there is none",
        "no check failed",
    ):
        assert line in done.stdout, done.stdout
