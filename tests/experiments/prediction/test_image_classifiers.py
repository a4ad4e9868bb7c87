"""Predicting by methods that are trained on images of all classes, without the data of their training."""

import csv
import json
import shutil

import numpy as np
import pytest
from small_runs import SPEC, trained_once, write_classes, write_image

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.model import build
from metarun.experiments.prediction.classifier import Classifier
from metarun.experiments.prediction.files import find_images, find_support, read_images, read_support
from metarun.experiments.prediction.model import trained_learner
from metarun.experiments.prediction.request import trained_classifier

CLASSES = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image-classifiers")
    write_classes(folder / "images", {"train": CLASSES, "test": 5}, ink=60, noise=120)

    def text_of(name):
        text = SPEC.format(name=name, more="", path=folder / "images", protocol="inductive", query="")
        return text.replace("way: 3, shot: 2, meta_batch: 2", "meta_batch: 4")

    with trained_once(folder, text_of) as train:
        yield train


@pytest.mark.parametrize("name", ["simpleshot", pytest.param("baseline", marks=pytest.mark.slow)])
def test_the_images_of_a_test_task_give_the_line_of_that_task(trained, name, tmp_path):
    """Reject a learner that cannot be built without the training data, and an output for each class of the task."""
    directory, number = trained(name), 2
    model = build(load(directory.spec).experiment, 0)
    task = model.test_stream().sample(number, 1)
    labels = task.query_y[0].numpy()
    for kind, x, y in (("support", task.support_x[0], task.support_y[0]), ("query", task.query_x[0], labels)):
        for place, (image, label) in enumerate(zip(model.source.pixels(x), np.asarray(y), strict=True)):
            write_image(tmp_path / kind / f"class-{label}" / f"{place:02}.png", np.rint(255 * image[..., 0]))
    assert json.loads(directory.inputs.read_text())["classes"] == CLASSES
    shutil.move(directory.path.parents[1] / "images", tmp_path / "away")
    try:
        learner = trained_learner(trained_classifier(directory.path, None))
    finally:
        shutil.move(tmp_path / "away", directory.path.parents[1] / "images")
    assert learner.learner.parameters["classes/kernel"].shape[1] == CLASSES
    preprocessing = learner.inputs.preprocessing
    support = read_support(find_support(tmp_path / "support"), preprocessing, False)
    queries = np.stack(
        [each.image.pixels for each in read_images(find_images([tmp_path / "query"]).paths, preprocessing, False)]
    )
    answers = Classifier(learner, support, task.drawn[0].numpy()).classify(queries)
    with open(directory.episodes, newline="") as file:
        line = list(csv.DictReader(file))[number]
    assert float((answers.labels == labels).mean()) == pytest.approx(float(line["accuracy"]), abs=1e-6)
    loss = -np.log(answers.probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(float(line["negative_log_likelihood"]), abs=1e-4)


@pytest.mark.parametrize("classes", [0, -3, 10**9, "many"])
def test_an_edited_number_of_classes_is_told(trained, classes):
    directory = trained("simpleshot")
    text = directory.inputs.read_text()
    directory.inputs.write_text(json.dumps(json.loads(text) | {"classes": classes}))
    try:
        with pytest.raises(RunError, match=r"inputs\.json cannot be read \(it is damaged"):
            trained_learner(trained_classifier(directory.path, None))
    finally:
        directory.inputs.write_text(text)
