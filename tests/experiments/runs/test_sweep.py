"""Sweeps: which runs they have, under which names, and the lists of seeds."""

from pathlib import Path

import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError
from metarun.experiments.runs.sweep import format_seeds, grid, parse_seeds


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    """Change to the folder with the spec."""
    monkeypatch.chdir(folder)


def test_a_grid_is_every_combination_under_a_name_of_its_own():
    runs = grid(
        ["tiny.yaml"], ["algorithm.inner_lr=0.1,0.2", "network.hidden=[8],[8, 8]", "train.steps=5"], [3, 1], Path("o")
    )
    assert [run.directory.path.as_posix() for run in runs] == [
        f"o/tiny-inner_lr-{rate}-hidden-{hidden}/seed-{seed}"
        for rate in ("0.1", "0.2") for hidden in ("8", "8-8") for seed in (3, 1)
    ]  # fmt: skip
    assert [run.experiment.algorithm.inner_lr for run in runs] == [0.1] * 4 + [0.2] * 4
    assert [run.experiment.network.hidden for run in runs[1:3]] == [(8,), (8, 8)]
    assert {run.experiment.train.steps for run in runs} == {5}
    (plain,) = grid(["tiny.yaml"], [], [], Path("o"))
    assert plain.experiment == load("tiny.yaml").experiment
    names = {run.experiment.name for run in grid(["tiny.yaml"], ["train.shot=1,2", "test.shot=3,4"], [], Path("o"))}
    assert "tiny-train.shot-1-test.shot-3" in names  # both end in shot
    signs = grid(["tiny.yaml"], ["dataset.phase=[-1, 1],[1, 1.5]", "optimizer.learning_rate=1e-3,1e+3"], [], Path("o"))
    assert [run.experiment.name for run in signs] == [
        f"tiny-phase-{phase}-learning_rate-{rate}" for phase in ("minus1-1", "1-1.5") for rate in ("1e-3", "1e3")
    ]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.stesp=1,2"], "did you mean steps?"),
        (["train.steps=1,,2"], "a value is missing between two commas"),
        (["train.steps=1,1"], "1 is given twice"),
        (["train.steps"], "expected key=value"),
        (["description=a b,a-b"], "two experiments have the name tiny-description-a-b"),
        (["description=" + ",".join("ab" * 60 + str(n) for n in range(2))], "too long a name"),
        (
            [f"train.steps={','.join(map(str, range(400)))}", f"train.shot={','.join(map(str, range(1, 400)))}"],
            "more than",
        ),
    ],
)
def test_mistakes_of_a_grid_are_told(overrides, words):
    with pytest.raises(SpecError, match=words):
        grid(["tiny.yaml"], overrides, [], Path("o"))


@pytest.mark.parametrize(
    "override",
    [
        "algorithm.inner_lr=1e-3,0.001",
        "algorithm.inner_lr=1,1.0",
        "network.hidden=[8],[ 8 ]",
        'algorithm.name=maml,"maml"',
        "algorithm.first_order=true,True",
        "train.steps=1000,1_000",
    ],
)
def test_fault_27_values_that_are_equal_once_they_are_read_are_refused(override):
    """Reject two runs of one experiment, told apart by the spelling of a value."""
    with pytest.raises(SpecError, match="are the same experiment: give each value once") as told:
        grid(["tiny.yaml"], [override, "train.shot=1,2"], [], Path("o"))
    key, _, values = override.partition("=")
    assert all(f"{key}={value}" in str(told.value) for value in values.split(","))


def test_fault_27_what_is_given_twice_is_refused_or_counts_once():
    """Reject the last of two values of a key, silently, and two trainings of one seed."""
    with pytest.raises(SpecError, match=r"^command line: train.steps is given twice: keep one$"):
        grid(["tiny.yaml"], ["train.steps=1", "train.steps=2"], [], Path("o"))
    with pytest.raises(SpecError, match=r"^tiny.yaml is given twice: leave one out$"):
        grid(["tiny.yaml", "tiny.yaml"], [], [], Path("o"))
    with pytest.raises(SpecError, match="two experiments have the name tiny"):
        grid(["tiny.yaml", "./tiny.yaml"], [], [], Path("o"))
    with pytest.raises(SpecError, match="has a seed twice"):
        grid(["tiny.yaml"], ["seeds=[0, 0]"], [], Path("o"))
    assert [run.seed for run in grid(["tiny.yaml"], [], [1, 0, 1], Path("o"))] == [1, 0]
    names = [run.experiment.name for run in grid(["tiny.yaml"], ["name=a,b"], [], Path("o"))]
    assert names == ["a-name-a", "b-name-b"]  # asked for as two


def test_seeds_are_ranges_and_lists():
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4] and parse_seeds("0,2,5-6,2") == [0, 2, 5, 6]
    assert parse_seeds("3") == [3]
    for text in ("0-4", "0,2,5-6", "3", "5,0-1"):
        assert format_seeds(parse_seeds(text)) == text
    for wrong in ("", "4-0", "a", "1,,2", "-1", "0-", "0-9999999", str(2**31)):
        with pytest.raises(ValueError, match="seeds"):
            parse_seeds(wrong)
