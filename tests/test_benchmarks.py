"""The works of benchmarks/ take two steps each, `compare.py` makes its tables, `metarun benchmark` measures a spec."""

import csv
import io
import json
import math
import sys
from importlib.util import find_spec

import numpy as np
import pandas
import pytest
import tensorflow as tf
from command import metarun
from sources import ROOT

from metarun.experiments.config.load import load
from metarun.experiments.training import benchmark as module
from metarun.experiments.training.benchmark import Benchmark, render


@pytest.fixture(scope="module")
def load_script(script):
    """Return a function that loads a file of benchmarks/, whose imports of others there are found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield lambda name: script(f"benchmarks/{name}.py")


@pytest.fixture(scope="module")
def works(load_script):
    return load_script("metarun_works")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("W1", "W2", "W4", "W5")]


@pytest.mark.parametrize("name", ["W3", *SLOW])
def test_two_steps_of_each_work(works, name):
    """Check that two tasks with few images are enough: W2 as a whole takes 8 GB."""
    work = sys.modules["works"].WORKS[name]
    small = {"meta_batch": min(work.train.meta_batch, 2), "query": min(work.train.query, 3)}
    work = works.side(work._replace(train=work.train.model_copy(update=small)))
    first, second = work.expected()["losses"]  # on the same tasks
    assert math.isfinite(first) and math.isfinite(second) and second != first
    assert work.operations > 5e8
    given = work.given()
    assert len(given["support_x"]) == small["meta_batch"] and set(work.parameters) == {
        each.partition("/")[2] for each in given if each.startswith("parameters/")
    }


@pytest.mark.parametrize("name", ["W6", pytest.param("W9", marks=pytest.mark.slow)])
def test_two_steps_of_rl2(works, name):
    work = works.side(sys.modules["works"].WORKS[name]._replace(trials=20, pulls=5))
    first, second = work.step(), work.step()  # of other trials
    assert 0 < first < 5 and 0 < second < 5 and second != first
    assert work.operations > 20 * 5 * 2 * 256 * 3 * 256


LINES = [  # work, side, variant, seconds of each round
    ("W10", "metarun", "float32", [1.0, 1.2, 1.1]),
    ("W10", "pytorch", "loop", [9.0]),  # left out after a round
    ("W10", "pytorch", "vmap", [3.3, 3.4, 3.2]),
    ("W10", "pytorch", "loop, tuned", [2.2, 2.1, 2.3]),
    ("W10", "pytorch", "vmap, tuned", [2.0]),  # one lucky round does not make it the best
    ("W10", "jax", "jit", [0.5, 0.6, 0.55]),
]


@pytest.fixture
def measured():
    """Return lines of processes as `compare.py` collects them."""
    told = {"faults": 1234.0, "memory": 100.0}
    return pandas.DataFrame(
        {"work": work, "side": side, "variant": variant, "seconds": one, **told}
        | ({"operations": 1e9, "rate": 2.0} if side == "metarun" else {})
        for work, side, variant, rounds in LINES
        for one in rounds
    )


def test_the_columns_of_a_comparison(load_script, measured):
    """Reject a variant with fewer rounds as the best, and a tuned one as PyTorch as its users start it."""
    found = load_script("compare").summary(measured).set_index(["side", "variant"])
    assert found["shown"].to_dict() == {
        ("metarun", "float32"): "",
        ("pytorch", "loop"): "",
        ("pytorch", "vmap"): "as started",
        ("pytorch", "loop, tuned"): "best",
        ("pytorch", "vmap, tuned"): "",
        ("jax", "jit"): "",
    }
    best = found.loc[("pytorch", "loop, tuned")]
    assert (best["seconds"], best["smallest"], best["largest"], best["ratio"]) == pytest.approx((2.2, 2.1, 2.3, 2.0))


def test_the_files_of_a_comparison(load_script, measured, tmp_path):
    compare = load_script("compare")
    found, readme = compare.summary(measured), tmp_path / "README.md"
    readme.write_text("before\n<!-- compare -->\nold\n<!-- end -->\nafter\n")
    options = compare.argparse.Namespace(csv=tmp_path / "a.csv", plot=tmp_path / "a.svg", tables=readme)
    compare.save(found, options)
    text = readme.read_text()
    assert text.startswith("before\n<!-- compare -->\n") and text.endswith("\n<!-- end -->\nafter\n")
    assert "3300 (3200 to 3400)" in text and "3.00" in text and "45%" in text and "old" not in text
    assert len(pandas.read_csv(options.csv)) == len(LINES) and "<svg" in options.plot.read_text()
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="<!-- compare -->"):
        compare.save(found, options)
    assert readme.read_text() == "no marks"


def test_a_variant_that_cannot_be_the_fastest(load_script, measured):
    """Compare variants with those of their own column: a slow start of PyTorch is its user's all the same."""
    compare = load_script("compare")
    slow = [each for _, side, each, _ in LINES if compare.is_slow("W10", side, each, measured)]
    assert slow == ["loop"]


def test_variants_and_the_memory_that_they_need(load_script, monkeypatch):
    compare = load_script("compare")
    for work in compare.WORKS.values():
        started, tuned = compare.variants(work)
        assert all("tuned" in each for each in tuned) and not any("tuned" in each for each in started)
        assert len(set(started + tuned)) == len(started + tuned)
    assert compare.lacks_memory("W1", "vmap") == ""
    monkeypatch.setitem(compare.NEEDS, ("W2", "vmap"), 10**6)
    assert "needs 1000000 GiB" in compare.lacks_memory("W2", "vmap, tuned")


def test_other_results_are_refused(load_script):
    """Reject a second loss that differs in its sixth digit, and one that is not a number."""
    side, ours = load_script("side"), {"losses": np.array([1.5, 1.25])}
    side.refuse_difference("W1", ours, {"losses": np.array([1.5, 1.25 + 1e-9])}, side.AGREE)
    for second in (1.25001, math.nan):
        with pytest.raises(SystemExit, match="W1: not the same work"):
            side.refuse_difference("W1", ours, {"losses": np.array([1.5, second])}, side.AGREE)


def test_times_of_steps(load_script, monkeypatch):
    """Measure steps in calls that grow; the steps before them, which compile, count for nothing."""
    side, calls, clock = load_script("side"), [], iter(range(10**6))
    monkeypatch.setattr(side.time, "perf_counter", lambda: 0.01 * next(clock))  # 0.01 s a call
    monkeypatch.setattr(side, "MOST", 16)
    monkeypatch.setattr(side, "SECONDS", 0.045)
    result = side.measure(calls.append)
    assert calls == [1, 1, 4, 4, 16, 16, *[16] * 5]
    assert result["seconds"] == pytest.approx(0.01 / 16) and result["memory"] > 0


@pytest.fixture(scope="module")
def given(load_script, tmp_path_factory):
    """Return the files that metarun's side of W10 writes, for a check and for a measurement."""
    folder, run = tmp_path_factory.mktemp("given"), load_script("compare").run
    run("check", "W10", "metarun", "float64", folder / "check.npz")
    run("give", "W10", "metarun", "float32", folder / "give.npz")
    return folder / "check.npz", folder / "give.npz"


@pytest.mark.slow
@pytest.mark.parametrize("peer, variants, timed", [("torch", "loop; vmap", "vmap, tuned"), ("jax", "jit", "jit")])
def test_sides_in_processes_of_their_own(load_script, given, tmp_path, peer, variants, timed):
    """Check that a peer agrees in float64, and that it is measured; reject a difference in the sixth digit."""
    if find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    run, side, other = load_script("compare").run, {"torch": "pytorch"}.get(peer, peer), tmp_path / "other.npz"
    assert run("check", "W10", side, variants, given[0]) == {}
    arrays = dict(np.load(given[0]))
    np.savez(other, **arrays | {"losses": arrays["losses"] * [1, 1 + 1e-5]})
    with pytest.raises(Exception, match="W10, .* not the same work: its losses differ by"):
        run("check", "W10", side, variants, other)
    result = run("time", "W10", side, timed, given[1])
    assert set(result) == {"seconds", "faults", "memory"} and result["seconds"] > 0


def test_the_rate_of_the_machine_is_the_larger_of_two(monkeypatch):
    """Reject the one before the steps alone, which other work on the machine may have halved."""
    rates = {tf.float32: iter([10.0, 20.0]), tf.bfloat16: iter([40.0, 30.0])}
    monkeypatch.setattr(module, "matrix_rate", lambda dtype: next(rates[dtype]))
    tiny = ["network={name: mlp, hidden: [8]}", "train.way=2", "train.query=1", "test.episodes=20"]
    result = module.benchmark(load("quickstart/protonet", tiny).experiment, 2, imports=0.0)
    assert (result.float32_rate, result.bfloat16_rate) == (20.0, 40.0)
    assert result.fraction == pytest.approx(result.rate / 20)


def test_hours_count_stored_features_once_and_in_the_test_alone(monkeypatch):
    """Reject tests from images, features for each task, and validations on stored features."""
    tiny = ["train.steps=4", "train.meta_batch=1", "validation.every=2", "validation.episodes=30", "test.episodes=50"]
    experiment = load("quickstart/protonet", tiny).experiment
    monkeypatch.setattr(module, "_seconds_of_test", lambda model: (3600.0, 36_000.0, 720.0))
    training, test = module.estimate_hours(experiment)
    assert test == pytest.approx(10 + 50 * 0.2)
    assert training == pytest.approx(2 * 30, rel=0.1)  # the steps take milliseconds
    assert module.estimate_hours(experiment, trained=True) == (0.0, pytest.approx(20))


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
