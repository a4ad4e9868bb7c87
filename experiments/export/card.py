"""The model card: README.md of an export, with what the model takes, how good it was, and an example that runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from ...datasets.errors import counted
from ...datasets.images.preprocessing import Preprocessing
from ..config.experiment import Experiment
from ..runs.directory import RunDirectory
from ..runs.rows import Row, read_row
from ..runs.trained import TrainedRun
from .examples import example
from .request import Kind

if TYPE_CHECKING:
    from .programs import Tensor


class Card(NamedTuple):
    """Hold the content of a model card."""

    kind: Kind
    directory: RunDirectory
    experiment: Experiment  # with the protocol of the export
    trained: TrainedRun
    weights: str  # digest
    signatures: dict[str, tuple[list[Tensor], list[Tensor]]]  # inputs and outputs
    images: Preprocessing | None  # of a classifier
    invert: bool  # light and dark are exchanged inside
    labels: Mapping[str, int]  # of a support set inside: its classes, with their numbers of images
    temperature: float | None = None  # by which logits are divided before the softmax, if it was asked for


def render(card: Card) -> str:
    """Return the text of README.md."""
    parts = [
        f"# {card.experiment.name}, seed {card.trained.seed}",
        _purpose(card),
        "## Example",
        "Run it in this folder. It needs TensorFlow, not metarun.",
        f"```python\n{_example(card)}```",
        "## Signatures",
        _signatures(card),
        *(["## Images", images_in_words(card.images)] if card.images else []),
        "## TensorFlow Serving",
        _serving(card),
        "## Where it comes from",
        _origin(card),
        "The licence of the training data may limit the use of this model. metarun cannot grant what the data do not.",
    ]
    return "\n\n".join(parts) + "\n"


def _example(card: Card) -> str:
    outputs = [tensor.name for tensor in card.signatures["serving_default"][1]]
    return example(card.kind, card.images, bool(card.labels), "action_probabilities" in outputs)


def _purpose(card: Card) -> str:
    spec = card.experiment
    learner = f"{spec.algorithm.name}, trained on {spec.dataset.name}"
    if spec.test.head:
        learner += f", with another head on its features (`{spec.head_values}`)"
    if card.kind == "policy":
        return (
            f"The policy of {learner}, one step at a time: state and observation in, next state and distribution "
            "of actions out. Its memory, `state`, lasts for one trial of several episodes: start again with "
            "`initial_state` only where the environment changes."
        )
    if card.kind == "regression":
        return f"The learner of {learner}: it adapts to the support points of each call, and predicts its queries."
    if card.labels:
        classes = ", ".join(f"{name} ({number})" for name, number in card.labels.items())
        return (
            f"A classifier of {counted(len(card.labels), 'class', 'classes')}, made by {learner}. Its support set is "
            f"inside: {classes}. The columns of `probabilities` are the lines of labels.txt, in this order."
        )
    return (
        f"The learner of {learner}: it makes a classifier of the support images of each call, and classifies its "
        f"queries. {_ways(card)} Where classes have different numbers of images, each class counts alike."
    )


def _ways(card: Card) -> str:
    spec = card.experiment
    if spec.only_way:
        return f"Its last layer has {spec.only_way} outputs, so `support_labels` are 0 to {spec.only_way - 1}."
    return "`support_labels` count the classes from 0; any number of classes is possible."


def _signatures(card: Card) -> str:
    lines = ["| signature | inputs | outputs |", "|---|---|---|"]
    for name, sides in card.signatures.items():
        told = (", ".join(tensor.words for tensor in side) for side in sides)
        lines.append(f"| `{name}` | {' | '.join(told)} |")
    notes = []
    if card.kind == "classifier":
        notes.append(f"{probabilities_in_words(card.temperature)} {_protocol(card.experiment)}")
        notes.append("`score` says how well an image fits its class; it tells unknown classes, a probability does not.")
    if card.kind == "policy":
        notes.append("`previous_done` tells that the step before has ended an episode; it holds before the first step.")
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


def probabilities_in_words(temperature: float | None) -> str:
    """Return how probabilities follow from logits, for a reader; None: without a temperature."""
    if temperature is None:
        return "`probabilities` is the softmax of `logits`."
    return (
        f"`probabilities` is the softmax of `logits` / {temperature:.4g}: the temperature was fitted on the run's "
        "validation tasks, and fits images like theirs."
    )


def _protocol(spec: Experiment) -> str:
    if spec.protocol == "inductive":
        return "The answer for an image does not depend on the other images of a call (inductive)."
    return "Batch norm sees all queries of a call, so answers depend on what is asked together (transductive)."


def images_in_words(images: Preprocessing) -> str:
    """Return what the images of a model are, for a reader."""
    colour = "grey" if images.channels == 1 else "RGB" if images.channels == 3 else counted(images.channels, "channel")
    ink = {"light": "light ink on a dark ground", "dark": "dark ink on a light ground"}
    said = [f"{images.height} x {images.width} pixels, {colour}, uint8 from 0 to 255"]
    said += [ink[images.ink]] if images.ink else []
    said += ["black and white only (0 and 255)"] if images.binary else []
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (images.mean, images.std))
    wrong = "An image with light and dark exchanged gives no error, only wrong answers. " if images.ink else ""
    resized = (
        "The example resizes files by Lanczos, those that are black and white by nearest neighbour; values from 128 on "
        "become 255, the others 0."
        if images.binary
        else "The example resizes files by Lanczos; height and width need not keep their ratio."
    )
    return (
        f"{'; '.join(said)}. {resized} It does not know transparency, 16 bits and EXIF rotation, as `metarun predict` "
        f"does. {wrong}The model itself computes its inputs: (x / 255 - mean) / std with mean "
        f"{mean} and std {std}."
    )


def _serving(card: Card) -> str:
    start = (
        "```console\n$ docker run -p 8501:8501 -e MODEL_NAME=model \\\n"
        "    -v $PWD/saved_model:/models/model/1 tensorflow/serving\n```\n\n"
    )
    address = "POST to `http://localhost:8501/v1/models/model:predict`: "
    if card.labels:
        return f'{start}{address}`{{"instances": [IMAGE, ...]}}`, each image a nested list [height][width][channel].'
    names = ", ".join(f'"{tensor.name}": [...]' for tensor in card.signatures["serving_default"][0])
    if card.kind == "policy":
        return f'{start}{address}`{{"instances": [{{{names.replace("[...]", "...")}}}, ...]}}`, one for each trial.'
    return f'{start}{address}`{{"inputs": {{{names}}}}}`. (The row format, `instances`, needs inputs of one length.)'


def _origin(card: Card) -> str:
    spec, trained, path = card.experiment, card.trained, card.directory.result
    row = read_row(path) if path.is_file() else None
    steps = counted(trained.step, "training step")
    told = {
        "run": f"{spec.name}, seed {trained.seed}, {steps}, {spec.test.checkpoint} checkpoint",
        "algorithm": spec.algorithm.name,
        "dataset": spec.dataset.name,
        **({"images": "light and dark are exchanged inside the model"} if card.invert else {}),
        "own test": result_in_words(row) if row else "not done",
    }
    if row and row.protocol and row.protocol != spec.protocol:
        told["note"] = f"this export is {spec.protocol}, and its own test was {row.protocol}"
    told["digest of the spec"] = trained.spec_digest
    if row and row.content_digest:
        told["digest of the images"] = row.content_digest
    told["digest of the weights"] = card.weights
    if spec.plugins:
        told["other packages"] = spec.plugins
    told["exported by"] = f"metarun {version('metarun')}, TensorFlow {version('tensorflow')}"
    lines = [f"| {key} | {value} |" for key, value in told.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def result_in_words(row: Row) -> str:
    """Return what a test measured, for a reader."""
    tasks = f"{row.episodes} {row.split} {'trials' if row.trial else 'tasks'}"
    number = (lambda value: f"{100 * value:.2f} %") if row.metric == "accuracy" else (lambda value: f"{value:.4g}")
    mean = "not finite" if row.mean is None else number(row.mean)
    interval = "" if row.mean is None or row.ci95 is None else f" ± {number(row.ci95)}"
    over = f"95 % interval over {tasks}" if interval else tasks
    shape = f"{row.way}-way {row.shot}-shot" if row.metric == "accuracy" else f"{row.shot} points"
    said = [f"{row.metric.replace('_', ' ')} {mean}{interval} ({over})", row.trial or shape]
    return ", ".join([*said, *([row.protocol] if row.protocol else [])])
