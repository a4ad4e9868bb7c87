"""Fixtures of the tests of predictions: small runs on a folder of images, and test tasks laid out as folders."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import MORE, SPEC, trained_once, write_classes, write_image

from metarun.experiments.config.load import load
from metarun.experiments.model import build
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.prediction.request import trained_classifier


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that trains a run of a learner, once in a file of tests."""
    folder = tmp_path_factory.mktemp("runs")
    write_classes(folder / "images", {"train": 5, "test": 4}, ink=90, noise=100)

    def text_of(name):
        more, protocol = MORE[name]
        query = "" if name == "reptile" else ", query: 3"
        return SPEC.format(name=name, more=more, protocol=protocol, query=query, path=folder / "images")

    with trained_once(folder, text_of) as trained:
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
    return cache(lambda name, protocol="inductive": trained_learner(trained_classifier(runs(name).path, protocol)))
