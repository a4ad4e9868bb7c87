"""Code of other packages that was edited is other code: for finished and unfinished runs, tests, tables of pairs."""

import sys

import numpy as np
import pytest
from rows import ROW

from metarun.datasets.options import Options
from metarun.datasets.plugins import OTHERS, package_of, source_digest
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.reports.compare import Compared, difference_of_tasks
from metarun.experiments.runs.rows import Row, read_row
from metarun.experiments.runs.run import Run, code_of
from metarun.experiments.system.failures import explain
from metarun.experiments.training.train import train

OLD, NEW = "dataset my sunny 1.0 aaaa", "dataset my sunny 1.0 bbbb"
OTHER_CODE = "has other code of its dataset, my sunny 1.0 aaaa, than is installed now, my sunny 1.0 bbbb"
CHANGES = ("network={name: mlp, hidden: [4]}", "train.steps=2", "validation=null", "test.episodes=2")


@pytest.fixture
def code(monkeypatch):
    """Return a function that decides which code of other packages an experiment runs."""
    return lambda said: monkeypatch.setattr(Experiment, "plugins", property(lambda self: said))


def test_fault_12_runs_of_other_code_are_refused(code, cache_folder, tmp_path):
    run = Run.at(tmp_path, load("quickstart/protonet", CHANGES).experiment, 0)
    code(OLD)
    train(run)
    assert read_row(run.directory.result).plugins == OLD
    code(OLD.replace("1.0", "1.1"))
    assert train(run).plugins == OLD  # another version of the same source
    code(NEW)
    for refused in (lambda: train(run), lambda: evaluate(run.directory.path, "test", {"shot": 2})):
        with pytest.raises(RunError, match=OTHER_CODE):
            refused()
    run.directory.result.unlink()  # an unfinished run, with its checkpoint
    with pytest.raises(RunError, match=OTHER_CODE):
        train(run)
    longer = load("quickstart/protonet", [*CHANGES[:1], "train.steps=3", *CHANGES[2:], "name=longer"]).experiment
    assert train(Run.at(tmp_path, longer, 0)).train_steps == 3
    assert not (tmp_path / "longer/seed-0/checkpoints/step-2.npz").exists()  # it began at the beginning
    code("")  # of a package that is no longer known: a run without a note is nobody's other code
    assert train(Run.at(tmp_path / "plain", run.experiment, 0)).plugins == ""


@pytest.mark.parametrize(("one", "other", "differ"), [(OLD, NEW, True), (OLD, OLD, False), ("", NEW, False)])
def test_fault_12_episodes_of_other_code_are_not_identical(one, other, differ, tmp_path):
    """Reject equal digests of the draws alone; and other code of the algorithm, which is what one compares."""
    pair = [Compared(tmp_path, Row(**ROW | {"plugins": each}), {}, np.zeros(2)) for each in (one, other)]
    assert ("the code of the dataset differs" in str(difference_of_tasks(*pair))) == differ
    pair = [
        each._replace(row=each.row.model_copy(update={"plugins": each.row.plugins.replace("dataset", "algorithm")}))
        for each in pair
    ]
    assert difference_of_tasks(*pair) is None


def test_names_of_distributions_may_have_spaces():
    assert code_of(f"{OLD}; network b 2 cccc") == {
        "dataset": ("my sunny", "1.0", "aaaa"),
        "network": ("b", "2", "cccc"),
    }
    assert code_of("") == {}


@pytest.fixture
def sunny(tmp_path, monkeypatch):
    """Import a package of two files that is known as somebody else's."""
    folder = tmp_path / "sunny_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .other import Sunny, fail\n")
    (folder / "other.py").write_text(
        "from typing import Literal\n\nfrom metarun.datasets.options import Options\n\n\n"
        'class Sunny(Options):\n    name: Literal["sunny"] = "sunny"\n\n\ndef fail():\n    return {}["missing"]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OTHERS, "sunny_package", "sunny 1.0")
    import sunny_package  # pyright: ignore[reportMissingImports]

    source_digest.cache_clear()
    yield sunny_package
    source_digest.cache_clear()
    for name in ("sunny_package", "sunny_package.other"):
        sys.modules.pop(name)


def test_fault_12_the_digest_is_of_all_files_of_the_package(sunny, tmp_path):
    before = package_of(sunny.Sunny())
    assert before.startswith("sunny 1.0 ") and len(before.split()[-1]) == 16
    (tmp_path / "sunny_package/notes.txt").write_text("no code")
    (tmp_path / "sunny_package/other.py").touch()
    assert package_of(sunny.Sunny()) == before
    with open(tmp_path / "sunny_package/other.py", "a") as file:
        file.write("\n")
    assert package_of(sunny.Sunny()) == before  # what this process has loaded
    source_digest.cache_clear()
    assert package_of(sunny.Sunny()) != before
    assert package_of(Options()) == "" and package_of(None) == ""


def test_fault_30_errors_inside_a_package_are_told_as_its_own(sunny):
    """Reject an internal error that somebody is asked to report to metarun."""
    for call, begins in ((sunny.fail, "error: in the code of sunny 1.0: KeyError"), ({}.popitem, "internal error")):
        with pytest.raises(KeyError) as raised:
            call()
        assert explain(raised.value)[0].startswith(begins)
