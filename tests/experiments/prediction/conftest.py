"""Fixtures of the tests of predictions: small runs on a folder of images, and test tasks laid out as folders."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import MORE, SPEC, write_image

from metarun.experiments.config.load import load
from metarun.experiments.model import build
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that trains a run of a learner, once in a file of tests."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    generator = np.random.default_rng(0)
    for split, classes in (("train", 5), ("test", 4)):
        for number in range(classes):
            pattern = generator.integers(0, 2, (8, 8)) * 90
            for image in range(6):
                noise = generator.integers(0, 100, (8, 8))
                write_image(folder / "images" / split / f"{split}-{number}" / f"{image}.png", pattern + noise)

    def trained(name):
        if name not in made:
            more, protocol = MORE[name]
            path = folder / f"{name}.yaml"
            query = "" if name == "reptile" else ", query: 3"
            path.write_text(SPEC.format(name=name, more=more, protocol=protocol, query=query, path=folder / "images"))
            made[name] = RunDirectory(folder / name / "seed-0")
            train(Run(load(path).experiment, 0, made[name]))
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(folder / "cache"))
        yield trained


@pytest.fixture
def lay_out(tmp_path):
    """Return a function that writes a test task of a run as folders: support/CLASS/*.png and query/CLASS/*.png."""

    def write(directory, number):
        model = build(load(directory.spec).experiment, 0, "test")
        task = model.test_stream().sample(number, 1)
        for name, x, y in (("support", task.support_x, task.support_y), ("query", task.query_x, task.query_y)):
            pixels = np.rint(255 * model.source.pixels(x[0]))
            for row, (image, label) in enumerate(zip(pixels, y[0].numpy(), strict=True)):
                write_image(tmp_path / f"task-{number}" / name / f"class {label}" / f"{row:02}.png", image[..., 0])
        return SimpleNamespace(task=task, folder=tmp_path / f"task-{number}")

    return write


@pytest.fixture(scope="module")
def models(runs):
    """Return a function that gives the trained learner of a run under a protocol, built once in a file of tests."""
    return cache(lambda name, protocol="inductive": trained_learner(runs(name).path, protocol))
