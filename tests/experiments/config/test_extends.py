"""A spec that extends another: what it takes over, where each value came from, and chains that are refused."""

import json
from pathlib import Path

import pytest
from shipped import SHIPPED

from metarun.experiments.config.load import LONGEST, load, resolved_yaml
from metarun.experiments.config.schema import schema
from metarun.experiments.errors import SpecError
from metarun.experiments.papers.definition import load_table, shipped_tables
from metarun.experiments.papers.plan import plan

PARENT = """\
name: parent
algorithm: {name: maml, inner_lr: 0.4}
network: {name: conv4, filters: 8}
dataset: {name: omniglot}
protocol: transductive
optimizer: {learning_rate: 0.01, schedule: linear}
train:
  steps: 2000
  meta_batch: 4
seeds: [1, 2]
"""
CHILD = """\
extends: parent.yaml
name: child
"""


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file of this name and returns its path; there is a `parent.yaml`."""

    def write(text, name="child.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write(PARENT, "parent.yaml")
    return write


def mistakes(path, *overrides):
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    return caught.value.problems


def test_sections_are_merged_key_by_key(write):
    """Check that sections are not replaced: `train` without steps is a mistake; lists are replaced, not joined."""
    child = load(write(CHILD + "train: {shot: 5}\nseeds: [3]\n")).experiment
    assert (child.name, child.train.shot, child.train.steps, child.train.meta_batch) == ("child", 5, 2000, 4)
    assert child.seeds == (3,) and child.network.filters == 8


def test_a_section_of_another_name_is_replaced_whole(write):
    """Reject a merge, which would give conv4's filters to an mlp, MAML's inner_lr to prototypes, Adam's schedule to
    sgd."""
    child = load(
        write(
            CHILD + "algorithm: {name: protonet}\nnetwork: {name: mlp, hidden: [8]}\ndataset: {name: glyphs}\n"
            "optimizer: {name: sgd, learning_rate: 1.0}\nprotocol: inductive\n"
        )
    ).experiment
    assert (child.algorithm.name, child.network.name, child.dataset.name) == ("protonet", "mlp", "glyphs")
    assert (child.optimizer.name, child.optimizer.schedule) == ("sgd", "constant")


@pytest.mark.parametrize("name", ["", "name: adam, "])
def test_a_section_of_the_same_name_is_merged_whether_or_not_it_gives_the_name(write, name):
    """Check that the optimizer's name is adam where a file gives none: that is no other name."""
    child = load(write(CHILD + f"optimizer: {{{name}learning_rate: 0.5}}\n")).experiment
    assert (child.optimizer.learning_rate, child.optimizer.schedule) == (0.5, "linear")


def test_a_section_that_is_null_is_dropped(write):
    parent = write(PARENT + "validation: {every: 7}\npublished: {value: 3, source: a paper}\n", "parent.yaml")
    child = load(write(CHILD + "validation: null\npublished: null\n")).experiment
    assert load(parent).experiment.validation.every == 7
    assert child.validation is None and child.published is None and child.test.checkpoint == "last"


def test_the_digest_is_that_of_the_resolved_spec(write):
    """Compare digests, however a spec was written; what a run's folder keeps has no `extends`."""
    child = load(write(CHILD + "train: {shot: 5}\n")).experiment
    whole = load(write(PARENT.replace("parent", "child").replace("4\n", "4\n  shot: 5\n"), "whole.yaml")).experiment
    assert child == whole and child.digest == whole.digest
    assert "extends" not in resolved_yaml(child) and "extends" not in child.model_dump()


def test_a_child_has_a_name_of_its_own(write):
    """Reject a child that is trained in its parent's folder, under the parent's name."""
    assert mistakes(write("extends: parent.yaml\n"))[0].startswith("child.yaml:1: name: is missing")


def test_each_value_has_the_file_and_line_that_it_came_from(write, tmp_path):
    write("extends: ../parent.yaml\nname: middle\ntrain:\n  shot: 5\n", "deep/middle.yaml")
    origins = load(
        write("extends: deep/middle.yaml\nname: child\nprotocol: inductive\n"), ["train.meta_batch=3"]
    ).origins
    told = {key: origins.get(f"train.{key}") for key in ("shot", "steps", "meta_batch", "query")}
    assert told == {"shot": "deep/middle.yaml:4", "steps": "parent.yaml:8", "meta_batch": "command line", "query": None}
    assert (origins["name"], origins["protocol"]) == ("child.yaml:2", "child.yaml:3")
    assert "extends" not in origins
    other = write("extends: ../child.yaml\nname: child\n", "deep/child.yaml")  # of the same file name
    assert load(other).origins["protocol"] == "../child.yaml:3"


def test_a_shipped_parent_is_given_by_its_name(write, tmp_path, monkeypatch):
    """Find it, and not in the working directory: a path is that from the file. A folder of the same name hides
    nothing."""
    (tmp_path / "elsewhere" / "quickstart" / "maml").mkdir(parents=True)
    (tmp_path / "quickstart" / "maml").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    child = load(write("extends: quickstart/maml\nname: child\n"))
    assert child.experiment.digest == load("quickstart/maml").experiment.digest
    assert child.origins["train.steps"] == "quickstart/maml:27"
    write(PARENT, "elsewhere/beside.yaml")
    assert "no such file" in mistakes(write("extends: beside.yaml\nname: child\n"))[0]


def test_a_dataset_path_starts_at_the_file_that_gives_it(write, tmp_path):
    """Reject a path that starts at the child."""
    write(PARENT.replace("{name: omniglot}", "{name: imagefolder, path: pictures}"), "deep/parent.yaml")
    child = write("extends: deep/parent.yaml\nname: child\ndataset: {image_size: 32}\n")
    assert load(child).experiment.dataset.path == (tmp_path / "deep" / "pictures").resolve()
    assert load(child, ["dataset.path=other"]).experiment.dataset.path == (tmp_path / "other").resolve()
    own = write("extends: deep/parent.yaml\nname: child\ndataset: {path: own}\n")
    assert load(own).experiment.dataset.path == (tmp_path / "own").resolve()


def test_overrides_come_last_and_name_no_parent(write):
    child = write(CHILD + "train: {steps: 7}\n")
    assert load(child, ["train.steps=9"]).experiment.train.steps == 9
    assert mistakes(child, "extends=parent.yaml") == [
        "-s extends=parent.yaml: only a file can extend another: give the other spec in its place"
    ]


def test_mistakes_have_the_line_of_their_own_file(write):
    """Check that mistakes of the child come first. What the child replaces is no mistake of the parent."""
    wrong = PARENT.replace("4}", "fast}").replace("steps: 2000", "step: 2000").replace("[1, 2]", "[1, 1]")
    write(wrong.replace("0.fast", "fast"), "parent.yaml")
    problems = mistakes(write(CHILD + "protocol: both\nseeds: [5]\n"))
    places = [problem.split(": ")[:2] for problem in problems]
    assert places == [
        ["child.yaml:3", "protocol"],
        ["parent.yaml:2", "algorithm.inner_lr"],
        ["parent.yaml:7", "train.steps"],
        ["parent.yaml:8", "train.step"],
    ]


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ("[parent.yaml]", "expected a path, or the name of a spec that ships, got ['parent.yaml']"),
        ("3", "expected a path, or the name of a spec that ships, got 3"),
        ('""', "got ''"),
        ('"a\\nb\\0"', "got 'a\\nb\\x00'"),
        ("{name: maml}", "got a section"),
        (".", ". is a folder"),
        ("/dev/zero", "/dev/zero is no file"),
        ("../../../../../../../../../etc/passwd", "etc/passwd: expected `key: value` lines"),
        ("parant.yaml", "parant.yaml: no such file"),
        ("quickstart/mamel", "did you mean quickstart/maml"),
        ("large.yaml", "is larger than"),
        ("alias.yaml", "alias.yaml: YAML aliases (*name) are not understood"),
        ("broken.yaml", "broken.yaml:3: not YAML"),
        ("child.yaml", "a circle: child.yaml extends child.yaml"),
    ],
)
def test_what_cannot_be_extended_is_one_line(write, extends, words):
    write("a: 1\n" * 200_000, "large.yaml")
    write("a: &x [1]\nb: *x\n", "alias.yaml")
    write("a: 1\nb: [\n", "broken.yaml")
    (problem,) = mistakes(write(f"name: child\nextends: {extends}\n"))
    assert problem.startswith("child.yaml:2: extends: ") and words in problem and "\n" not in problem


def test_circles_and_long_chains_are_one_line(write, tmp_path):
    write("extends: child.yaml\nname: other\n", "other.yaml")
    assert mistakes(write("extends: other.yaml\nname: child\n")) == [
        "other.yaml:1: extends: a circle: child.yaml extends other.yaml extends child.yaml"
    ]
    for number in range(1000):
        write(f"extends: {number + 1}.yaml\nname: x\n", f"{number}.yaml")
    (problem,) = mistakes(tmp_path / "0.yaml")
    assert problem.startswith(f"{LONGEST - 1}.yaml:1: extends: {LONGEST} files extend one another already")
    write("extends: parent.yaml\nname: x\n", f"{LONGEST - 1}.yaml")
    assert load(tmp_path / "1.yaml").experiment.train.steps == 2000


def test_the_nearest_of_a_chain_counts(write):
    """Merge from the top. From the bottom, the grandparent's conv4 would fill in what the parent's mlp replaced."""
    write(CHILD.replace("child", "middle") + "network: {name: mlp, hidden: [3]}\ntrain: {steps: 5}\n", "middle.yaml")
    child = load(write("extends: middle.yaml\nname: child\nnetwork: {name: conv4}\n")).experiment
    assert child.train.steps == 5 and child.network.filters == 64


def test_the_schema_knows_extends():
    """Check that an editor does not miss `steps` in a file that extends another, and misses it in one that does not."""
    told = schema()
    part, whole = told["then"], told["else"]
    assert part["required"] == ["name"] and "algorithm" in whole["required"] and "extends" in whole["properties"]
    assert "steps" in told["$defs"]["Train"]["required"] and "required" not in told["$defs"]["TrainPart"]
    assert "#/$defs/TrainPart" in json.dumps(part) and "Part" not in json.dumps(whole)
    references = {text.split('"')[0] for text in json.dumps(told).split("#/$defs/")[1:]}
    assert references <= told["$defs"].keys()


def test_finished_runs_stay_valid():
    """Find the names and digests of all specs that ever shipped, now of a spec or of a table's cell."""
    known = json.loads(Path(__file__).with_name("digests.json").read_text())
    shipped = {spec.name: spec.digest for spec in SHIPPED.values()}
    for table in shipped_tables():
        shipped |= {one.full.name: one.full.digest for one in plan(load_table(table), Path("nowhere"))}
    assert {name: shipped.get(name) for name in known} == known
