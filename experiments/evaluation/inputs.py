"""The input images that a run's network takes, stored with the run so that it can be used without its data.

`inputs.json` is a pure function of the training data. It has the preprocessing, by which a file becomes an input, and
the brightness of the training images, with which the images that a trained network is given are compared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ...datasets.images.preprocessing import Preprocessing
from ..errors import RunError
from ..runs.directory import RunDirectory
from ..system.atomic import write_json_atomic

if TYPE_CHECKING:
    from ...datasets.images.source import ImageSource

LOOKED_AT = 1000  # training images whose brightness is measured, at most; they are evenly spread over the classes
LARGEST = 10_000  # pixels of a side, in a file that may come from others
MOST_CLASSES = 100_000


class Inputs(BaseModel):
    """Hold the input images of a network, and how bright the uint8 images of its training are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preprocessing: Preprocessing
    brightness: float  # mean of the training images, from 0 to 1
    brightness_deviation: float  # standard deviation of the means of single images
    classes: int | None = None  # of the training, turns included, where a classifier has an output for each

    @classmethod
    def of_source(cls, source: ImageSource, counted: bool = False) -> Inputs:
        """Return those of the source that a network is trained on; `counted`: with the number of its classes."""
        images = source.pools["train"].images
        rows = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
        means = brightness(images[rows])
        return cls(
            preprocessing=source.preprocessing,
            brightness=round(float(means.mean()), 6),
            brightness_deviation=round(float(means.std()), 6),
            classes=source.classes("train") if counted else None,
        )

    def write(self, directory: RunDirectory) -> None:
        """Write inputs.json of a run, unless it is there as it should be."""
        if stored_inputs(directory, strict=False) != self:
            unsaid = {"classes"} if self.classes is None else set[str]()
            write_json_atomic(directory.inputs, self.model_dump(mode="json", exclude=unsaid))


def brightness(images: np.ndarray) -> np.ndarray:
    """Return the mean of each uint8 image `[N, H, W, C]`, from 0 to 1, `[N]`."""
    return images.reshape(len(images), -1).mean(axis=1) / 255


def stored_inputs(directory: RunDirectory, strict: bool = True) -> Inputs | None:
    """Return what inputs.json of a run says, or None if an older version trained the run.

    Args:
        directory: the folder of the run.
        strict: whether a file that cannot be read is an error; otherwise it counts as missing.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    try:
        inputs = Inputs.model_validate(json.loads(directory.inputs.read_text(encoding="utf-8")))
        if not all(0 < side <= LARGEST for side in inputs.preprocessing.shape) or 0 in inputs.preprocessing.std:
            raise ValueError("no image has this size")
        if inputs.classes is not None and not 0 < inputs.classes <= MOST_CLASSES:
            raise ValueError("no training has so many classes")
        return inputs
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        if not strict:
            return None
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or of another version"
        raise RunError(
            f"{directory.inputs} cannot be read ({why}): restore it, or remove it, and it is made again from the "
            "training data"
        ) from None
