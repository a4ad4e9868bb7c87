"""Draw a contact sheet of what a network sees: training images, the support set, and the first images to classify.

Images that are inverted, transposed, cut off or of another scale than those of the training give no error, only wrong
answers. They are seen at once when they stand beside each other.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.errors import DataError
from ..figures.style import own_style, plain
from ..system.atomic import write_bytes_atomic
from .files import SupportImages
from .lines import Prediction
from .model import TrainedModel, training_source

COLUMNS = 10
CLASSES, TRAINING, IMAGES = 20, 2 * COLUMNS, 5 * COLUMNS  # shown at most
HIGH = 1.3  # of a row, in widths of an image
INCHES = 0.72  # of an image
LONGEST = 12  # characters of a name under an image
Row = tuple[str, Sequence[np.ndarray] | np.ndarray, Sequence[str]]  # text on the left, images, text under each


class Sheet:
    """Draw a contact sheet of the first images that are classified."""

    def __init__(self, model: TrainedModel, support: SupportImages):
        """Begin a sheet of a trained learner and a support set."""
        self.model, self.support = model, support
        self.images: list[np.ndarray] = []  # uint8, as the network reads them
        self.labels: list[str] = []

    def add(self, images: Sequence[np.ndarray], predictions: Sequence[Prediction]) -> None:
        """Keep images with their predictions, as long as there is room."""
        room = IMAGES - len(self.images)
        self.images += images[:room]
        self.labels += [each.label or "?" for each in predictions[:room]]

    def save(self, path: Path) -> list[str]:
        """Write the sheet, as PNG, and return lines for the user."""
        lines = [f"preview: {path}"]
        try:
            training = training_images(self.model)
        except DataError as error:
            training = []
            lines.append(f"preview: without training images, which are not at hand ({error})")
        with own_style():
            write_bytes_atomic(path, _drawn(list(self._rows(training)), f"as {self._name} reads them"))
        return lines

    @property
    def _name(self) -> str:
        shape, directory = self.model.inputs.preprocessing, self.model.directory.path
        return f"{directory.parent.name}/{directory.name} ({shape.width}x{shape.height})"

    def _rows(self, training: Sequence[np.ndarray]) -> Iterator[Row]:
        for start in range(0, len(training), COLUMNS):
            yield "" if start else "training", training[start : start + COLUMNS], ()
        files, first = self.support.files, 0
        for place, (name, count) in enumerate(zip(files.classes, files.counts, strict=True)):
            if place < CLASSES:
                label = f"support: {name}" if place == 0 else name
                yield label, self.support.images[first : first + min(count, COLUMNS)], ()
            first += count
        for start in range(0, len(self.images), COLUMNS):
            part = slice(start, start + COLUMNS)
            yield "" if start else "images, with\ntheir labels", self.images[part], self.labels[part]


def training_images(model: TrainedModel) -> list[np.ndarray]:
    """Return some of the images that a learner was trained on, uint8, evenly spread over the classes.

    Raises:
        DataError: they are not at hand, or other ones than those of the training.
    """
    images = training_source(model).pools["train"].images
    rows = np.unique(np.linspace(0, len(images) - 1, TRAINING).astype(int))
    return list(np.asarray(images[rows]))


def _drawn(rows: Sequence[Row], title: str) -> bytes:
    """Return a PNG of rows of images."""
    from matplotlib import pyplot

    left, width, height = 3.0, float(COLUMNS), HIGH * len(rows) + 1
    figure = pyplot.figure(figsize=(INCHES * (left + width), INCHES * height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, width + 0.1), ylim=(-HIGH * len(rows), 1))
    axes.axis("off")
    axes.text(0, 0.4, title, fontsize=9)
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest", "aspect": "auto"}
    for number, (label, images, below) in enumerate(rows):
        top = -HIGH * number
        axes.text(-0.15, top - 0.5, plain(_short(label, 40)), ha="right", va="center", fontsize=8, wrap=True)
        for column, image in enumerate(images):
            axes.imshow(image.squeeze(), extent=(column + 0.04, column + 0.96, top - 0.96, top - 0.04), **look)
        for column, text in enumerate(below):
            axes.text(column + 0.5, top - 0.98, plain(_short(text)), ha="center", va="top", fontsize=7)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return data.getvalue()


def _short(text: str, most: int = LONGEST) -> str:
    shown = "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
