"""An image folder that is moved, or mounted elsewhere: its content decides, its path does not."""

import json

import numpy as np
import pytest
from PIL import Image

from metarun.experiments.config.load import former_digest, load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.figures.finished import runs_below
from metarun.experiments.figures.seeds import seed_groups
from metarun.experiments.reports.compare import difference_of_tasks, with_episodes
from metarun.experiments.reports.table import lines_of, read_results
from metarun.experiments.runs.continuation import shorter_run
from metarun.experiments.runs.run import Run
from metarun.experiments.training.steps import TrainingSteps
from metarun.experiments.training.train import train

SPEC = """
name: few
algorithm: {name: protonet}
network: {name: mlp, hidden: [4]}
dataset: {name: imagefolder, path: imgs, image_size: 8, channels: 1, split: [0.5, 0.25, 0.25]}
protocol: inductive
train: {way: 3, shot: 1, query: 1, steps: 4, log_every: 2}
validation: {episodes: 2, every: 2}
test: {way: 3, shot: 1, query: 1, episodes: 4}
jit: off
"""


def fill(folder, seed):
    """Write 12 classes of 2 random images."""
    generator = np.random.default_rng(seed)
    for number in range(12):
        (folder / f"c{number:02}").mkdir(parents=True)
        for image in range(2):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{number:02}" / f"{image}.png")


@pytest.fixture
def few(tmp_path, own_cache, eagerly):
    """Return a function that gives a run on tmp_path/imgs, changed."""
    fill(tmp_path / "imgs", 0)
    (tmp_path / "few.yaml").write_text(SPEC)

    def make(*changes, out="runs", seed=0):
        return Run.at(tmp_path / out, load(tmp_path / "few.yaml", changes).experiment, seed)

    return make


def as_before(run):
    """Write the digests of a run as older versions did, with the path of the folder in them."""
    digest = former_digest(run.directory.spec, load(run.directory.spec).experiment)
    if run.directory.finished:
        row = json.loads(run.directory.result.read_text())
        run.directory.result.write_text(json.dumps(row | {"spec_digest": digest}))
    for path in run.directory.newest_checkpoints():
        with np.load(path) as file:
            arrays = dict(file)
        state = json.loads(str(arrays["state"]))
        del state["training_digest"], state["spec"]
        np.savez(path, **arrays | {"state": np.array(json.dumps(state | {"digest": digest}))})
    return digest


@pytest.mark.parametrize("older", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fault_17_a_moved_folder_is_the_same(few, tmp_path, stop_in_the_test, monkeypatch, older):
    """Move it behind a link or to another name, with a row and without, also if an older version began the run.

    Rejected: "of another spec", a training from step 0, and a run that `evaluate` cannot test any more.
    """
    begun = few(out="begun")
    row = train(few())
    stop_in_the_test(begun)
    digests = [as_before(run) for run in (few(), begun)] if older else [row.spec_digest]
    monkeypatch.setattr(TrainingSteps, "take", lambda *_: pytest.fail("a step was repeated"))
    (tmp_path / "imgs").rename(tmp_path / "imgs2")
    (tmp_path / "imgs").symlink_to("imgs2")
    assert (train(few()).mean, train(few()).spec_digest) == (row.mean, digests[0])
    assert train(begun).mean == row.mean and train(begun).spec_digest == begun.experiment.digest
    (tmp_path / "imgs").unlink()
    (tmp_path / "imgs2").rename(tmp_path / "imgs3")
    assert evaluate_fails(few()) and train(few("dataset.path=imgs3")).spec_digest == digests[0]
    assert train(few("dataset.path=imgs3", out="begun")).spec_digest == begun.experiment.digest
    assert evaluate(begun.directory.path, "test", {"episodes": 3}).row.episodes == 3
    assert few("dataset.path=imgs3").experiment.digest == begun.experiment.digest == few().experiment.digest


def evaluate_fails(run):
    with pytest.raises(Exception, match="imgs2? is not a folder"):
        evaluate(run.directory.path, "test", {"episodes": 3})
    return True


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_fault_17_seeds_from_two_mounts_are_one_line(few, tmp_path, older):
    """Show one experiment in tables, figures and comparisons; a longer training continues the one of the other mount.

    Rejected: a table with two lines, and one whose lines are of different images.
    """
    first = few()
    train(first)
    if older:
        as_before(first)
    (tmp_path / "imgs").rename(tmp_path / "mount")
    second, longer = few("dataset.path=mount", seed=1), few("dataset.path=mount", "train.steps=6", "name=longer")
    train(second)
    lines = lines_of(read_results(tmp_path / "runs"))
    assert list(lines["seeds"]) == [2] and "dataset.path" not in lines
    assert [len(group.runs) for group in seed_groups(runs_below([tmp_path / "runs"]))] == [2]
    assert difference_of_tasks(*(with_episodes(run.directory.path) for run in (first, second))) is None
    assert shorter_run(longer.experiment, longer.directory).path == first.directory.path
    assert train(longer).train_steps == 6
    fill(tmp_path / "imgs", 1)
    train(few(seed=2))  # of the same name, and other images
    assert sorted(lines_of(read_results(tmp_path / "runs/few"))["seeds"]) == [1, 2]
    groups = {group.name: len(group.runs) for group in seed_groups(runs_below([tmp_path / "runs/few"]))}
    assert sorted(groups.values()) == [1, 2] and all("images" in name for name in groups)


@pytest.mark.slow
def test_fault_17_other_images_are_never_the_same(few, tmp_path, stop_in_the_test, capsys):
    """Reject the row of a folder for another one, at another path, behind a link, or at the same path."""
    train(few())
    stop_in_the_test(few(out="begun"))
    fill(tmp_path / "other", 1)
    with pytest.raises(RunError, match=r"finished run on other data than imagefolder .*other has now .*-s name="):
        few("dataset.path=other").refuse_another_spec()
    with pytest.raises(RunError, match="has other images"):
        train(few("dataset.path=other", out="begun"))
    longer = few("dataset.path=other", "train.steps=6", "name=longer")
    assert train(longer).train_steps == 6 and "continues" not in capsys.readouterr().err
    (tmp_path / "imgs").rename(tmp_path / "imgs2")
    (tmp_path / "imgs").symlink_to("other")
    with pytest.raises(RunError, match="finished run on other data"):
        train(few())
    (tmp_path / "imgs").unlink()
    (tmp_path / "other").rename(tmp_path / "imgs")
    with pytest.raises(RunError, match="finished run on other data"):
        train(few())
    with pytest.raises(RunError, match="has other images"):
        evaluate(few().directory.path, "test", {"episodes": 3})
    row = json.loads(few().directory.result.read_text())
    few().directory.result.write_text(json.dumps(row | {"content_digest": ""}))  # nothing tells which they were
    with pytest.raises(RunError, match="unknown"):
        train(few("dataset.path=imgs2"))
