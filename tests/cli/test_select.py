"""Options of `metarun train` and `metarun submit` that choose by validation, and what they refuse."""

import pytest
from click.testing import CliRunner
from searches import RATE, SPEC

from metarun.cli.main import metarun as group
from metarun.experiments.errors import RunError, SpecError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Change to a folder with the spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


@pytest.mark.parametrize("verb", ["train", "submit"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--random", "3"], "--random: only with --select"),
        (["--halving", "--random", "3"], "--random and --halving: only with --select"),
        (["--select", "--fresh"], "--fresh: not with --select"),
        (["--select", "--random", "1"], "1 is not in the range 2<=x<=10000"),
    ],
)
def test_options_that_belong_together(verb, options, words):
    done = CliRunner().invoke(group, [verb, "tiny.yaml", "-s", f"{RATE}=1e-3,1e-2", *options])
    assert done.exit_code == 2 and words in done.output


@pytest.mark.parametrize("verb", ["train", "submit"])
def test_both_verbs_refuse_what_cannot_be_chosen(verb, tmp_path):
    def refused(*words):
        done = CliRunner().invoke(group, [verb, "tiny.yaml", "--select", *words])
        assert isinstance(done.exception, SpecError), (done.output, done.exception)
        return str(done.exception)

    assert "nothing to choose from" in refused()
    assert "no effect on what is chosen" in refused("-s", "test.episodes=30,40")
    assert "there is none: add one" in refused("-s", f"{RATE}=1e-3,1e-2", "--random", "2")
    assert "needs three configurations" in refused("-s", f"{RATE}=1e-3,1e-2", "--halving")
    assert not (tmp_path / "runs").exists()


def test_several_workers_do_not_search(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    done = CliRunner().invoke(group, ["train", "tiny.yaml", "--select", "-s", f"{RATE}=1e-3,1e-2"])
    assert isinstance(done.exception, RunError) and "one of several workers" in str(done.exception)
