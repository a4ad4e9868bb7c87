"""Write a trained run as a SavedModel, with labels and a model card beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...algorithms.programs import program
from ...datasets.images.preprocessing import Preprocessing
from ..config.experiment import Experiment
from ..errors import RunError, warn
from ..evaluation.restore import restored
from ..model import Model, input_dtype
from ..prediction.classifier import Task, takes_any_counts
from ..prediction.files import read_support
from ..prediction.model import trained_learner
from ..prediction.predict import support_warnings
from ..system.atomic import new_folder
from . import programs
from .card import Card, render
from .request import Request

ESCAPED = "backslashreplace"  # bytes of file names that are not UTF-8


class Export(NamedTuple):
    """Hold the parts of an export: the signatures of its SavedModel, and what its model card says of it."""

    signatures: programs.Signatures
    learner: Any
    experiment: Experiment
    images: Preprocessing | None = None  # of a classifier
    labels: Mapping[str, int] = MappingProxyType({})  # classes of a support set inside, with their numbers of images
    temperature: float | None = None  # by which logits are divided before the softmax, if it was asked for


def export(asked: Request) -> Card:
    """Write the folder `asked.out`: saved_model/, README.md, and labels.txt where a support set is inside.

    The folder appears when it is complete.

    Raises:
        RunError: the weights or the code of the run are not at hand, the support set does not fit, or the validation
            tasks tell no temperature.
        DataError: images of the support set cannot be read, or the data for a temperature are missing.
        OSError: the disk refuses.

    Returns:
        What the model card says.
    """
    made = {"classifier": _classifier, "regression": _regression, "policy": _policy}[asked.kind](asked)
    card = Card(
        asked.kind,
        asked.trained.directory,
        made.experiment,
        asked.trained.trained,
        digest(made.learner),
        {name: programs.sides(each) for name, each in made.signatures.items()},
        made.images,
        asked.invert,
        made.labels,
        made.temperature,
    )
    with new_folder(asked.out) as folder:
        programs.save(made.signatures, str(folder / "saved_model"))
        if made.labels:
            (folder / "labels.txt").write_bytes("".join(f"{label}\n" for label in made.labels).encode(errors=ESCAPED))
        (folder / "README.md").write_bytes(render(card).encode(errors=ESCAPED))
    return card


def _classifier(asked: Request) -> Export:
    model = trained_learner(asked.trained, asked.calibrated)
    temperature = model.temperature if asked.calibrated else None
    learner, images = model.learner, model.inputs.preprocessing
    if asked.invert:
        images = images.model_copy(update={"ink": {"light": "dark", "dark": "light"}.get(images.ink or "")})

    def as_input(pixels: Any) -> tf.Tensor:
        return model.as_input(255 - pixels if asked.invert else pixels)

    if asked.support is None:
        if not takes_any_counts(model):
            name = model.experiment.algorithm.name
            raise RunError(f"{name} takes equally many images of each class: export a classifier, with --support")
        signatures = programs.adapting(learner, images.shape, as_input, model.way, model.temperature)
        return Export(signatures, learner, model.experiment, images, temperature=temperature)
    support = read_support(asked.support, model.inputs.preprocessing, asked.invert)
    for line in support_warnings(support, model.inputs, asked.invert):
        warn(line)
    known = program(lambda: learner.fit(Task(model, support).whole()))()
    classes, counts = asked.support.classes, asked.support.counts
    signatures = programs.fitted(learner, images.shape, as_input, known, classes, model.temperature)
    labels = dict(zip(classes, counts, strict=True))
    return Export(signatures, learner, model.experiment, images, labels, temperature)


def _regression(asked: Request) -> Export:
    model = _restored(asked)
    source, learner = model.source, model.learner
    dtype = tf.as_dtype(input_dtype(model.experiment))
    signatures = programs.regressing(learner, source.input_shape, source.target_shape, dtype)
    return Export(signatures, learner, model.experiment)


def _policy(asked: Request) -> Export:
    model = _restored(asked)
    return Export(programs.stepping(model.learner), model.learner, model.experiment)


def _restored(asked: Request) -> Model:
    """Return the model of a run whose source needs no files, not compiled."""
    directory, trained, _, experiment, _ = asked.trained
    return restored(directory, experiment.model_copy(update={"jit": "off"}), trained.seed, experiment.test.checkpoint)


def digest(learner: Any) -> str:
    """Return sixteen hexadecimal digits of what is trained: names and values of the parameters."""
    content = hashlib.sha256()
    for name, value in learner.parameters.items():
        content.update(name.encode() + np.asarray(value).tobytes())
    return content.hexdigest()[:16]
