"""The words of a run about its input images."""

import json

import numpy as np
import pytest

from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.inputs import Inputs, brightness, stored_inputs
from metarun.experiments.runs.directory import RunDirectory

HUGE = json.dumps(
    {
        "preprocessing": {"height": 10**9, "width": 8, "channels": 1},
        "brightness": 0.1,
        "brightness_deviation": 0.1,
    }
)


def source(levels, **options):
    images = np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])
    return ImageSource("own", {"train": ClassPool(images, np.array([len(levels)]), ("a",))}, **options)


def test_it_comes_back_from_its_file(tmp_path):
    inputs = Inputs.of_source(source([0, 51], mean=(0.5, 0.4, 0.3), std=(0.1,), ink="dark"))
    inputs.write(RunDirectory(tmp_path))
    before = (tmp_path / "inputs.json").stat()
    inputs.write(RunDirectory(tmp_path))
    now = (tmp_path / "inputs.json").stat()
    assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # not written again
    assert stored_inputs(RunDirectory(tmp_path)) == inputs
    assert inputs.preprocessing.mean == (0.5, 0.4, 0.3) and inputs.preprocessing.ink == "dark"


def test_brightness_is_of_the_uint8_images():
    """Reject that of the normalised inputs, and the deviation of pixels: single images are grey all over here."""
    inputs = Inputs.of_source(source([0, 51], mean=(0.5,)))
    assert (inputs.brightness, inputs.brightness_deviation) == (0.1, 0.1)
    half = np.zeros((1, 2, 2, 1), np.uint8)
    half[0, 0] = 255
    assert brightness(half).tolist() == [0.5]


def test_a_large_training_set_is_looked_at_from_end_to_end():
    """Reject the first images alone: those of a few classes."""
    inputs = Inputs.of_source(source(np.repeat([0, 102], 1500)))
    assert inputs.brightness == pytest.approx(0.2)


def test_a_run_of_an_older_version_has_none(tmp_path):
    assert stored_inputs(RunDirectory(tmp_path)) is None


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"preprocessing": {}}), "\0", HUGE])
def test_a_damaged_file_is_one_line_with_the_way_out(tmp_path, text):
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(RunError, match=r"inputs.json cannot be read \(it is damaged.*\): restore it, or remove it"):
        stored_inputs(RunDirectory(tmp_path))
    assert stored_inputs(RunDirectory(tmp_path), strict=False) is None
