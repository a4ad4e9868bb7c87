"""Testing a trained run in another way."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from pictures import png

from metarun.datasets.errors import DataError
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.evaluation.measure import FIRST_UNSEEN_TASK
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.model import build
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.steps import TrainingSteps
from metarun.experiments.training.train import train

SPEC = """
name: few
algorithm: {name: protonet}
network: {name: mlp, hidden: [4]}
dataset: {name: imagefolder, path: PATH, image_size: 8}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 2}
validation: {way: 2, episodes: 2, every: 1}
test: {way: 2, shot: 1, query: 2, episodes: 4}
jit: off
"""


@pytest.fixture
def trained(tmp_path, own_cache):
    """Train on a folder of 6 training, 2 validation and 5 test classes."""
    for split, classes in (("train", 6), ("val", 2), ("test", 5)):
        for number in range(classes):
            folder = tmp_path / "images" / split / f"{split}-{number}"
            folder.mkdir(parents=True)
            for image in range(4):
                (folder / f"{image}.png").write_bytes(png(40 * number + image, (8, 8)))
    (tmp_path / "few.yaml").write_text(SPEC.replace("PATH", str(tmp_path / "images")))
    directory = RunDirectory(tmp_path / "few" / "seed-0")
    train(Run(load(tmp_path / "few.yaml").experiment, 0, directory))
    return directory


def test_only_the_split_that_is_measured_must_suffice(trained):
    """Reject: 5 of 5 test classes refused because the validation, which does not take place, has 2."""
    row, *_ = evaluate(trained.path, "test", {"way": 5})
    assert (row.way, row.split) == (5, "test")
    row, *_ = evaluate(trained.path, "train", {"way": 6})
    assert (row.way, row.split) == (6, "train")
    with pytest.raises(DataError, match="test.way is 3.*: at most 2 here, the classes of val"):
        evaluate(trained.path, "val", {"way": 3})


def test_training_tasks_that_are_measured_are_none_that_were_trained_on(trained):
    """Reject the tasks of the first meta-updates, since the seed of the run and that of its tests are both 0."""
    experiment = load(trained.spec).experiment
    row, *_ = evaluate(trained.path, "train", {"way": 3, "episodes": 2})
    model = build(experiment, 0)
    steps, source = TrainingSteps(model), model.source
    trained_on = np.concatenate([steps._sample(tf.constant(number, tf.int64)).drawn.numpy() for number in range(2)])

    def drawn(first):
        return source.sample("train", tf.constant(first, tf.int64), 2, Shape(3, 1, 2), 0).drawn.numpy()

    def digest(tasks):
        return hashlib.sha256(tasks.astype("<i4").tobytes()).hexdigest()[:16]

    assert row.episodes_digest == digest(drawn(FIRST_UNSEEN_TASK))
    np.testing.assert_array_equal(drawn(0), trained_on)  # what it would be otherwise
    assert row.episodes_digest != digest(trained_on)
