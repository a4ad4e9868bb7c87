"""Configurations that are drawn at random, and the ranges that they are drawn from."""

import math

import pytest
from searches import RATE, SPEC

from metarun.experiments.errors import SpecError
from metarun.experiments.selection.search import search_of
from metarun.experiments.selection.space import Range, drawn, ranges


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Change to a folder with the spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


OVERRIDES = [f"{RATE}=log:1e-4:1e-1", "train.query=int:1:9", "network.hidden=[8],[8, 8],[16]", "train.steps=10"]


def draws(count, *overrides):
    sweep, _ = drawn("tiny.yaml", overrides or OVERRIDES, count)
    return list(sweep.combinations)


def test_fewer_configurations_are_the_beginning_of_more():
    """Reject draws by one generator that is seeded by N, or that draws key after key: 3 are then none of 5."""
    five = draws(5)
    assert draws(3) == five[:3] and draws(5) == five and len({*five}) == 5
    assert [values[0] for values in draws(5, OVERRIDES[0])] == [values[0] for values in five]  # without the other keys
    assert five != draws(5, *OVERRIDES, "seeds=[5]")  # the first seed of the spec decides
    assert {values[3] for values in five} == {"10"}


def test_the_seed_is_stated_and_the_folders_are_kept(tmp_path):
    of_three, of_five = (search_of(["tiny.yaml"], OVERRIDES, [], tmp_path, count) for count in (3, 5))
    assert of_five.words == "5 configurations, drawn with seed 4, the first seed of the spec"
    names = [each.name for each in of_five.configurations]
    assert names[:3] == [each.name for each in of_three.configurations] and of_five.name == "tiny"
    first = of_five.configurations[0]
    rate = first.settings[0].removeprefix(f"{RATE}=")
    assert first.run.experiment.optimizer.learning_rate == float(rate) and f"-learning_rate-{rate}" in first.name


@pytest.mark.parametrize(
    ("one", "low", "middle", "high"),
    [
        (Range("log", 1e-4, 1e-1), "0.0001", "0.003162", "0.1"),  # rejected: 0.05005, the middle of uniform
        (Range("uniform", 0.0, 1.0), "0.0", "0.5", "1.0"),
        (Range("uniform", -2.0, 1.0), "-2.0", "-0.5", "1.0"),
        (Range("int", 1, 10), "1", "6", "10"),
        (Range("log", 0.12344, 0.67896), "0.12344", "0.2895", "0.67896"),  # rounded, but never out of the range
    ],
)
def test_values_of_a_range(one, low, middle, high):
    assert (one.at(0.0), one.at(0.5), one.at(1 - 2**-53)) == (low, middle, high)


def test_draws_are_uniform_in_their_unit():
    """Count the draws in four equal parts of the logarithm; chi-square with 3 degrees of freedom, 0.999 quantile."""
    rates = [float(rate) for (rate,) in draws(2000, f"{RATE}=log:1e-4:1")]
    counts = [sum(part <= math.log10(rate) < part + 1 for rate in rates) for part in range(-4, 0)]
    assert sum(counts) == 2000 and sum((count - 500) ** 2 / 500 for count in counts) < 16.27
    steps = [int(query) for _, query in draws(2000, f"{RATE}=log:1e-4:1", "train.query=int:1:4")]
    counts = [steps.count(value) for value in (1, 2, 3, 4)]
    assert sum(counts) == 2000 and sum((count - 500) ** 2 / 500 for count in counts) < 16.27


def test_only_what_is_drawn_is_checked(tmp_path):
    """Reject a check of the corner of all lowest values, which is never drawn: a momentum of 0.0 is refused."""
    found = search_of(["tiny.yaml"], ["optimizer.name=sgd", "optimizer.momentum=uniform:0:0.9"], [], tmp_path, 3)
    assert len(found.configurations) == 3
    with pytest.raises(SpecError, match="train.query: expected a number at least 1, got -"):
        search_of(["tiny.yaml"], ["train.query=int:-9:-1"], [], tmp_path, 3)
    with pytest.raises(SpecError, match="seeds.*expected"):
        search_of(["tiny.yaml"], [OVERRIDES[0], "seeds=[-1]"], [], tmp_path, 3)


@pytest.mark.parametrize("text", ["log:0:1", "log:1e-1:1e-4", "uniform:1", "uniform:0:inf", "int:1:2.5", "log:a:b"])
def test_a_malformed_range_is_refused(text):
    with pytest.raises(SpecError, match=f"-s {RATE}={text}: expected log:LOW:HIGH, uniform:LOW:HIGH or int:LOW:HIGH"):
        ranges([f"{RATE}={text}"])


def test_more_configurations_than_there_are_are_refused():
    assert len(draws(6, "train.query=int:1:3", "train.shot=1,2")) == 6
    with pytest.raises(SpecError, match="--random 7: only 6 different configurations were found: ask for fewer"):
        draws(7, "train.query=int:1:3", "train.shot=1,2")
    with pytest.raises(SpecError, match="--random 2 draws from ranges, and there is none"):
        draws(2, f"{RATE}=1e-3,1e-2")
    with pytest.raises(SpecError, match="command line: train.query is given twice: keep one"):
        draws(2, "train.query=int:1:3", "train.query=int:4:5")
