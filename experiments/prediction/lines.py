"""Write predictions as CSV or JSON, part by part."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Prediction(NamedTuple):
    """Hold the answer for one image."""

    image: str  # its path
    label: str  # "" where it is rejected, or no output is finite
    probabilities: Sequence[float]  # of each class
    score: float  # the larger, the better the image fits its class
    nearest: str | None  # the path of the nearest support image, of a learner that compares images


class CSV:
    """Write a CSV file: image, label, one column `p(CLASS)` for each class, score and, where there is one, nearest."""

    def __init__(self, classes: Sequence[str], nearest: bool):
        """Prepare the columns for classes, by their names."""
        self.columns = ["image", "label", *(f"p({name})" for name in classes), "score"] + ["nearest"] * nearest

    def head(self) -> str:
        """Return the first line."""
        return _csv([self.columns])

    def lines(self, predictions: Sequence[Prediction]) -> str:
        """Return a line for each prediction. Numbers have nine digits, which tell all float32 apart."""
        return _csv(
            [each.image, each.label, *map(_number, [*each.probabilities, each.score])]
            + ([] if each.nearest is None else [each.nearest])
            for each in predictions
        )

    def end(self) -> str:
        """Return what follows the last line."""
        return ""


class JSON:
    """Write a JSON list with one object a line: image, label, probabilities by class, score and nearest."""

    def __init__(self, classes: Sequence[str], nearest: bool):
        """Prepare the keys for classes, by their names."""
        self.classes, self.nearest, self.empty = classes, nearest, True

    def head(self) -> str:
        """Return the beginning of the list."""
        return "["

    def lines(self, predictions: Sequence[Prediction]) -> str:
        """Return an object for each prediction; an empty label and a number that is not finite are null."""
        text = ""
        for each in predictions:
            probabilities = dict(zip(self.classes, map(_finite, each.probabilities), strict=True))
            value: dict[str, Any] = {"image": each.image, "label": each.label or None, "probabilities": probabilities}
            value["score"] = _finite(each.score)
            if self.nearest:
                value["nearest"] = each.nearest
            text += ("\n" if self.empty else ",\n") + json.dumps(value, ensure_ascii=False)
            self.empty = False
        return text

    def end(self) -> str:
        """Return the end of the list."""
        return "\n]\n"


FORMATS: dict[str, type[CSV | JSON]] = {"csv": CSV, "json": JSON}


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.9g}"


def _finite(value: float) -> float | None:
    return float(_number(value)) if math.isfinite(value) else None


def predictions_of(
    paths: Sequence[str], answers: Any, classes: Sequence[str], supports: Sequence[str], threshold: float
) -> list[Prediction]:
    """Return the predictions for N images.

    Args:
        paths: the paths of the images.
        answers: their `Answers`.
        classes: the names of the classes.
        supports: the paths of the support images.
        threshold: images with a lower score get no label.
    """
    found = []
    for row, path in enumerate(paths):
        label = int(answers.labels[row])
        score = float(answers.scores[row])
        known = label >= 0 and score >= threshold
        nearest = None if answers.nearest is None else supports[int(answers.nearest[row])]
        values = np.asarray(answers.probabilities[row], float).tolist()
        found.append(Prediction(path, classes[label] if known else "", values, score, nearest))
    return found
