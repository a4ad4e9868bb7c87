"""The choice among configurations, and a search that goes on where it stopped."""

import csv
import errno
import json
import math
import shutil
from functools import partial
from pathlib import Path

import pytest
from rows import ROW
from searches import RATE, SPEC, fail, files_of_tests, leave

from metarun.datasets.errors import DataError
from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.jobs.status import statuses
from metarun.experiments.reports.table import read_results
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.rows import Row, merge, read_row
from metarun.experiments.selection import here
from metarun.experiments.selection.results import Result, better_half, choose, read, write
from metarun.experiments.selection.search import search_of
from metarun.experiments.selection.session import runs_of_chosen, select
from metarun.experiments.selection.table import table
from metarun.experiments.system.failures import noted


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Change to a folder with the spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


def search(rates, *overrides, halve=False, draws=0):
    overrides = [f"{RATE}={rates}", *overrides]
    return search_of(["tiny.yaml"], overrides, [], Path("runs"), draws, halve)


class Trainer:
    """Leave what trained runs leave, and remember which were asked for."""

    def __init__(self, found, fails=(), **options):
        """Prepare the trainer.

        Args:
            found: the validations of each learning rate, as `leave` takes them.
            fails: the learning rates that fail.
            options: others of `leave`.
        """
        self.found, self.fails, self.options, self.trained = found, fails, options, []

    def __call__(self, runs):
        for run in (run for run in runs if not run.finished):
            rate = run.experiment.optimizer.learning_rate
            self.trained.append((rate, run.until))
            if rate in self.fails:
                fail(run, "the loss is nan")
            else:
                leave(run, *self.found[rate], **self.options)


def chosen(results):
    ((name, why),) = [(each.settings.removeprefix(f"{RATE}="), each.why) for each in results if each.chosen]
    return name, why


BEST_AND_LAST = {1.0: [(5, 0.6, 0.01), (20, 0.7, 0.01)], 2.0: [(5, 0.9, 0.01), (20, 0.5, 0.01)], 3.0: [(20, 0.8, 0.01)]}


def test_the_best_validation_decides_and_not_the_last_nor_the_test():
    """Reject the last validation, which 3 wins, and the test, which 1 wins in rows of an earlier sweep."""
    tiny = search("1,2,3")
    for each, mean in zip(tiny.configurations, (0.99, 0.1, 0.5), strict=True):
        run = each.run
        leave(
            next(run for run in tiny.runs_until(None, [each])), *BEST_AND_LAST[run.experiment.optimizer.learning_rate]
        )
        row = Row(
            **ROW | {"mean": mean, "spec_digest": run.experiment.digest, "seed": run.seed, "experiment": each.name}
        )
        run.directory.result.write_text(json.dumps(row.as_json()))
    trainer = Trainer({})
    results = select(tiny, trainer)
    assert chosen(results) == ("2", "the best") and trainer.trained == []
    assert [(each.validation, each.step, each.steps) for each in results] == [
        (0.7, 20, 20),
        (0.9, 5, 20),
        (0.8, 20, 20),
    ]
    first, _ = runs_of_chosen(tiny, results)
    assert first.directory.finished and not first.finished  # its row does not say yet that it was chosen


def test_the_last_validation_decides_where_the_last_checkpoint_is_tested():
    assert chosen(select(search("1,2,3", "test.checkpoint=last"), Trainer(BEST_AND_LAST)))[0] == "3"


def test_the_smaller_error_is_the_better_one(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC.replace("protonet", "maml, inner_lr: 0.1").replace("glyphs", "sinusoid"))
    found = {1.0: [(20, 0.5, 0.01)], 2.0: [(20, 0.2, 0.01)], 3.0: [(20, 0.9, 0.01)]}
    overrides = [f"{section}.way=1" for section in ("train", "test")]
    results = select(search("1,2,3", *overrides), Trainer(found, metric="mse"))
    assert chosen(results) == ("2", "the best")


@pytest.mark.parametrize(
    ("values", "widths", "number", "why"),
    [
        (
            (0.70, 0.78, 0.80, 0.79),
            (0.09, 0.01, 0.03, 0.5),
            1,
            "within the 95% interval of the best (c), and the first",
        ),
        ((0.70, 0.78, 0.80, 0.79), (0.09, 0.05, 0.01, 0.5), 2, "the best"),  # rejected: 0.78 by the interval of its own
        ((0.80, 0.78, 0.80, 0.79), (0.01, 0.01, 0.01, 0.01), 0, "the best"),  # of equal ones the first
        ((0.70, 0.80, 0.80, 0.79), (None,) * 4, 1, "the best"),  # no interval: only equal ones are ties
    ],
)
def test_ties_go_to_the_first_within_the_interval_of_the_best(values, widths, number, why):
    """Reject the best by a hair, and the interval of another than the best."""
    results = [
        Result(name, name, 20, "accuracy", value, width, 20)
        for name, value, width in zip("abcd", values, widths, strict=True)
    ]
    found = choose(results)
    assert [each.chosen for each in found] == [place == number for place in range(4)]
    assert found[number].why.startswith(why)
    losses = [each._replace(metric="mse", validation=1 - value) for each, value in zip(results, values, strict=True)]
    assert [each.chosen for each in choose(losses)] == [each.chosen for each in found]


def test_the_better_half():
    values = (0.5, 0.9, None, 0.9, 0.7)
    results = [Result(str(n), str(n), 20, "accuracy", value) for n, value in enumerate(values)]
    assert better_half(results) == [1, 3, 4] and better_half(results[:4]) == [1, 3]
    assert better_half(results[:3]) == [0, 1]
    assert better_half([results[2], results[2], results[0]]) == [2]  # those that failed do not go on


def test_a_configuration_that_fails_is_the_worst_and_tried_again_until_one_is_chosen():
    trainer = Trainer(BEST_AND_LAST, fails=[2.0])
    results = select(search("1,2,3"), trainer)
    assert chosen(results) == ("3", "the best") and results[1].why == "failed: the loss is nan"
    assert select(search("1,2,3"), trainer) == results and len(trainer.trained) == 3  # not tried once more
    lines = table(results).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["configuration", "-" * 25, *(f"{RATE}={n}" for n in (1, 2, 3))]
    assert lines[3].split() == [f"{RATE}=2", "0", "failed"]
    assert lines[4].split() == [f"{RATE}=3", "accuracy", "%", "80.00", "1.00", "20", "20", "chosen"]
    assert lines[-1] == f"chosen of 3: {RATE}=3, the best"


def test_all_failed_is_an_error():
    trainer = Trainer({}, fails=[1.0, 2.0])
    with pytest.raises(RunError, match=f"all 2 configurations failed; the first, {RATE}=1, failed: the loss is nan"):
        select(search("1,2"), trainer)
    assert chosen(select(search("1,2"), Trainer(BEST_AND_LAST)))[0] == "2"  # the cause is gone


def test_what_is_not_finite_is_the_worst():
    found = {1.0: [(5, math.nan, 1), (20, math.inf, 1)], 2.0: [(20, 0.1, 0.01)]}
    results = select(search("1,2"), Trainer(found))
    assert chosen(results)[0] == "2" and results[0].why == "failed: it has no finite validation"


def test_a_search_goes_on_where_it_stopped():
    """Stop after two configurations; reject one that begins with the first again."""
    stopped = Trainer(BEST_AND_LAST)

    def train(runs):
        stopped(runs[:2])
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        select(search("1,2,3"), train)
    again = Trainer(BEST_AND_LAST)
    assert chosen(select(search("1,2,3"), again))[0] == "2" and again.trained == [(3.0, 20)]


def test_runs_that_another_process_has_are_waited_for():
    def train(runs):
        leave(runs[0], (20, 0.5, 0.1))

    with pytest.raises(RunError, match="rate-2/seed-4: its process was stopped or killed before step 20; noth"):
        select(search("1,2"), train)
    busy = search("1,2").configurations[1].run.directory
    with busy.locked(), pytest.raises(RunError, match="rate-2/seed-4 is in use by process .*: wait for it, then give"):
        select(search("1,2"), train)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/x.npz"),
        MemoryError(),
        DataError("the images are gone"),
        RunError("a training step needs about 9.0 GiB and 1.0 GiB are free"),
    ],
)
def test_a_failure_of_the_machine_is_not_the_worst(monkeypatch, error):
    """Reject a choice among two of three, which then stays, and to go on where all others fail alike."""
    tried, good = [], Trainer(BEST_AND_LAST)

    def train_until(run):
        tried.append(run)
        if len(tried) == 1:
            raise RunError("x: the loss is inf at step 1; no checkpoint was written yet")
        if len(tried) == 2:
            with noted(run.directory.failure):
                run.write_spec()
                raise error
        good([run])

    monkeypatch.setattr(here, "train_until", train_until)
    told = []
    trainer = partial(here.train_here, report=told.append)
    with pytest.raises(
        RunError, match="rate-2/seed-4: .*; nothing is chosen meanwhile: mend that .* leave this config"
    ):
        select(search("1,2,3"), trainer)
    assert len(tried) == 2 and [line.endswith("; it counts as the worst") for line in told] == [True]
    assert not any(each.chosen for each in read(Path("runs/tiny/selection.csv")))
    with pytest.raises(RunError, match="rate-2/seed-4: .*; nothing is chosen meanwhile"):  # as of processes and jobs
        select(search("2,3"), lambda runs: good(runs[1:]))
    assert chosen(select(search("1,2,3"), trainer))[0] == "2"  # the cause is mended


def test_a_search_may_grow_and_another_one_is_refused():
    """Reject a row that says `selected of 2` where three were compared."""
    assert chosen(select(search("1,2,3"), Trainer(BEST_AND_LAST)))[0] == "2"
    with pytest.raises(RunError, match=rf"runs/tiny/selection.csv has results of 1 configuration .* such as {RATE}=3"):
        select(search("1,2"), Trainer(BEST_AND_LAST))
    more = Trainer({4.0: [(20, 0.95, 0.01)]})
    assert chosen(select(search("1,2,3,4"), more))[0] == "4" and more.trained == [(4.0, 20)]
    with pytest.raises(RunError, match="holds an unfinished run of another spec, network.hidden"):
        select(search("1,2,3,4", "network.hidden=[9]"), more)
    with pytest.raises(RunError, match=r"give this search a name of its own \(-s name=...\), or choose another --out$"):
        select(search("1,2,3,4", "network.hidden=[9]"), more)  # --fresh, which a search refuses, is no way out
    assert select(search("1,2,3,4", "test.episodes=40"), more)[3].chosen  # the test is none of the search


def interrupted(trained, runs):
    """Train the first runs, and then be stopped."""
    trained(runs[:3])
    raise Interrupted("stopped")


def killed(trained, runs):
    """Train the first runs, and then end as by kill -9: nothing more is written."""
    trained(runs[:3])
    Path("runs/tiny/selection.csv").rename("kept.csv")
    raise Interrupted("killed")


@pytest.mark.parametrize("stops", [interrupted, killed])
def test_a_search_that_was_stopped_is_not_made_smaller(stops):
    """Reject a row of `selected of 2` where three validations are known, and a record that is written at the end."""
    found = {rate: [(20, rate / 10, 0.01)] for rate in (1.0, 2.0, 3.0, 4.0)}
    with pytest.raises(Interrupted):
        select(search("1,2,3,4"), lambda runs: stops(Trainer(found), runs))
    if stops is killed:
        Path("kept.csv").replace("runs/tiny/selection.csv")
        assert {each.why for each in read(Path("runs/tiny/selection.csv"))} == {"not trained yet"}
    with pytest.raises(
        RunError, match=f"has results of 1 configuration that this search does not have, such as {RATE}=3"
    ):
        select(search("1,2"), Trainer({}))
    with pytest.raises(RunError, match=f"{RATE}=1 had seed 4 .* and now has seed 5"):
        select(search("1,2,3,4", "seeds=[5]"), Trainer({}))
    assert len(select(search("1,2,3"), Trainer({}))) == 3  # of 4 nothing is known


def test_tests_that_were_made_before_are_named(capsys):
    """Reject a silent `selected of 2` of configurations whose tests are known."""
    tiny = search("1,2")
    select(tiny, Trainer(BEST_AND_LAST))
    assert "warning" not in capsys.readouterr().err
    for each in tiny.configurations:
        row = Row(**ROW | {"spec_digest": each.run.experiment.digest, "seed": 4, "experiment": each.name})
        each.run.directory.result.write_text(json.dumps(row.as_json()))
    select(search("1,2,3"), Trainer(BEST_AND_LAST))
    said = capsys.readouterr().err
    assert said == (
        "warning: runs/tiny-learning_rate-1/seed-4, runs/tiny-learning_rate-2/seed-4 had a test before this choice, "
        "which was not withheld: say so where you report `selected of 3`\n"
    )


def test_the_choice_of_another_search_is_not_taken():
    """Reject a choice that is known by the names of configurations alone, which have neither the seed nor the spec."""
    select(search("1,2"), Trainer(BEST_AND_LAST))
    with pytest.raises(RunError, match=rf"of another search: {RATE}=1 had seed 4 .*, and now has seed 5 .* move that"):
        select(search("1,2", "train.steps=40", "seeds=[5]"), Trainer({}))
    assert select(search("1,2", "test.shot=2"), Trainer({}))  # which keeps the validation tasks
    for each in search("1,2").configurations:
        shutil.rmtree(each.run.directory.path)
    with pytest.raises(RunError, match="had seed 4 .* and now has seed 4 "):
        select(search("1,2", "train.steps=40"), Trainer({}))
    assert select(search("1,2"), Trainer({}))  # the same search still has its choice


def test_a_training_that_train_patience_ends_is_trained():
    """Reject a search that waits for its last step, one that calls it interrupted, and one that chooses again."""
    found = {1.0: [(5, 0.6, 0.01), (10, 0.5, 0.01)], 2.0: [(5, 0.4, 0.01), (10, 0.3, 0.01)], 3.0: [(20, 0.2, 0.01)]}

    def train(runs):
        for run in runs:
            rate = run.experiment.optimizer.learning_rate
            leave(run, *found[rate])
            if rate < 3:
                run.directory.checkpoint(run.until).unlink()
                checkpoint.save(run.directory.checkpoint(10), [], {"best_step": 5})

    results = select(search("1,2,3", "train.patience=1"), train)
    assert chosen(results) == ("1", "the best") and [each.steps for each in results] == [10, 10, 20]
    assert [one.state for one in statuses(Path("runs"))] == ["validated"] * 3
    assert select(search("1,2,3", "train.patience=1"), Trainer({})) == results


def test_halving_gives_the_steps_to_the_better_half():
    """Reject a half by the best validation of the whole training, which 1 would win at step 20."""
    found = {
        1.0: [(5, 0.1, 0.01), (10, 0.2, 0.01), (20, 0.99, 0.01)],
        2.0: [(5, 0.5, 0.01), (10, 0.4, 0.01), (20, 0.6, 0.01)],
        3.0: [(5, 0.4, 0.01), (10, 0.6, 0.01), (20, 0.7, 0.01)],
        4.0: [],
        5.0: [(5, 0.3, 0.01), (10, 0.7, 0.01), (20, 0.65, 0.01)],
    }
    trainer = Trainer(found, fails=[4.0])
    results = select(search("1,2,3,4,5", halve=True), trainer)
    assert trainer.trained == [(float(n), 5) for n in (1, 2, 3, 4, 5)] + [(2.0, 10), (3.0, 10), (5.0, 10)] + [
        (3.0, 20),
        (5.0, 20),
    ]
    assert chosen(results) == ("3", "the best")
    assert [each.why for each in results] == [
        "left behind at step 5", "left behind at step 10", "the best", "failed: the loss is nan", "",
    ]  # fmt: skip
    assert [each.steps for each in results] == [5, 10, 20, 0, 20] and results[1].validation == 0.5
    assert read(Path("runs/tiny/selection.csv")) == results
    assert select(search("1,2,3,4,5", halve=True), trainer) == results
    whole = Trainer(found | {4.0: [(20, 0.3, 0.01)]})  # without halving those left behind train to the end
    assert chosen(select(search("1,2,3,4,5"), whole))[0] == "1" and len(whole.trained) == 3


def test_the_record_of_a_search(tmp_path):
    results = [
        Result("a-1", "x=1", 20, "accuracy", 1 / 3, 0.1 + 0.2, 15, True, "the best", 4, "0123abcd"),
        Result("a-2", "x=[1, 2]", 0, why='failed: a, "b"'),
    ]
    write(tmp_path / "a/selection.csv", results)
    assert read(tmp_path / "a/selection.csv") == results
    with open(tmp_path / "a/selection.csv", newline="") as file:
        assert next(csv.DictReader(file))["chosen"] == "yes"
    (tmp_path / "a/selection.csv").write_text("configuration,chosen\na,yes\n")
    with pytest.raises(RunError, match="is not the record of a search"):
        read(tmp_path / "a/selection.csv")


def test_runs_of_a_search_are_no_runs_that_a_table_lacks(tmp_path, capsys):
    """Reject a table that says of eleven configurations that they are not finished."""
    tiny = search("1,2,3")
    select(tiny, Trainer(BEST_AND_LAST, fails=[3.0]))
    assert files_of_tests(Path("runs")) == []
    found = {
        one.path.parent.name.removeprefix("tiny-learning_rate-"): (one.state, one.words)
        for one in statuses(Path("runs"))
    }
    assert found == {
        "1": ("validated", "accuracy % 70.00 ± 1.00 at step 20 of 20, not tested"),
        "2": ("validated", "accuracy % 90.00 ± 1.00 at step 5 of 20, not tested"),
        "3": ("failed", "the loss is nan"),
    }
    run = tiny.configurations[1].run
    row = ROW | {
        "experiment": "tiny-learning_rate-2",
        "seed": 4,
        "spec_digest": run.experiment.digest,
        "selected_of": 3,
    }
    run.directory.result.write_text(json.dumps(Row(**row).as_json()))
    merge(Path("runs"))
    rows = read_results("runs")
    assert (
        list(rows["selected_of"]) == [3]
        and rows["left_out"].isna().all()
        and "not finished" not in capsys.readouterr().err
    )
    assert read_row(run.directory.result).selected_of == 3
    del row["selected_of"]
    assert Row(**row).selected_of is None  # of an older version
