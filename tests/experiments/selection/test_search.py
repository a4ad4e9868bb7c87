"""Searches: which configurations they have, and what cannot be chosen by validation."""

from pathlib import Path

import pytest
from searches import RATE, SPEC

from metarun.experiments.errors import SpecError
from metarun.experiments.selection.search import search_of


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Change to a folder with the spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


def search(*overrides, seeds=(), draws=0, halve=False):
    return search_of(["tiny.yaml"], overrides, seeds, Path("runs"), draws, halve)


def test_the_search_has_one_seed_and_the_chosen_one_has_all():
    found = search(f"{RATE}=1e-3,1e-2", "network.hidden=[8],[8, 8]", "train.query=5")
    assert [each.text for each in found.configurations] == [
        f"{RATE}={rate} network.hidden={hidden}" for rate in ("1e-3", "1e-2") for hidden in ("[8]", "[8, 8]")
    ]
    paths = [each.run.directory.path.as_posix() for each in found.configurations]
    assert paths[0] == "runs/tiny-learning_rate-1e-3-hidden-8/seed-4" and all(path.endswith("seed-4") for path in paths)
    assert (found.name, found.record, found.seeds) == ("tiny", Path("runs/tiny/selection.csv"), (4, 1))
    chosen = found.runs_of(found.configurations[3])
    assert [(run.seed, run.selected_of, run.until) for run in chosen] == [(4, 4, None), (1, 4, None)]
    assert chosen[0].directory.path == found.configurations[3].run.directory.path  # which is continued
    assert search(f"{RATE}=1,2", "name=other", seeds=[7]).seeds == (7,)
    assert search(f"{RATE}=1,2", "name=other").name == "other"


@pytest.mark.parametrize(
    ("count", "steps", "every", "stops"),
    [
        (3, 20, 5, (10,)),
        (4, 20, 5, (10,)),
        (5, 20, 5, (5, 10)),
        (8, 100, 5, (25, 50)),
        (12, 100, 5, (10, 25, 50)),  # 12.5 of 100, a multiple of 5
        (9, 64, 4, (8, 16, 32)),
    ],
)
def test_halving_stops_after_a_validation(count, steps, every, stops):
    """Reject stops between two validations, at which a run would have one more than an undisturbed one."""
    rates = ",".join(map(str, range(1, count + 1)))
    found = search(f"{RATE}={rates}", f"train.steps={steps}", f"validation.every={every}", halve=True)
    assert found.stops == stops
    until = [run.until for stop in (*stops, None) for run in found.runs_until(stop, found.configurations[:1])]
    assert until == [*stops, steps]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.steps=20"], "nothing to choose from: give several values, such as -s KEY=A,B,C"),
        (["validation=null", f"{RATE}=1,2"], "the spec has `validation: null`"),
        ([f"{RATE}=log:1e-4:1e-1"], "is a range: say how many to draw from it, --random N"),
        (
            ["train.shot=1,2", "test.shot=null"],
            r"train.shot=1 and train.shot=2 are validated in different ways \(validation.shot: 1 -> 2",
        ),
        (["test.way=3,5", f"{RATE}=1,2"], r"test.way=3 and test.way=5 are validated .*validation.way: 3 -> 5"),
        (["test.episode_seed=0,1"], "validation.episode_seed: 0 -> 1.*give that key one value"),
        (["validation.episodes=30,40"], "validation.episodes: 30 -> 40"),
        (["validation.every=5,10"], "validation.every: 5 -> 10"),
        (["protocol=inductive,transductive", "network.batch_norm=true"], "protocol: 'inductive' -> 'transductive'"),
        (
            ["dataset={name: glyphs},{name: omniglot}", "dataset.in_memory=true"],
            "dataset.name: 'glyphs' -> 'omniglot'",
        ),
        (
            ["test.episodes=30,40"],
            "test.episodes=30 and test.episodes=40 are one training .* no effect on what is chosen",
        ),
        (["test.checkpoint=best,last"], "no effect on what is chosen"),
        (["seeds=[0],[1]"], r"seeds=\[0\] and seeds=\[1\] are one training"),
        (["name=a,b"], "no effect on what is chosen"),
        ([f"{RATE}=1", f"{RATE}=2,3"], f"command line: {RATE} is given twice: keep one"),
        ([f"{RATE}=1,-1"], "expected a number greater than 0.0, got -1"),
    ],
)
def test_what_cannot_be_chosen_by_validation_is_refused(overrides, words):
    with pytest.raises(SpecError, match=words):
        search(*overrides)


def test_a_test_of_its_own_shape_may_be_swept_no_more_than_others():
    """Check that test.shot is a key of the test alone where the validation has its own shot."""
    with pytest.raises(SpecError, match="test.shot=1 and test.shot=2 are one training with one validation"):
        search("test.shot=1,2", "validation.shot=1")
    assert len(search("train.shot=1,2", "validation.shot=1").configurations) == 2


def test_only_what_is_trained_is_searched():
    with pytest.raises(SpecError, match="ucb1 is not trained, so there is no validation to choose by"):
        search_of(["duan2016/bandits-ucb1"], ["dataset.arms=3,4"], [], Path("runs"))
    assert len(search_of(["duan2016/bandits-rl2"], [f"{RATE}=1e-3,1e-2"], [], Path("runs")).configurations) == 2
    with pytest.raises(SpecError, match="give one SPEC, not 2"):
        search_of(["tiny.yaml", "quickstart/maml"], [f"{RATE}=1,2"], [], Path("runs"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{RATE}=1,2"], "--halving needs three configurations or more"),
        ([f"{RATE}=1,2,3", "optimizer.schedule=cosine"], "optimizer.schedule cosine ends with the last step"),
        ([f"{RATE}=1,2,3", "optimizer.schedule=linear"], "optimizer.schedule linear ends with the last step"),
        (["train.steps=20,40,80"], "--halving divides train.steps into parts: give it one value"),
        (
            [f"{RATE}=1,2,3,4,5", "validation.every=10"],
            r"stops first at 1/4 of train.steps 20, before the first validation \(every 10 steps\): raise train.steps "
            "to 40, or lower validation.every to 5",
        ),
        ([f"{RATE}=1,2,3,4,5", "train.steps=2", "validation.every=1"], "raise train.steps to 4$"),
    ],
)
def test_what_cannot_be_halved_is_refused(overrides, words):
    with pytest.raises(SpecError, match=words):
        search(*overrides, halve=True)
    assert search(*overrides).stops == ()
