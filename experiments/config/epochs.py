"""Steps of `train.epochs`, which are counted from the training images. No TensorFlow."""

from __future__ import annotations

import math

from ...datasets.errors import DataError
from .experiment import Experiment


def steps_of_epochs(experiment: Experiment) -> int | None:
    """Return the steps of `train.epochs`, the last one begun counted; None where they are not epochs of known images.

    The letters of glyphs are drawn for it, if they are not in the cache.

    Raises DataError for a folder of images that cannot be read, and for a cache that cannot be written.
    """
    train = experiment.train
    if train.steps or not experiment.kind.trains_on_images:
        return None
    from ...datasets.sizes import counted_sizes_of  # it imports NumPy, which most verbs that load a spec do without

    size = counted_sizes_of(experiment.dataset).get("train")
    images = size and size.total
    return math.ceil(train.epochs * images / train.meta_batch) if images and train.epochs else None


def uncounted(experiment: Experiment) -> str:
    """Return why epochs have not become steps."""
    if experiment.train.steps:
        return "train.steps is given too: keep one of them"
    if not experiment.kind.trains_on_images:
        name = experiment.algorithm.name
        return f"has no effect: {name} is trained on tasks, which do not end: give train.steps"
    from ...datasets.sizes import counted_sizes_of

    name = experiment.dataset.name
    try:
        sizes = counted_sizes_of(experiment.dataset)
    except DataError as error:
        return f"the training images of {name} cannot be counted: {error}"
    if sizes and "train" not in sizes:
        return f"{name} has no train classes here: add classes"
    return f"the training images of {name} are counted when they are prepared: give train.steps"
