"""Training with random changes of images: exact in any grouping and after a stop; validation and test see none."""

import numpy as np
import pytest

from metarun.datasets.images.source import ImageSource
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.model import build
from metarun.experiments.training import conformance
from metarun.experiments.training.conformance import resumed_runs_are_equal, tasks_are_pure, workers_share_a_step
from metarun.experiments.training.steps import TrainingSteps

SPEC = """
name: tiny
algorithm: {name: protonet}
network: {name: mlp, hidden: [8]}
dataset: {name: glyphs}
augment: {crop_padding: 2, resized_crop: [0.3, 1], flip: true, brightness: 0.4, contrast: 0.4, rotation: 15}
protocol: inductive
train: {way: 3, shot: 1, query: 2, meta_batch: 2, steps: 4}
validation: {episodes: 4, every: 2}
test: {way: 3, shot: 1, query: 2, episodes: 4}
"""
pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return lambda *changes: load(tmp_path / "tiny.yaml", changes).experiment


@pytest.mark.parametrize("jit", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_steps_are_the_same_in_any_grouping(tiny, jit):
    """Compare four steps in one call with four calls, bit for bit, and with a training without changes."""
    together, apart, plain = (
        TrainingSteps(build(tiny(f"jit={jit}", *more), 0)) for more in ((), (), ("augment=null",))
    )
    assert together.in_one_program == (jit == "on")
    losses = together.take(4)["loss"]
    np.testing.assert_array_equal(losses, np.concatenate([apart.take(1)["loss"] for _ in range(4)]))
    for one, other in zip(together.learner.variables, apart.learner.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(losses - plain.take(4)["loss"]).min() > 0


@pytest.mark.slow
def test_compiled_or_not_is_a_matter_of_rounding(tiny):
    found = [TrainingSteps(build(tiny(f"jit={jit}"), 0)).take(4)["loss"] for jit in ("off", "on")]
    np.testing.assert_allclose(*found, rtol=1e-3)


@pytest.mark.parametrize(
    "check", [tasks_are_pure, pytest.param(resumed_runs_are_equal, marks=pytest.mark.slow), workers_share_a_step]
)
def test_it_meets_the_requirements(tiny, check, monkeypatch):
    """Reject draws of a state, which a resumed run would not have, and those of a place in the batch.

    A program and single operations differ in last bits, where images are not read at whole places.
    """
    monkeypatch.setattr(conformance, "STEPS", 2)
    changes = ["jit=off", "validation=null", "train.steps=2", "train.log_every=1", "test.checkpoint=last"]
    whole = ["augment={crop_padding: 2, flip: true}"] if check is tasks_are_pure else []
    assert check(tiny(*changes, *whole)) is None


def test_validation_and_test_see_the_images_as_they_are(tiny):
    """Reject a validation on changed images, and a training on unchanged ones."""
    changed, plain = (build(tiny(*more), 0) for more in ((), ("augment=null",)))
    for stream in ("validation_stream", "test_stream"):
        for one, other in zip(*(getattr(each, stream)().sample(3, 2) for each in (changed, plain)), strict=True):
            np.testing.assert_array_equal(one, other)
    on_training_classes = [each.test_stream("train").sample(3, 2).query_x for each in (changed, plain)]
    np.testing.assert_array_equal(*on_training_classes)
    trained = [each.training_stream().sample(3, 2) for each in (changed, plain)]
    np.testing.assert_array_equal(trained[0].classes, trained[1].classes)
    assert np.abs(trained[0].query_x - trained[1].query_x).max() > 0.5


def test_a_source_that_cannot_change_images_is_refused(tiny, monkeypatch):
    def sample(self, split, index, tasks, shape, seed):
        raise AssertionError

    monkeypatch.setattr(ImageSource, "sample", sample)
    with pytest.raises(RunError, match="augment: the source of dataset glyphs cannot change its images"):
        build(tiny(), 0)
    build(tiny("augment=null"), 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"saturation": 0.4}, "augment.saturation: has no effect: the images of glyphs are grey"),
        ({"crop_padding": 28}, "augment.crop_padding: is 28: crops of images of 28 pixels would hold nothing but back"),
    ],
)
def test_what_does_not_fit_images_that_no_option_tells_of_is_refused(tiny, changes, told):
    experiment = tiny()
    augment = experiment.augment.model_copy(update=changes)
    with pytest.raises(RunError, match=told):
        build(experiment.model_copy(update={"augment": augment}), 0)


def test_images_that_are_read_from_files_are_changed_too(tiny):
    found = [
        TrainingSteps(build(tiny("jit=off", f"dataset.in_memory={memory}"), 0)).take(3)["loss"]
        for memory in ("true", "false")
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)
