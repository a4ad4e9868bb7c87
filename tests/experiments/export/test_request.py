"""Runs that cannot be exported are refused before TensorFlow is imported, with the reason."""

import pytest
from pictures import png

from metarun.datasets.errors import DataError
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.export.request import request
from metarun.experiments.runs import trained
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run

MAML = """
name: few
algorithm: {name: maml, inner_lr: 0.1}
network: {name: mlp}
dataset: {name: glyphs}
protocol: inductive
train: {way: 3, shot: 1, steps: 2}
"""
UCB1 = "{name: few, algorithm: {name: ucb1}, dataset: {name: bandits}}"
RL2 = "{name: few, algorithm: {name: rl2}, network: {name: gru}, dataset: {name: bandits}, train: {steps: 2}}"
SINES = """
name: few
algorithm: {name: maml, inner_lr: 0.1}
network: {name: mlp}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, steps: 2}
test: {way: 1, shot: 5, query: 5}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that makes the folder of a run, which counts as trained."""
    monkeypatch.setattr(trained, "_last_checkpoint", lambda *_: trained.TrainedRun(0, 2, 1.0, "0" * 16))

    def make(text):
        (tmp_path / "few.yaml").write_text(text)
        found = Run(load(tmp_path / "few.yaml").experiment, 0, RunDirectory(tmp_path / "few" / "seed-0"))
        found.write_spec()
        return found.directory.path

    return make


def support(folder, classes):
    for number in range(classes):
        (folder / f"class {number}").mkdir(parents=True)
        (folder / f"class {number}" / "1.png").write_bytes(png(40 * number, (8, 8)))
    return folder


@pytest.mark.parametrize(("text", "kind"), [(MAML, "classifier"), (RL2, "policy"), (SINES, "regression")])
def test_what_a_run_is_exported_as(run, tmp_path, text, kind):
    assert request(run(text), tmp_path / "out").kind == kind


def test_what_is_there_stays(run, tmp_path):
    """Reject an empty folder that is written to, and a link that is followed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("out", "link"):
        with pytest.raises(RunError, match=f"{name} exists already: choose another folder, or remove it"):
            request(run(MAML), tmp_path / name)


@pytest.mark.parametrize(("text", "words"), [(UCB1, "ucb1 is a rule without weights"), ("", "give the folder of a")])
def test_no_model_to_export(run, tmp_path, text, words):
    with pytest.raises(RunError, match=words):
        request(run(text) if text else tmp_path, tmp_path / "out")


@pytest.mark.parametrize("text", [RL2, SINES])
def test_a_support_set_is_for_images(run, tmp_path, text):
    for option in ({"support": support(tmp_path / "support", 3)}, {"invert": True}, {"calibrated": True}):
        with pytest.raises(RunError, match=f"classifies no images: leave out --{next(iter(option))}"):
            request(run(text), tmp_path / "out", **option)


def test_the_last_layer_has_its_number_of_classes(run, tmp_path):
    """Reject classes whose labels the last layer does not have."""
    for name, classes in (("two", 2), ("four", 4)):
        with pytest.raises(RunError, match=f"{name} has {classes} classes, and maml was trained for exactly 3"):
            request(run(MAML), tmp_path / "out", support(tmp_path / name, classes))
    assert request(run(MAML), tmp_path / "out", support(tmp_path / "three", 3)).support.counts == (1, 1, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        request(run(MAML), tmp_path / "out", tmp_path / "empty")
