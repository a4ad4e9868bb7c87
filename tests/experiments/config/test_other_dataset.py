"""A test on another dataset than that of the training: what a spec, `evaluate` and a table may say, and its digests."""

from pathlib import Path

import pytest
from specs import mistakes

from metarun.experiments.config.checks import too_small
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.config.variants import dataset_named, with_test
from metarun.experiments.errors import SpecError
from metarun.experiments.papers.definition import load_table
from metarun.experiments.runs.directory import RunDirectory

SPEC = """\
name: here
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: omniglot}
protocol: inductive
train: {steps: 2}
"""
TABLE = """\
title: Elsewhere
cells:
  - {name: own, column: c, method: m, spec: here.yaml}
  - {name: other, column: c, method: m, spec: here.yaml,
     test: {dataset: {name: imagefolder, path: drawings}, convert: as-is}}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "here.yaml").write_text(SPEC)
    return tmp_path / "here.yaml"


def test_digests_without_it_are_as_before_and_only_that_of_the_test_changes(spec):
    """Reject a training digest with the test's dataset: a run would be trained again for another test."""
    own, other, inverted, grey = (
        load(spec, overrides).experiment
        for overrides in (
            (),
            ("test.dataset.name=glyphs",),
            ("test.dataset.name=glyphs", "test.convert=invert"),
            ("test.dataset={name: imagefolder, path: a}",),
        )
    )
    assert own.digest == "2d2cc155df9ab42b" and "dataset" not in own.deciding["test"]
    assert len({each.digest for each in (own, other, inverted, grey)}) == 4
    assert len({each.training_digest for each in (own, other, inverted, grey)}) == 1
    assert (
        load(spec, ("test.dataset={name: imagefolder, path: b}",)).experiment.digest == grey.digest
    )  # content decides


def test_the_dataset_of_the_training_named_again_is_no_other(spec):
    own = load(spec).experiment
    assert load(spec, ("test.dataset.name=omniglot",)).experiment == own
    assert load(spec, ("test.dataset={name: omniglot, rotations: none}",)).experiment.digest != own.digest
    assert load(spec, ("test.dataset.name=omniglot", "test.convert=invert")).experiment.digest != own.digest


def test_a_resolved_spec_says_the_same(spec, tmp_path):
    (tmp_path / "d").mkdir()
    experiment = load(spec, ("test.dataset={name: imagefolder, path: d}",)).experiment
    assert experiment.test.dataset.path == tmp_path / "d" and experiment.test.dataset.split == (0, 0, 1)
    (tmp_path / "again.yaml").write_text(resolved_yaml(experiment))
    again = load(tmp_path / "again.yaml").experiment
    assert (again.digest, again.elsewhere) == (experiment.digest, experiment.elsewhere)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("test.convert=invert",), "test.convert: has no effect without test.dataset"),
        (("test.dataset.name=glyph",), "unknown dataset 'glyph'; did you mean glyphs"),
        (("test.dataset={}",), "test.dataset: has no name: expected `name:` with one of"),
        (("test.dataset={name: imagefolder}",), "test.dataset.path: is missing: The folder"),
        (("test.dataset={name: glyphs, rotations: none}",), "glyphs has no option rotations; it belongs to omniglot"),
        (("test.dataset={name: omniglot, ink: 0}", "dataset={name: glyphs}"), "test.dataset.ink: has no effect"),
        (("test.dataset={name: imagefolder, path: a, image_size: 9}",), "test.dataset.image_size: has no effect"),
        (("test.dataset={name: imagefolder, path: a, split: [1, 1, 0]}",), "test.dataset.split: adds up to 2, not 1"),
        (("dataset.split=without-latin", "validation=null"), "dataset.split: without-latin has no test classes"),
        (
            ("test.dataset={name: omniglot, split: without-latin}", "dataset={name: glyphs}"),
            "test.dataset.split: without-latin has no test classes",
        ),
        (("test.dataset.name=bandits",), "test.dataset bandits are trials"),
        (("test.dataset.name=sinusoid",), "test.dataset sinusoid has no images"),
        (("test.dataset.name=glyphs", "test.convert=both"), "test.convert: expected as-is or invert"),
    ],
)
def test_mistakes_are_one_line_each(spec, overrides, message):
    (problem,) = mistakes(spec, *overrides)
    assert message in problem


def test_emnist_is_tested_though_it_has_no_training_classes(spec):
    """Reject the refusal of a training on it where it is tested alone, in a spec and by `evaluate`."""
    overrides = ("dataset={name: omniglot, split: without-latin, rotations: none}", "validation=null")
    assert load(spec, (*overrides, "test.dataset.name=emnist")).experiment.tested.name == "emnist"
    assert with_test(load(spec).experiment, {"dataset": {"name": "emnist"}}).tested.name == "emnist"


def test_a_network_of_regression_is_not_tested_on_images():
    with pytest.raises(SpecError, match="dataset sinusoid has no images"):
        load("finn2017/sinusoid", ("test.dataset.name=glyphs",))


def test_a_folder_that_is_too_small_or_missing_is_told_before_the_training(spec, tmp_path):
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "0.png").touch()
    few, none = (load(spec, (f"test.dataset={{name: imagefolder, path: {path}}}",)).experiment for path in ("d", "no"))
    assert [key for key, _ in too_small(few)] == ["test.way", "test.shot"]
    assert [key for key, _ in too_small(none)] == ["test.dataset.path"]


class TestEvaluate:
    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({}, "result.json"),
            ({"dataset": {"name": "omniglot"}}, "result.json"),
            ({"dataset": {"name": "glyphs"}}, "test-on-glyphs-5way"),
            ({"dataset": {"name": "omniglot", "rotations": "none"}}, "test-on-omniglot-"),
        ],
    )
    def test_every_test_has_a_file_of_its_own(self, spec, tmp_path, changes, name):
        trained = load(spec).experiment
        path = RunDirectory(tmp_path).row_of(trained, with_test(trained, changes))
        assert path.name.startswith(name)

    def test_options_places_and_conversions_tell_files_apart(self, spec, tmp_path):
        trained = load(spec).experiment
        glyphs, folder = {"name": "glyphs"}, {"name": "imagefolder", "path": "/a"}
        tests = [{"dataset": glyphs}, {"dataset": glyphs, "convert": "invert"}, {"dataset": folder}]
        tests += [{"dataset": folder | {"path": "/b"}}, {"dataset": folder, "convert": "as-is"}]
        assert len({RunDirectory(tmp_path).row_of(trained, with_test(trained, test)) for test in tests}) == 5

    def test_conversion_of_the_own_test_is_not_that_of_another(self, spec):
        trained = load(spec, ("test.dataset.name=glyphs", "test.convert=invert")).experiment
        assert with_test(trained, {"dataset": {"name": "omniglot"}}).test.convert is None
        assert with_test(trained, {"shot": 2}).test.convert == "invert"

    def test_a_name_a_folder_and_a_spec_are_understood(self, spec, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("drawings").mkdir()
        assert dataset_named("glyphs") == {"name": "glyphs"}
        assert dataset_named("drawings") == {"name": "imagefolder", "path": str(tmp_path / "drawings")}
        assert dataset_named("here.yaml")["name"] == "omniglot" and "ink" not in dataset_named("here.yaml")
        assert dataset_named("nichol2018/omniglot-5way-1shot")["rotations"] == "classes-train"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("glyph", "expected a dataset, a folder of images or a spec; did you mean glyphs"),
            ("imagefolder", "lacks its path: give the folder itself"),
            ("broken.yaml", "broken.yaml"),
        ],
    )
    def test_others_are_refused(self, tmp_path, monkeypatch, given, message):
        monkeypatch.chdir(tmp_path)
        Path("broken.yaml").write_text("name: 1")
        with pytest.raises(SpecError, match=message):
            dataset_named(given)


class TestTables:
    def test_a_cell_is_tested_on_the_folder_beside_the_table(self, spec, tmp_path):
        (tmp_path / "table.yaml").write_text(TABLE)
        own, other = load_table(str(tmp_path / "table.yaml")).cells
        assert own.changes == {} and other.changes["dataset"]["path"] == str(tmp_path / "drawings")
        tested = with_test(load(spec).experiment, other.changes)
        assert tested.test.dataset.path == tmp_path / "drawings" and tested.test.convert == "as-is"
        asked = {"dataset": {"name": "imagefolder", "path": str(tmp_path / "drawings")}, "convert": "as-is"}
        assert tested == with_test(load(spec).experiment, asked)  # as `evaluate` does: the folder is not divided

    @pytest.mark.parametrize(
        ("was", "now", "message"),
        [
            ("path: drawings", "path: drawings, paths: 1", "dataset.*unknown key"),
            (", path: drawings", "", "path.*is missing"),
            ("name: imagefolder", "name: nothing", "dataset"),
        ],
    )
    def test_mistakes_have_their_line(self, spec, tmp_path, was, now, message):
        (tmp_path / "table.yaml").write_text(TABLE.replace(was, now))
        with pytest.raises(SpecError, match=f"table.yaml:[45]: .*{message}"):
            load_table(str(tmp_path / "table.yaml"))
