"""Build the learner of a trained run with its weights, without the data that it was trained on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import datasets
from ...algorithms.build import build as build_learner
from ...algorithms.heads.learner import HeadOnFeatures, with_head
from ...algorithms.learner import FewShotLearner
from ...datasets.errors import DataError
from ...datasets.images.source import ImageSource
from ..config.experiment import Experiment
from ..errors import InUse, RunError
from ..evaluation.inputs import Inputs, stored_inputs
from ..evaluation.judges import temperature_of
from ..evaluation.restore import refuse_missing, restore_weights
from ..model import deterministic, input_dtype, refuse_other_images, setup_of
from ..runs.directory import RunDirectory
from ..runs.trained import Retest
from ..system import gpus, signals


class TrainedModel(NamedTuple):
    """Hold a few-shot learner with the weights and the head that its run's test used, and what it takes as images."""

    learner: FewShotLearner
    inputs: Inputs
    experiment: Experiment  # of the run, with the protocol that was asked for
    directory: RunDirectory
    seed: int
    temperature: float = 1.0  # logits are divided by it before the softmax

    @property
    def way(self) -> int | None:
        """Return the number of classes that the last layer has; None if any number can be told apart."""
        return self.experiment.only_way

    def as_input(self, images: np.ndarray) -> Any:
        """Return the learner's inputs, a tensor, from uint8 images `[..., height, width, channels]`."""
        return self.inputs.preprocessing.as_input(images, input_dtype(self.experiment))


class _Images(NamedTuple):
    """Hold the part of a source of images from which a learner is built."""

    input_shape: tuple[int, ...]
    regression: bool = False
    target_shape: tuple[int, ...] = ()
    training_classes: int = 0

    def classes(self, split: str) -> int:
        """Return the number of training classes, of which a classifier has an output each."""
        return self.training_classes


def trained_learner(asked: Retest, calibrated: bool = False) -> TrainedModel:
    """Return the learner of a trained run, with the weights of the checkpoint, and the head, that its test used.

    XLA compiles nothing of it: that would take longer than a few predictions, and an exported learner, which gives the
    same values, cannot have it. The data of the training are needed only for a run of an older version, which has no
    inputs.json, and for a head that needs their mean.

    Args:
        asked: the run, see `trained_classifier`.
        calibrated: whether logits are divided by the run's temperature. Where none is stored, it is fitted, which takes
            the data of the training.

    Raises:
        RunError: the checkpoint of the run is missing or of another spec; its learner lacks `fit` or `classify`; or it
            cannot be calibrated.
        DataError: the data of the training are missing, and needed.
    """
    directory, trained, _, experiment, _ = asked
    temperature = temperature_of(asked).temperature if calibrated else 1.0
    if experiment.device == "gpu":
        gpus.require()
    deterministic(trained.seed, tf32=experiment.precision == "tf32")
    inputs = stored_inputs(directory)
    source: Any = _source(experiment, directory.path) if inputs is None else None
    if inputs:
        source = _Images(inputs.preprocessing.shape, training_classes=inputs.classes or 0)
    learner: Any = build_learner(setup_of(experiment, trained.seed)._replace(jit=False), source)
    if not experiment.test.head:
        refuse_missing(learner, ("fit", "classify"), experiment, directory.path)
    state = restore_weights(learner, directory, experiment, experiment.test.checkpoint)
    if not inputs:
        refuse_other_images(state, source, directory)
        inputs = Inputs.of_source(source, experiment.kind.trains_on_images)
        with suppress(InUse, OSError), directory.locked():  # for the next time, where this may be written
            inputs.write(directory)
    tested = with_head(learner, experiment.test.head)
    model = TrainedModel(tested, inputs, experiment, directory, trained.seed, temperature)
    if isinstance(tested, HeadOnFeatures) and tested.lacks_mean:
        tested.centre(training_source(model))
    return model


def training_source(model: TrainedModel) -> ImageSource:
    """Return the source of the training's images.

    Raises:
        DataError: they are not at hand, or other ones than those of the training.
    """
    try:
        source = _source(model.experiment, model.directory.path)
        if Inputs.of_source(source, model.experiment.kind.trains_on_images) != model.inputs:
            raise DataError(f"{source.name} has other images than those of the training")
    except RunError as error:
        raise DataError(str(error)) from None
    return source


def _source(experiment: Experiment, run: Path) -> ImageSource:
    with signals.at_once():
        source = datasets.build(experiment.dataset, input_dtype(experiment))
    if not isinstance(source, ImageSource):
        raise RunError(f"{run}: {source.name} has no images (it is no ImageSource), and only images can be classified")
    return source
