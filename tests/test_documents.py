"""Statements of the documents are true: links lead somewhere, YAML is valid, commands exist, the examples run."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import click
import pytest
import yaml
from click.testing import CliRunner
from packages import install_project, run_with
from rows import ROW

from metarun.cli.main import metarun

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PACKAGES = ("gratings", "scaled_cosine", "backbone", "cartpoles")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FURTHER = [ROOT / "experiments" / "results" / "README.md", ROOT / "benchmarks" / "README.md"]
MADE = {  # files that a reader has made before the command that names them
    "bad.yaml": "name: x\nalgorithm: {name: maml, iner_lr: 1}\nnetwork: {name: conv4}\n"
    "dataset: {name: omniglt}\ntrain: {way: 5, steps: many}\n",
    "images": None,
}
SPECS = {"train", "submit", "show", "validate", "benchmark"}  # verbs whose arguments are specs
CHEAP = {"list", "describe", "schema", "show", "validate"}  # verbs that are run, their output compared


class Block(NamedTuple):
    """Hold a fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(language):
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(document, line, match[2], textwrap.dedent(match[3])))
    return [block for block in found if block.language == language]


def prose(document):
    """Return the text without fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """Hold `metarun ARGUMENTS`, and the lines that the document prints below it."""

    place: str
    arguments: tuple[str, ...]
    output: tuple[str, ...] = ()
    span: bool = False  # in the text

    def __str__(self):
        return f"{self.place} {' '.join(self.arguments)}"


def arguments_of(text):
    """Return the words after `metarun` in a line of shell, up to a comment, a pipe or the like; None without it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    if "metarun" not in words:
        return None
    words = words[words.index("metarun") + 1 :]
    ends = (place for place, word in enumerate(words) if set(word) <= set("|&;<>"))
    return tuple(words[: next(ends, None)])


def commands():
    """Find every command in the console blocks, in the code spans of the text, and in the script of the figures."""
    found = []
    script = (ROOT / "docs/figures/make.sh").read_text().replace("\\\n", " ")
    for line in re.findall(r"^metarun .*", script, re.MULTILINE):
        found.append(Command("make.sh", arguments_of(line) or ()))
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            line, *output = part.rstrip("\n").split("\n")
            if arguments := arguments_of(line):
                found.append(Command(str(block), arguments, tuple(output)))
    for document in DOCUMENTS:
        for span in re.findall(r"`(metarun [^`]+)`", prose(document)):
            arguments = arguments_of(span.replace("...", ""))
            if arguments and not {"ACTION", "WHAT"} & set(arguments):
                found.append(Command(str(document.relative_to(ROOT)), arguments, span=True))
    return list(dict.fromkeys(found))


def of_a_package(text):
    """Check whether a text needs one of the example packages."""
    return any(re.search(rf"\b{name}\b", text) for name in PACKAGES)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return a folder in which the example packages are installed."""
    folder = tmp_path_factory.mktemp("site")
    for name in PACKAGES:
        install_project(folder, EXAMPLES / name)
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Make a reader's folder: docs/ of the repository, and the files that readers make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("METARUN_OFFLINE", "1")  # which --offline sets, so that it is unset again
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for name, text in MADE.items():
        (tmp_path / name).mkdir() if text is None else (tmp_path / name).write_text(text)
    for name in ("my_spec.yaml", "my_table.yaml"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    (tmp_path / "my.yaml").write_text(invoke("show", "quickstart/protonet").stdout)
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(metarun, arguments)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 9216


def slug(heading):
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS + FURTHER, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)", prose(linked), re.MULTILINE)}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(document):
    folders = "cli|algorithms|datasets|experiments|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", prose(document)):
        assert (ROOT / name).exists(), name


def test_public_names():
    """Check that the names in docs/architecture.md can be imported."""
    names = re.findall(r"^\| (`metarun\.[^|]*) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    found = [name for line in names for name in re.findall(r"`([\w.]+)`", line)]
    assert len(found) >= 9
    for name in found:
        module, _, attribute = name.rpartition(".")
        here = import_module(module if "." in name else "metarun.datasets.images.source")
        assert hasattr(here, attribute) or import_module(name), name


def is_spec(values):
    return "algorithm" in values or "extends" in values


def test_specs(desk, site):
    """Load the specs in one process, since it has to find the example packages."""
    names = {}
    for number, block in enumerate(blocks("yaml")):
        if is_spec(yaml.safe_load(block.text)):
            names[f"{number}.yaml"] = str(block)
            (desk / f"{number}.yaml").write_text(block.text)
    assert len(names) >= 6
    shipped = [str(path) for path in EXAMPLES.rglob("*.yaml") if is_spec(yaml.safe_load(path.read_text()))]
    done = run_with(site, "validate", *names, *shipped, cwd=desk, code=2)
    problems = done.stderr.splitlines()
    assert all("images" in each and "class folders" in each for each in problems) and len(problems) == 2  # none here
    assert len(done.stdout.splitlines()) == len(names) + len(shipped) - 2


def test_tables(desk):
    load_table = import_module("metarun.experiments.papers.definition").load_table
    (desk / "block").mkdir()
    (desk / "block" / "my_spec.yaml").write_text((desk / "my_spec.yaml").read_text())
    found = [block for block in blocks("yaml") if "cells" in yaml.safe_load(block.text)]
    assert len(found) >= 2
    for block in found:
        (desk / "block" / "table.yaml").write_text(block.text)
        assert len(load_table("block/table.yaml").cells) == 2
    assert load_table("docs/examples/my_table.yaml").cells[1].changes == {"shot": 5, "query": 15}


def test_cluster_files(desk, monkeypatch):
    found = [block.text for block in blocks("yaml") if "partition" in yaml.safe_load(block.text)]
    found.append((EXAMPLES / "cluster.yaml").read_text())
    assert len(found) == 2
    for text in found:
        (desk / "cluster.yaml").write_text(text)
        monkeypatch.setenv("METARUN_CLUSTER", str(desk / "cluster.yaml"))
        told = invoke("submit", "quickstart/protonet", "--dry-run")
        assert told.exit_code == 0 and "qos=low" in told.stdout and "partition=gpu" in told.stdout, told.output


def test_every_yaml_block_is_one_of_these():
    for block in blocks("yaml"):
        values = yaml.safe_load(block.text)
        assert is_spec(values) or "cells" in values or "partition" in values, str(block)


def without_head(text):
    """Return an example as a document shows it: without the comment at its top."""
    return re.sub(r"\A(#.*\n)*", "", text).strip()


@pytest.mark.parametrize("language", ["yaml", "python", "toml"])
def test_what_is_shown_of_an_example_is_its_text(language):
    """Check that a block under a link to an example, `[examples/...](...):`, is that file."""
    found = 0
    for block in blocks(language):
        above = "\n".join(block.document.read_text().split("\n")[: block.line - 1]).rstrip()
        if match := re.search(r"\]\(((?:docs/)?examples/[^)\s]+)\)[^\n]*:\Z", above):
            found += 1
            file = (block.document.parent / match[1]).read_text()
            assert without_head(block.text) == without_head(file), str(block)
    assert found >= {"yaml": 3, "python": 5, "toml": 1}[language]


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_can_be_given(command, desk, monkeypatch):
    """Check that the verb, options and values are known; specs and tables that it names are there. In the text a verb
    may stand without its arguments."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    context, words = metarun, list(command.arguments)
    outer = None
    while isinstance(context, click.Group):
        made = context.make_context("metarun", words, parent=outer)
        name, context, words = context.resolve_command(made, [*made._protected_args, *made.args])
        outer = made
    if of_a_package(str(command.arguments)):
        return
    try:
        values = context.make_context(name, words, parent=outer).params
    except click.MissingParameter:
        assert command.span
        return
    if name in SPECS:
        given = values.get("specs") or (values["spec"],)
        for spec in (spec for spec in given if not spec.isupper() and not spec.startswith("RUN/")):
            is_sweep = name == "submit" or values.get("select")
            overrides = [part for one in values.get("overrides", ()) if not is_sweep for part in ("-s", one)]
            told = invoke("show", spec, *overrides)
            assert told.exit_code == 0 or spec == "bad.yaml", told.output or told.exception
    if name == "reproduce" and not values["table"].isupper():
        import_module("metarun.experiments.papers.definition").load_table(values["table"])


def cheap(command):
    return command.arguments[0] in CHEAP and not command.span and not any(map(str.isupper, command.arguments))


@pytest.mark.parametrize("command", list(filter(cheap, commands())), ids=str)
def test_a_cheap_command_prints_what_the_document_says(command, desk, site):
    """Check that every line that is printed below it, up to its `...`, is in the output."""
    expected = 2 if "bad.yaml" in command.arguments else 0
    if of_a_package(str(command.arguments)):
        done = run_with(site, *command.arguments, cwd=desk, code=expected)
        printed = done.stdout + done.stderr
    else:
        told = invoke(*command.arguments)
        code, printed = told.exit_code, told.output
        if told.exception and not isinstance(told.exception, SystemExit):
            code, printed = 2, str(told.exception)
        assert code == expected, printed
    for line in command.output:
        assert line.partition("...")[0].rstrip() in printed, line


def test_python_blocks_are_examples_or_run(desk):
    """Reject a block that does nothing. What the blocks define is checked below: results of the run on the desk, and a
    check of options. Blocks that are no file of docs/examples, which other tests run, run here."""
    shown = {without_head(path.read_text()) for path in EXAMPLES.rglob("*.py")}
    (desk / "runs/e/seed-0").mkdir(parents=True)
    (desk / "runs/e/seed-0/result.json").write_text(json.dumps(ROW))
    further = [block for block in blocks("python") if without_head(block.text) not in shown]
    defined = {}
    for block in further:
        exec(compile(block.text, str(block), "exec"), own := {})
        assert own.keys() - {"__builtins__"}, block
        defined |= own
    assert {block.document.name for block in further} == {"extending.md", "runs.md"}
    assert list(defined["results"]["experiment"]) == [ROW["experiment"]]
    options = SimpleNamespace(is_changed=lambda option: option == "scale")
    for shot, mistakes in ((1, [("algorithm.scale", "has no effect with train.shot: 1")]), (2, [])):
        assert list(defined["conflicts"](options, SimpleNamespace(train=SimpleNamespace(shot=shot)))) == mistakes


@pytest.mark.slow
def test_maml_for_a_keras_model(session_cache):
    environment = os.environ | {"METARUN_CACHE": str(session_cache)}
    command = [sys.executable, str(EXAMPLES / "maml_keras.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    *losses, before, after = [float(line.removesuffix(" %").split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 3 and losses[-1] < losses[0] - 0.1
    assert before < 30 and after > 45


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_package_trains(name, site, session_cache, tmp_path, monkeypatch):
    if name == "cartpoles":
        pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
    monkeypatch.setenv("METARUN_CACHE", str(session_cache))
    shorter = ["-s", "train.steps=2", "-s", "test.episodes=4", "-s", "train.log_every=1"]
    shorter += [] if name == "cartpoles" else ["-s", "validation=null"]
    done = run_with(site, "train", EXAMPLES / name / f"{name}.yaml", *shorter, "--out", "runs", cwd=tmp_path)
    assert name in done.stdout


def test_every_fault_that_is_listed_has_a_test():
    tests = ROOT / "tests"
    listed = re.findall(r"^\| (\d\d) \|", (tests / "faults.md").read_text(), re.MULTILINE)
    named = {
        number for file in tests.rglob("*.py") for number in re.findall(r"def test_fault_(\d\d)_", file.read_text())
    }
    assert listed == sorted(named)


def test_letters_are_drawn(tmp_path, script):
    """Find the classes that docs/predict.md names in its folders, and dark ink on white."""
    script("docs/examples/letters.py").main(tmp_path)
    known = {path.name: len(list(path.glob("*.png"))) for path in (tmp_path / "known").iterdir()}
    assert known == {"be": 5, "de": 4, "yu": 4, "zhe": 4, "ef": 3} and len(list((tmp_path / "new").glob("*.png"))) == 24
