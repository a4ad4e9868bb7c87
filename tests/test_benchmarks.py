"""The works of benchmarks/ take two steps each, and `metarun benchmark` measures a spec."""

import csv
import io
import json
import math
import subprocess
import sys

import pytest

from metarun.experiments.training.benchmark import Benchmark, render


@pytest.fixture(scope="module")
def works(script):
    return script("benchmarks/works.py")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("W2", "W4", "W5")]


@pytest.mark.parametrize("name", ["W1", "W3", *SLOW])
def test_two_steps_of_each_work(works, name):
    work = works.side(works.WORKS[name])
    first, second = work.step(), work.step()  # on the same tasks
    assert math.isfinite(first) and math.isfinite(second) and second != first
    assert work.operations > 1e9


@pytest.mark.parametrize("name", ["W6", pytest.param("W9", marks=pytest.mark.slow)])
def test_two_steps_of_rl2(works, name):
    work = works.side(works.WORKS[name]._replace(trials=20, pulls=5))
    first, second = work.step(), work.step()  # of other trials
    assert 0 < first < 5 and 0 < second < 5 and second != first
    assert work.operations > 20 * 5 * 2 * 256 * 3 * 256


def test_the_command(tmp_path, cache_folder):
    command = [sys.executable, "-m", "metarun.cli.main", "benchmark", "quickstart/protonet", "--steps", "4"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, cwd=tmp_path, check=True)
    result = Benchmark.model_validate(json.loads(done.stdout))
    assert result.operations > 1e8
    assert result.step_low <= result.step <= result.step_high
    assert result.first_step >= result.imports + result.data + result.tracing
    assert result.experiment_hours * 3600 > 600 * result.step
    assert 0 < result.fraction < 1 and result.memory > 2**28
    (row,) = csv.DictReader(io.StringIO(render(result, "csv")))
    assert row["experiment"] == result.experiment and "one step" in render(result, "text")
    assert not list(tmp_path.iterdir())  # keeps nothing
