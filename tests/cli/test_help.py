"""The `--help` of each verb ends in examples, which are commands that this version understands."""

import re
import shlex
from pathlib import Path

import click
import pytest

from metarun.cli.main import COMMANDS
from metarun.cli.main import metarun as group
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import choose, plan
from metarun.experiments.runs.sweep import grid

FOLDERS = ("runs/omniglot-maml/seed-0", "runs/omniglot-maml/seed-3", "runs/omniglot-protonet/seed-0", "known")


def verbs():
    """Yield every command, those of groups included, by its words."""
    for verb in COMMANDS:
        command = group.get_command(click.Context(group), verb)
        yield pytest.param([verb], command, id=verb)
        if isinstance(command, click.Group):
            yield from (pytest.param([verb, name], each, id=name) for name, each in command.commands.items())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with the files that the examples name."""
    for each in FOLDERS:
        (tmp_path / each).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maml.zip").touch()
    (tmp_path / "my.yaml").write_text(
        "name: mine\nalgorithm: {name: protonet}\nnetwork: {name: conv4}\ndataset: {name: glyphs}\n"
        "protocol: inductive\ntrain: {steps: 1000}\n"
    )
    return tmp_path


@pytest.mark.parametrize(("words", "command"), list(verbs()))
def test_help_ends_in_two_examples_that_are_understood(words, command, folder):
    lines = command.get_help(click.Context(command)).splitlines()
    assert lines[-3] == "  Examples:"
    for line in lines[-2:]:
        name, *arguments = shlex.split(re.split("[>|&]", line)[0])
        assert name == "metarun" and arguments[: len(words)] == words
        understood(arguments)


def understood(arguments):
    """Parse a command as click does, without running it; load the specs and tables that it names."""
    command, rest = group, arguments
    while isinstance(command, click.Group):
        command, rest = command.get_command(click.Context(command), rest[0]), rest[1:]
    given = command.make_context("", rest).params
    for spec in given.get("specs", [given["spec"]] if "spec" in given else []):
        assert grid([spec], given["overrides"], given.get("seeds", []), Path("runs"))
    if "table" in given:
        assert choose(plan(load_table(given["table"]), Path("runs"), given["seeds"]), given["cells"])


def test_a_wrong_example_is_found(folder):
    """Reject a check that takes options, folders and keys for words that nobody reads."""
    for wrong in ("table runs --fromat csv", "compare runs/nothing", "list things", "reproduce x --budget 2"):
        with pytest.raises(click.UsageError):
            understood(shlex.split(wrong))
