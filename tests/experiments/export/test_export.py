"""The folder of an export: the example of its model card, run without metarun, gives the answers of predict."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from metarun.experiments.config.load import load
from metarun.experiments.export import export as room
from metarun.experiments.export.request import request
from metarun.experiments.prediction.classifier import Classifier
from metarun.experiments.prediction.files import find_support, read_images, read_support
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.prediction.request import trained_classifier
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPEC = """
name: few
algorithm: {name: protonet}
network: {name: mlp, hidden: [8], batch_norm: true}
dataset: {name: imagefolder, path: PATH, image_size: 8}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 2}
validation: null
test: {way: 3, shot: 1, query: 2, episodes: 4, checkpoint: last}
jit: off
"""


def draw(folder, classes, images, size, first=0):
    """Write images of noise around the colour of their class, grey ones among them."""
    for number in range(classes):
        (folder / f"class {number}").mkdir(parents=True)
        for image in range(images - number % 2):
            generator = np.random.default_rng([first, number, image])
            shape = (*size, 3) if image % 2 else size
            pixels = np.clip(60 * (number + 1) + generator.normal(0, 30, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {number}" / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, session_cache):
    """Train on images of a folder; return the run, and folders of support and other images of another size."""
    folder = tmp_path_factory.mktemp("export")
    for split in ("train", "test"):
        draw(folder / "images" / split, 4, 5, (8, 8))
    (folder / "few.yaml").write_text(SPEC.replace("PATH", str(folder / "images")))
    directory = RunDirectory(folder / "few" / "seed-0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        train(Run(load(folder / "few.yaml").experiment, 0, directory))
    return directory.path, draw(folder / "support", 3, 3, (12, 10), 1), draw(folder / "new", 3, 2, (9, 17), 2)


def lines_of_example(out, paths, *links):
    """Run the example of a model card in its folder, in a process without metarun; return the words of its lines."""
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]
    for name, target in links:
        (out / name).symlink_to(target)
    blocked = "import sys\nsys.modules['metarun'] = None\n"  # an import of it raises ModuleNotFoundError
    done = subprocess.run(
        [sys.executable, "-I", "-c", blocked + code, *map(str, paths)],
        cwd=out,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.removeprefix(f"{path} ") for line, path in zip(done.stdout.splitlines(), paths, strict=True)]


def differences(run, support, new, out, inside, invert=False):
    """Return labels of the example and of predict, and how far its probabilities are from those of predict."""
    room.export(request(run, out, support if inside else None, invert=invert))
    paths = sorted(new.rglob("*.png"))
    found = lines_of_example(out, paths, *([] if inside else [("support", support)]))
    model = trained_learner(trained_classifier(run))
    files = find_support(support)
    images = np.stack([each.image.pixels for each in read_images(paths, model.inputs.preprocessing, invert)])
    answers = Classifier(model, read_support(files, model.inputs.preprocessing, invert)).classify(images)
    assert len({*answers.labels}) > 1 and answers.probabilities.max() < 0.999
    names, _, probabilities = zip(*(line.rpartition(" ") for line in found), strict=True)
    far = np.abs(np.array(probabilities, float) - answers.probabilities.max(axis=1)).max()
    return list(names), [files.classes[label] for label in answers.labels], far


def test_the_example_gives_the_answers_of_predict(trained, tmp_path):
    """Reject another order of the classes, other resizing of files, and images that were not normalised."""
    run, support, new = trained
    names, expected, far = differences(run, support, new, tmp_path / "out", inside=True)
    assert names == expected and far < 1e-6
    assert (tmp_path / "out" / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\n"
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"own test \| accuracy [\d.]+ % .*4 test tasks\), 3-way 1-shot, inductive", card)
    assert "class 0 (3), class 1 (2), class 2 (3)" in card and "8 x 8 pixels, RGB" in card
    assert {each.name for each in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
def test_the_example_of_a_learner_gives_the_answers_of_predict(trained, tmp_path):
    """Reject, as above; and light and dark exchanged of the support images alone."""
    for folder, options in (("learner", {"inside": False}), ("inverted", {"inside": True, "invert": True})):
        names, expected, far = differences(*trained, tmp_path / folder, **options)
        assert names == expected and far < 1e-6, folder


def test_what_is_not_whole_leaves_nothing(trained, tmp_path, monkeypatch):
    """Reject a folder without its model card, and one that takes the place of what came meanwhile."""
    run, support, _ = trained
    asked = request(run, tmp_path / "below" / "out", support)

    def write(signatures, folder):
        (tmp_path / "below" / "out").mkdir()

    monkeypatch.setattr(room.programs, "save", write)
    with pytest.raises(FileExistsError):
        room.export(asked)
    assert [each.name for each in (tmp_path / "below").iterdir()] == ["out"]
    assert list((tmp_path / "below" / "out").iterdir()) == []
