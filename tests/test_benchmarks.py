"""The works of benchmarks/ take two steps each, and `metarun benchmark` measures a spec."""

import csv
import io
import json
import math

import pytest
import tensorflow as tf
from command import metarun

from metarun.experiments.config.load import load
from metarun.experiments.training import benchmark as module
from metarun.experiments.training.benchmark import Benchmark, render


@pytest.fixture(scope="module")
def works(script):
    return script("benchmarks/works.py")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("W2", "W4", "W5")]


@pytest.mark.parametrize("name", ["W1", "W3", *SLOW])
def test_two_steps_of_each_work(works, name):
    """Check that two tasks with few images are enough: W2 as a whole takes 8 GB."""
    work = works.WORKS[name]
    small = {"meta_batch": min(work.train.meta_batch, 2), "query": min(work.train.query, 3)}
    work = works.side(work._replace(train=work.train.model_copy(update=small)))
    first, second = work.step(), work.step()  # on the same tasks
    assert math.isfinite(first) and math.isfinite(second) and second != first
    assert work.operations > 5e8


@pytest.mark.parametrize("name", ["W6", pytest.param("W9", marks=pytest.mark.slow)])
def test_two_steps_of_rl2(works, name):
    work = works.side(works.WORKS[name]._replace(trials=20, pulls=5))
    first, second = work.step(), work.step()  # of other trials
    assert 0 < first < 5 and 0 < second < 5 and second != first
    assert work.operations > 20 * 5 * 2 * 256 * 3 * 256


def test_the_rate_of_the_machine_is_the_larger_of_two(monkeypatch):
    """Reject the one before the steps alone, which other work on the machine may have halved."""
    rates = {tf.float32: iter([10.0, 20.0]), tf.bfloat16: iter([40.0, 30.0])}
    monkeypatch.setattr(module, "matrix_rate", lambda dtype: next(rates[dtype]))
    tiny = ["network={name: mlp, hidden: [8]}", "train.way=2", "train.query=1", "test.episodes=20"]
    result = module.benchmark(load("quickstart/protonet", tiny).experiment, 2, imports=0.0)
    assert (result.float32_rate, result.bfloat16_rate) == (20.0, 40.0)
    assert result.fraction == pytest.approx(result.rate / 20)


def test_the_command(tmp_path, cache_folder):
    done = metarun("benchmark", "quickstart/protonet", "--steps", 4, "--format", "json", cwd=tmp_path)
    result = Benchmark.model_validate(json.loads(done.stdout))
    assert result.operations > 1e8
    assert result.step_low <= result.step <= result.step_high
    assert result.first_step >= result.imports + result.data + result.tracing
    assert result.experiment_hours * 3600 > 600 * result.step
    assert result.fraction == pytest.approx(result.rate / result.float32_rate) and result.memory > 2**28
    (row,) = csv.DictReader(io.StringIO(render(result, "csv")))
    assert row["experiment"] == result.experiment and "one step" in render(result, "text")
    assert not list(tmp_path.iterdir())  # keeps nothing
