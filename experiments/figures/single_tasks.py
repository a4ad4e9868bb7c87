"""Figures of a trained model on single test tasks, those that its row was measured on, and of training tasks."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from ...algorithms import BUILT_IN
from ...algorithms.heads.learner import HeadOnFeatures
from ...algorithms.matchingnet import MatchingNetwork
from ...algorithms.metrics import are_finite
from ...algorithms.protonet import PrototypicalNetwork
from ...datasets.images.source import ImageSource
from ...datasets.sinusoid import SinusoidSource
from ...datasets.tasks import Episode, EpisodeStream, Shape, Split, task_number
from ..config.experiment import Experiment
from ..errors import RunError
from ..evaluation.restore import restored
from ..model import Model, shape_of, training_shape
from ..runs.run import spec_of
from ..system import signals
from .finished import FinishedRun
from .style import COLORS, STYLES, plain

FITS = 3  # tasks side by side
MOST_CLASSES = 20  # of a training task that are drawn
RIGHT, WRONG = COLORS[0], COLORS[1]
LEFT = 4.0  # of a sheet of images, for the names of classes, in images


def figures(run: FinishedRun, kinds: Sequence[str], number: int) -> Iterator[tuple[str, Any]]:
    """Yield (kind, figure) for those kinds that the run's model can show.

    Raises:
        RunError: the test has no task `number`.
    """
    experiment = spec_of(run.directory)
    kinds = [kind for kind in kinds if _possible(experiment, kind)]
    if experiment.kind.plays_trials or not kinds:
        return
    if number >= experiment.test.episodes and kinds != ["training"]:
        raise RunError(f"--episode {number}: the test of {run.directory.path} has tasks 0 to {run.row.episodes - 1}")
    model = restored(run.directory, experiment, run.row.seed, run.row.checkpoint)
    if experiment.test.head:
        learner = HeadOnFeatures(model.learner, experiment.test.head)
        learner.centre(model.training_source)
        model = model._replace(learner=learner)
    draws: dict[str, tuple[bool, Any]] = {
        "fits": (isinstance(model.source, SinusoidSource), fits),
        "episode": (isinstance(model.test_source, ImageSource), episode),
        "training": (_trains_on_tasks_of_images(model), training),
        "embedding": (isinstance(model.learner, PrototypicalNetwork), embedding),
        "attention": (isinstance(model.learner, MatchingNetwork), attention),
    }
    for kind in kinds:
        signals.check()
        fitting, draw_one = draws[kind]
        if fitting:
            figure = draw_one(model, number)
            pyplot.close(figure)
            yield kind, figure


def _possible(experiment: Experiment, kind: str) -> bool:
    """Return whether the model may show this figure. Models of other packages are asked after they are built."""
    of = {"embedding": "protonet", "attention": "matchingnet"}.get(kind, experiment.algorithm.name)
    fitting = experiment.algorithm.name == of or experiment.algorithm.name not in BUILT_IN
    return fitting and experiment.dataset.regression == (kind == "fits")


def _trains_on_tasks_of_images(model: Model) -> bool:
    is_trained = model.experiment.kind.is_trained and isinstance(model.source, ImageSource)
    return is_trained and isinstance(model.training_stream(), EpisodeStream)


def fits(model: Model, number: int) -> Any:
    """Draw sinusoids, their support points, and the model's curve before and after adaptation."""
    tasks = min(FITS, model.experiment.test.episodes - number)
    batch = _tasks(model, number, tasks)
    errors = model.learner.evaluate(batch)["mse"].numpy()
    low, high = model.source.options.x
    x = np.linspace(low, high, 200).astype(batch.support_x.dtype.name)
    truth = model.source.wave(batch, x)  # [T, N]
    grid = tf.tile(tf.constant(x)[None, :, None], (tasks, 1, 1))
    curves = model.learner.predict(batch._replace(query_x=grid))[..., 0].numpy()  # [R, T, N]
    recorded = model.learner.recorded
    last = len(recorded) - 1
    figure, panels = pyplot.subplots(
        1, tasks, figsize=(3 * tasks, 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    for task, axes in enumerate(panels[0]):
        axes.plot(x, truth[task], color="0.6", linewidth=3, label="truth")
        for place, look in enumerate(dict.fromkeys((0, min(1, last), last))):
            step = recorded[look]
            name = "before adaptation" if step == 0 else f"after {step} step{'s' * (step > 1)}"
            axes.plot(x, curves[look, task], color=COLORS[place], linestyle=STYLES[(2, 1, 0)[place]], label=name)
        points = (batch.support_x[task, :, 0], batch.support_y[task, :, 0])
        axes.plot(*points, "k^", markersize=6, label="support")
        axes.set_title(f"test task {number + task}: MSE {errors[task]:.3g}", fontsize="medium")
        axes.set_xlabel("x")
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("y")
    columns = 5 if tasks > 1 else 2
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize="small"
    )
    return figure


def episode(model: Model, number: int) -> Any:
    """Draw a test task: its images by class, and the predicted class of each query with its probability."""
    batch, shape = _tasks(model, number), shape_of(model.experiment.test)
    chosen, confidence = (each.reshape(shape.way, shape.query) for each in _answers(model, batch))
    figure, axes = _sheet(model.test_source, "test", batch, shape, (chosen, confidence))
    right = chosen == np.arange(shape.way)[:, None]
    _title(axes, f"test task {number}: {right.sum()} of {right.size} right; framed: wrong, with the predicted class")
    return figure


def training(model: Model, number: int) -> Any:
    """Draw a training task as the network sees it, with the random changes of its images."""
    batch, shape = model.training_stream().sample(task_number(number), 1), training_shape(model.experiment)
    assert isinstance(batch, Episode)
    figure, axes = _sheet(model.source, "train", batch, shape)
    changed = " after random changes" if model.experiment.augment else ""
    fewer = f" ({MOST_CLASSES} of {shape.way} classes)" if shape.way > MOST_CLASSES else ""
    _title(axes, f"training task {number}: its images{changed}{fewer}")
    return figure


def _sheet(
    source: ImageSource,
    split: Split,
    batch: Episode,
    shape: Shape,
    answers: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Any, Any]:
    """Return a figure of the images of the first task by class, and its axes.

    Args:
        source: the source of the task.
        split: the split of its classes.
        batch: the task.
        shape: its size; at most `MOST_CLASSES` classes are drawn where there are no answers.
        answers: the predicted class of each query and its probability, `[way, query]` each.
    """
    way, shot, query = shape
    supports = source.pixels(batch.support_x[0]).reshape(way, shot, *source.input_shape)
    queries = source.pixels(batch.query_x[0]).reshape(way, query, *source.input_shape)
    names = [plain(name) for name in source.class_names(split, batch)[0]]
    rows = way if answers else min(way, MOST_CLASSES)
    wide, high, gap = 1.15, 1.5, 0.4
    width, left, head = max(5.0, wide * (shot + query) + gap), LEFT, 1.2
    figure = pyplot.figure(figsize=(0.8 * (width + left), 0.8 * (high * rows + head)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, width), ylim=(-high * rows, head))
    axes.axis("off")
    look: dict[str, Any] = {
        "cmap": "gray_r" if source.preprocessing.ink == "light" else "gray",  # dark on white
        "vmin": 0,
        "vmax": 1,
        "interpolation": "nearest",
    }
    look["aspect"] = "auto"  # the limits above make squares
    for row in range(rows):
        top = -high * row
        axes.text(-0.15, top - 0.5, f"{names[row]}  {_letter(row)}", ha="right", va="center", fontsize=8, wrap=True)
        for column, image in enumerate([*supports[row], *queries[row]]):
            at = wide * column + gap * (column >= shot)
            axes.imshow(image.squeeze(), extent=(at, at + 1, top - 1, top), **look)
            if column >= shot and answers:
                chosen, confidence = (each[row, column - shot] for each in answers)
                _answer(axes, at, top, _letter(chosen), confidence, chosen == row)
            else:
                axes.add_patch(Rectangle((at, top - 1), 1, 1, fill=False, edgecolor="0.6", linewidth=0.8))
    axes.text(0, 0.15, "support", fontsize=9)
    if query:
        axes.text(wide * shot + gap, 0.15, "queries, with the confidence" if answers else "queries", fontsize=9)
    return figure, axes


def _title(axes: Any, text: str) -> None:
    axes.text(0.1 - LEFT, 0.75, text, fontsize=10)


def embedding(model: Model, number: int) -> Any:
    """Draw the support, queries and prototypes of a test task in the plane in which its embeddings vary most."""
    batch = _tasks(model, number)
    way, shot = model.experiment.test.way, model.experiment.test.shot
    supports, queries = (each[0].numpy() for each in model.learner.embed(batch))
    if not (np.isfinite(supports).all() and np.isfinite(queries).all()):
        raise RunError(f"--kind embedding: the embeddings of test task {number} are not finite")
    prototypes = supports.reshape(way, shot, -1).mean(axis=1)
    plane, center, share = principal_plane(np.concatenate([supports, queries]))
    figure, axes = pyplot.subplots(figsize=(6, 5.5), layout="constrained")
    labels, chosen = batch.query_y[0].numpy(), _answers(model, batch)[0]
    at = {name: (each - center) @ plane.T for name, each in (("s", supports), ("q", queries), ("p", prototypes))}
    for place in range(way):
        color, letter = COLORS[place % len(COLORS)], f"${_letter(place)}$"
        axes.plot(*at["q"][labels == place].T, linestyle="", marker=letter, markersize=7, color=color, alpha=0.8)
        axes.plot(*at["p"][place], "o", markersize=20, fillstyle="none", color=color, markeredgewidth=2)
        axes.plot(*at["p"][place], marker=letter, markersize=10, color=color)
        if shot > 1:
            own = at["s"][place * shot : (place + 1) * shot].T
            axes.plot(*own, "s", markersize=10, color=color, fillstyle="none")
            axes.plot(*own, linestyle="", marker=letter, markersize=5, color=color)
    wrong = at["q"][labels != chosen]
    axes.plot(*wrong.T, "o", markersize=13, fillstyle="none", color="black", linestyle="", markeredgewidth=0.8)
    for axis, component, part in ((axes.xaxis, 1, share[0]), (axes.yaxis, 2, share[1])):
        axis.set_label_text(f"principal component {component} ({100 * part:.0f}% of the variance)")
    squares = ", squares supports" if shot > 1 else ""
    axes.set_title(
        f"test task {number}: letters are queries{squares}, large circles prototypes;\n"
        f"in small black circles: the {len(wrong)} of {len(labels)} that are wrong",
        fontsize="medium",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    return figure


def attention(model: Model, number: int) -> Any:
    """Draw the attention of each query of a test task to each support image."""
    batch = _tasks(model, number)
    weights = model.learner.attention(batch)[0].numpy()  # [Q, S]
    test, right = model.experiment.test, _answers(model, batch)[0] == batch.query_y[0].numpy()
    figure, axes = pyplot.subplots(figsize=(5.5, 6), layout="constrained")
    image = axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    letters = [_letter(place) for place in range(test.way)]
    for place in range(test.way):
        corner = (place * test.shot - 0.5, place * test.query - 0.5)
        axes.add_patch(
            Rectangle(corner, test.shot, test.query, fill=False, edgecolor=WRONG, linewidth=1.5, clip_on=False)
        )
    middles = np.arange(test.way) + 0.5
    axes.set_xticks(middles * test.shot - 0.5, letters)
    axes.set_yticks(middles * test.query - 0.5, letters)
    axes.set_xlabel("support images, class by class")
    axes.set_ylabel("queries, class by class")
    axes.set_title(
        f"test task {number}: {right.sum()} of {right.size} right; framed: a query's own class", fontsize="medium"
    )
    figure.colorbar(image, ax=axes, label="attention")
    return figure


def _tasks(model: Model, number: int, count: int = 1) -> Episode:
    """Draw `count` test tasks, starting at `number`."""
    drawn = model.test_stream().sample(task_number(number), count)
    assert isinstance(drawn, Episode)
    return drawn


def principal_plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the plane in which points `[N, D]` vary most.

    Returns:
        Its two directions `[2, D]`, the mean of the points `[D]`, and the share of the variance in each direction
        `[2]`.
    """
    center = points.mean(axis=0)
    _, lengths, directions = np.linalg.svd(points - center, full_matrices=False)
    variances = lengths**2
    return directions[:2], center, variances[:2] / max(variances.sum(), np.finfo(np.float32).tiny)


def _answers(model: Model, batch: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each query of the first task, and its probability, `[Q]` each.

    A query whose outputs are not finite has the class -1, which is wrong, with probability 1, as in the metrics.
    """
    logits = model.learner.predict(batch)[-1, 0]
    probabilities, answered = tf.nn.softmax(logits).numpy(), are_finite(logits).numpy()
    return np.where(answered, probabilities.argmax(axis=1), -1), np.where(answered, probabilities.max(axis=1), 1.0)


def _answer(axes: Any, left: float, top: float, letter: str, confidence: float, right: bool) -> None:
    frame = {"edgecolor": "0.8", "linewidth": 0.5} if right else {"edgecolor": WRONG, "linewidth": 2.5}
    axes.add_patch(Rectangle((left, top - 1), 1, 1, fill=False, **frame))
    text, weight = (f"{confidence:.2f}", "normal") if right else (f"{letter} {confidence:.2f}", "bold")
    color = RIGHT if right else WRONG
    axes.text(left + 0.5, top - 1.06, text, ha="center", va="top", fontsize=8, color=color, weight=weight)


def _letter(place: int) -> str:
    """Return the letter of a class: A, B, ..., and a number after Z; ? for no class."""
    place = int(place)
    if place < 0:
        return "?"
    return string.ascii_uppercase[place] if place < 26 else str(place + 1)
