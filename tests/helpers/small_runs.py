"""Small runs on a folder of images, and images that tests write."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarun.experiments.config.load import load
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPEC = """
name: {name}
algorithm: {{name: {name}{more}}}
network: {{name: mlp, hidden: [8], batch_norm: true}}
dataset: {{name: imagefolder, path: {path}, image_size: 8, channels: 1}}
protocol: {protocol}
train: {{way: 3, shot: 2, meta_batch: 2, steps: 2{query}}}
validation: null
test: {{way: 3, shot: 2, query: 3, episodes: 4, checkpoint: last}}
jit: off
"""
MORE = {  # of the algorithm, and its protocol
    "protonet": ("", "inductive"),
    "matchingnet": (", temperature: 0.2", "inductive"),
    "maml": (", inner_lr: 0.5, inner_steps: 2", "transductive"),
    "reptile": (", inner_lr: 0.02, inner_steps: 3, inner_batch: 4", "inductive"),
}


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def write_classes(folder: Path, classes: Mapping[str, int], ink: int, noise: int) -> None:
    """Write six 8x8 images of each class: a pattern of `ink`, and noise below `noise`.

    Args:
        folder: the folder of images, divided into splits.
        classes: split -> number of classes.
        ink: the value of the pattern.
        noise: the bound of the noise. The more of it, the harder classes are to tell apart.
    """
    generator = np.random.default_rng(0)
    for split, count in classes.items():
        for number in range(count):
            pattern = generator.integers(0, 2, (8, 8)) * ink
            for image in range(6):
                pixels = pattern + generator.integers(0, noise, (8, 8))
                write_image(folder / split / f"{split}-{number}" / f"{image}.png", pixels)


@contextmanager
def trained_once(folder: Path, text_of: Callable[[str], str]) -> Iterator[Callable[[str], RunDirectory]]:
    """Give a function that trains the run of a learner when it is first asked for.

    Args:
        folder: the folder of specs, runs and cache.
        text_of: returns the spec of a learner.
    """
    made: dict[str, RunDirectory] = {}

    def trained(name: str) -> RunDirectory:
        if name not in made:
            path = folder / f"{name}.yaml"
            path.write_text(text_of(name))
            made[name] = RunDirectory(folder / name / "seed-0")
            train(Run(load(path).experiment, 0, made[name]))
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(folder / "cache"))
        yield trained
