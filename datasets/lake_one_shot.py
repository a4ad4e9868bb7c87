"""The one-shot classification test of Lake, Salakhutdinov and Tenenbaum (Science 2015): 20 runs of 20 trials.

A run has 20 characters of one alphabet, drawn by one person for training (one image each) and by another for the test
(one image each). A trial is to find the character of a test image among the 20 training images of its run. The
alphabets are ten of Omniglot's evaluation set. Data are recognised by their content: all pixels and all labels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, first_of, listed
from .images import cache
from .images.download import download
from .images.drawings import decode, members, shrink

if TYPE_CHECKING:
    from .images.fixed import FixedTasks

NAME = "lake-one-shot"
ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/one-shot-classification/"
ARCHIVES = {"all_runs.zip": "sha256:437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325"}
# SHA-256 of all 105x105 bitmaps: run after run, class after class, the training image and the test image of its label
CONTENT = "ab474a5a536541bc0721bd73874f5f11a124f2b8ea1663b7f492c8a6bcfe3c61"
RUNS, CLASSES = 20, 20
ALPHABETS = (  # of runs 1 and 2, of runs 3 and 4, ...
    "Atlantean", "Ge_ez", "Glagolitic", "Gurmukhi", "Kannada", "Malayalam", "Manipuri",
    "Old_Church_Slavonic_(Cyrillic)", "Tengwar", "Tibetan",
)  # fmt: skip
MEMBER = re.compile(r"(?:^|/)run(\d\d)/(?:(training/class|test/item)(\d\d)\.png|class_labels\.txt)$")
LABEL = r"run{0:02}/test/item{1:02}\.png\s+run{0:02}/training/class(\d\d)\.png"


def build(dtype: str, original: bool, **scale: Sequence[float]) -> FixedTasks:
    """Build the 20 runs as tasks: 20-way, one support image and one query per class.

    The first call downloads the data.

    Args:
        dtype: The dtype of the inputs.
        original: Whether the images are as published, 105x105; otherwise they are 28x28, as in `omniglot`.
        **scale: The mean and std of `FixedTasks`.

    Raises:
        DataError: The data are missing and cannot be downloaded.
    """
    from .images.fixed import FixedTasks

    images = cache.load(NAME, fetched).images
    if not original:
        images = np.stack([shrink(image[..., 0] > 0) for image in images])[..., None]
    images = np.reshape(images, (RUNS, CLASSES, 2, *images.shape[1:]))
    return FixedTasks(NAME, NAME, images, 1, [ALPHABETS[run // 2] for run in range(RUNS)], dtype=dtype, **scale)


def fetched() -> cache.Prepared:
    """Download the archive and read it, see `prepare`."""
    return prepare(download(ADDRESS, ARCHIVES, NAME))


def fetch() -> None:
    """Download the archive, check it and fill the cache."""
    cache.remove(NAME)  # a damaged one, which `load` would return
    cache.load(NAME, fetched)


def import_from(paths: Sequence[Path]) -> None:
    """Fill the cache from the user's own copy."""
    with cache.locked(NAME):
        cache.store(NAME, prepare(paths))


def prepare(paths: Sequence[Path]) -> cache.Prepared:
    """Read all_runs.zip, or a folder with its content.

    Raises:
        DataError: Some of it is missing or damaged, or it differs from the original.
    """
    files: dict[tuple[int, str, int], Any] = {}
    damaged = []
    for path in paths:
        for member, data in members(path, MEMBER):
            run, kind, number = MEMBER.search(member).groups()  # pyright: ignore
            try:
                files[int(run), kind or "labels", int(number or 0)] = (
                    decode(data, f"{path}: {member}") if kind else data
                )
            except DataError as error:
                damaged.append(str(error))
    if damaged:
        raise DataError(listed(f"{len(damaged)} images cannot be read", damaged))
    where = ", ".join(map(str, paths))
    images, problems = [], []
    for run in range(1, RUNS + 1):
        try:
            images += _run(files, run)
        except DataError as error:
            problems.append(f"{where}: run{run:02} {error}")
    if problems:
        raise DataError(listed("it is not all of all_runs.zip", problems))
    bitmaps = np.stack(images)
    if hashlib.sha256(np.packbits(bitmaps).tobytes()).hexdigest() != CONTENT:
        raise DataError(f"{where}: images or labels differ from those of Lake et al.: fetch the official all_runs.zip")
    names = tuple(
        f"{ALPHABETS[run // 2]}/run{run + 1:02}/class{number:02}" for run in range(RUNS) for number in range(1, 21)
    )
    return cache.Prepared(
        (np.where(bitmap, 255, 0).astype(np.uint8)[..., None] for bitmap in bitmaps), np.full(len(names), 2), names, {}
    )


def _run(files: dict[tuple[int, str, int], Any], run: int) -> list[np.ndarray]:
    """Return the images of a run, of each class that for training and that of the test."""
    missing = [
        f"{kind}{number:02}.png"
        for kind in ("training/class", "test/item")
        for number in range(1, CLASSES + 1)
        if (run, kind, number) not in files
    ]
    if missing:
        raise DataError(f"lacks {first_of(missing, 3)}")
    lines = files.get((run, "labels", 0), b"").decode("ascii", "replace").splitlines()
    labels = [re.fullmatch(LABEL.format(run, item), line.strip()) for item, line in enumerate(lines, start=1)]
    item_of = {int(label[1]): item for item, label in enumerate(labels, start=1) if label}
    if len(lines) != CLASSES or sorted(item_of) != list(range(1, CLASSES + 1)):
        raise DataError("has no class_labels.txt that names each of its 20 test images and classes once, in order")
    return [
        files[run, *each]
        for number in range(1, CLASSES + 1)
        for each in (("training/class", number), ("test/item", item_of[number]))
    ]
