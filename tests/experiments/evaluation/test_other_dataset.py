"""A network that is trained on one dataset and tested on another: rows, images, files and refusals."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from metarun.datasets import build as build_dataset
from metarun.datasets.errors import DataError
from metarun.datasets.options import GlyphsOptions
from metarun.datasets.tasks import task_number
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.model import build
from metarun.experiments.reports.compare import difference_of_tasks, with_episodes
from metarun.experiments.reports.table import lines_of, render
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import as_frame, read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPEC = """
name: NAME
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 2}
validation: null
test: {way: 3, shot: 1, query: 2, episodes: 6, dataset: {name: imagefolder, path: drawings}, convert: invert}
jit: off
"""
FOLDER = "drawings"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, session_cache):
    """Train a network on glyphs that is tested on four glyphs, dark on white, in a folder of PNG files."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        pool = build_dataset(GlyphsOptions()).pools["test"]
        for row, image in enumerate(pool.images[:80]):
            path = folder / FOLDER / f"class-{row // 20}" / f"{row % 20:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - image[..., 0]).save(path)
        (folder / "spec.yaml").write_text(SPEC.replace("NAME", "drawn"))
        directory = RunDirectory(folder / "drawn" / "seed-0")
        row = train(Run(load(folder / "spec.yaml").experiment, 0, directory))
    return directory, row, pool


@pytest.fixture(autouse=True)
def cached(cache_folder):
    """Use the cache of the session."""


def test_the_row_says_both_datasets_and_both_contents(trained):
    directory, row, _ = trained
    assert (row.dataset, row.trained_on) == ("glyphs -> imagefolder", "glyphs")
    assert row.content_digest and row.test_content_digest not in ("", row.content_digest)
    assert json.loads(row.test_options) == {
        "name": "imagefolder", "split": [0.0, 0.0, 1.0], "split_seed": 0, "convert": "invert"
    }  # fmt: skip
    assert read_row(directory.result) == row


def test_the_network_sees_the_drawings_as_glyphs(trained):
    """Reject images that are not inverted, or resized from 28 to 84 pixels, the folder's default, and back."""
    directory, _, pool = trained
    model = build(load(directory.spec).experiment, 0)
    batch = model.test_stream().sample(task_number(0), 4)
    seen = np.rint(255 * batch.query_x.numpy()).astype(np.uint8).reshape(-1, 28, 28, 1)
    known = {image.tobytes() for image in pool.images[:80]}
    assert all(image.tobytes() in known for image in seen)
    assert set(model.tested.pools) == {"test"} and model.source.name == "glyphs"


def test_its_own_test_is_repeated_by_evaluate_and_another_has_a_row_beside_it(trained):
    directory, own, _ = trained
    assert evaluate(directory.path, "test", {}).row == own
    other = evaluate(directory.path, "test", {"dataset": {"name": "glyphs"}})
    assert (other.row.dataset, other.row.test_options, other.row.test_content_digest) == ("glyphs", "", "")
    assert other.path.name.startswith("test-3way") and other.path.with_suffix(".csv").is_file()


def test_tables_and_comparisons_keep_test_datasets_apart(trained):
    """Reject an average over rows of two test datasets, and a pair of tests whose tasks have other images."""
    directory, own, _ = trained
    glyphs = evaluate(directory.path, "test", {"dataset": {"name": "glyphs"}})
    kept = evaluate(directory.path, "test", {"dataset": {"name": "imagefolder", "path": folder_of(directory)},
                                             "convert": "as-is"})  # fmt: skip
    lines = lines_of(as_frame([own, glyphs.row, kept.row]))
    assert len(lines) == 3 and lines["seeds"].eq(1).all()
    text = render(lines, "text")
    assert "glyphs -> imagefolder (invert)" in text and "glyphs -> imagefolder (as-is)" in text
    mine, other, same = map(with_episodes, (directory.path, glyphs.path, kept.path))
    assert "dataset.name is imagefolder and glyphs" in difference_of_tasks(mine, other)
    assert difference_of_tasks(mine, same) is None  # the same tasks, whose images are converted in another way
    assert own.episodes_digest == kept.row.episodes_digest and own.mean != kept.row.mean


def test_a_folder_has_the_same_content_for_networks_of_other_images(trained):
    """Reject a digest of the images as a network reads them: no two networks could be compared on a folder."""
    directory, own, _ = trained
    options = load(directory.spec).experiment.test.dataset
    images = build_dataset(GlyphsOptions()).preprocessing
    others = [
        images.model_copy(update=change) for change in ({"binary": True}, {"height": 9, "width": 9, "channels": 3})
    ]
    sources = [build_dataset(options.for_network(each)) for each in (images, *others)]
    assert {source.content_digest[:16] for source in sources} == {own.test_content_digest}
    assert [source.input_shape for source in sources] == [(28, 28, 1), (28, 28, 1), (9, 9, 3)]
    assert set(np.unique(sources[1].pools["test"].images)) == {0, 255}


def test_a_folder_that_changed_since_a_test_is_refused(trained, tmp_path):
    """Reject a row of the former images, returned as if nothing had happened."""
    directory, _, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder_of(directory), copy)
    changes = {"dataset": {"name": "imagefolder", "path": str(copy)}, "convert": "invert"}
    first = evaluate(directory.path, "test", changes)
    assert evaluate(directory.path, "test", changes).known
    shutil.rmtree(copy / "class-3")
    with pytest.raises(RunError, match=f"{first.path.name} is of other images"):
        evaluate(directory.path, "test", changes)


@pytest.mark.parametrize(
    ("split", "changes", "error", "message"),
    [
        ("test", {}, DataError, "ink is not known, or none, and the network was trained on light ink on dark: set"),
        ("val", {"convert": "as-is"}, DataError, "has no val classes: choose another split, or another dataset"),
        ("test", {"convert": "as-is", "way": 5}, DataError, "test.way is 5: at most 4 here"),
        ("test", {"convert": "as-is", "query": 20}, DataError, "test.query is 20: at most 19 here"),
    ],
)
def test_tests_that_are_not_possible_are_one_line(trained, split, changes, error, message):
    directory, _, _ = trained
    folder = {"name": "imagefolder", "path": folder_of(directory)}
    with pytest.raises(error, match=message):
        evaluate(directory.path, split, {"dataset": folder, **changes})


def test_classes_of_the_training_are_told_by_their_names(trained, capsys):
    directory, _, _ = trained
    evaluate(directory.path, "train", {"dataset": {"name": "glyphs"}, "convert": "invert"})
    assert "train classes of glyphs are classes of the training, by their names (" in capsys.readouterr().err


def test_a_divided_folder_is_tested_on_its_test_classes(trained, tmp_path):
    directory, _, _ = trained
    for number, split in enumerate(("train", "test", "test", "test")):
        name = f"class-{number}"
        shutil.copytree(f"{folder_of(directory)}/{name}", tmp_path / split / name)
    folder = {"name": "imagefolder", "path": str(tmp_path)}
    row = evaluate(directory.path, "test", {"dataset": folder, "convert": "invert"}).row
    assert row.way == 3
    with pytest.raises(DataError, match="test.way is 4: at most 3 here"):
        evaluate(directory.path, "test", {"dataset": folder, "convert": "invert", "way": 4})


def folder_of(directory):
    return str(directory.path.parent.parent / FOLDER)
