"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): 1623 characters of 50 alphabets, 20 drawers each.

The images are 1-bit and 105x105, so every resize in Pillow is nearest-neighbour, whatever filter is named. They are
resized to 28x28, as in all the papers' codes. Data are recognised as Omniglot by their content (drawing numbers,
pixels), not by the archive's name. The character of a drawing follows from its number, whatever the folders are called.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import lake_one_shot
from .errors import DataError, counted, listed
from .images import cache
from .images.download import download
from .images.drawings import decode, members, shrink
from .images.progress import Bar
from .options import OmniglotOptions

if TYPE_CHECKING:
    from .images.source import ClassPool, ImageSource, Rotations
    from .tasks import Split, TaskSource

ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ARCHIVES = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
SMALL = {  # the alphabets of images_background_small1.zip and images_background_small2.zip
    "background-small-1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "background-small-2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
CHARACTERS, DRAWERS, BACKGROUND_CHARACTERS = 1623, 20, 964
PIXELS = "48b48d807b25c6e902ebfe31da7a00ad3614e2a1014e97fe7b5a8d8f0399727b"  # SHA-256 of all 105x105 bitmaps in order
MEMBER = re.compile(r"(?:^|/)(\d{4})_(\d\d)\.png$")  # number of the character, of the drawer
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ROTATIONS: dict[str, tuple[Rotations, Rotations, Rotations]] = {
    "none": ("none", "none", "none"),
    "classes": ("classes", "classes", "classes"),
    "classes-train": ("classes", "none", "none"),
    "per-task": ("per-task", "per-task", "per-task"),
}

SCALE: dict[int, Any] = {1: {"mean": (0.0,), "std": (1.0,)}, 0: {"mean": (1.0,), "std": (-1.0,)}}  # of `ink`


def build(options: OmniglotOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec; the first call downloads the data.

    Raises:
        DataError: The data are missing and cannot be downloaded.
    """
    return _source(options, dtype, {split: (split, options.episodes) for split in SPLITS})


def build_test(options: OmniglotOptions, split: Split, dtype: str, original: bool) -> TaskSource:
    """Build the tasks of a further test, see `datasets.build_test`.

    within-alphabet draws from the test characters of the spec. lake-one-shot has drawings that are not turned.
    """
    if split == lake_one_shot.NAME:
        return lake_one_shot.build(dtype, original, **SCALE[options.ink])
    return _source(options, dtype, {split: ("test", split)})


def _source(options: OmniglotOptions, dtype: str, parts: Mapping[Split, tuple[Split, str | None]]) -> ImageSource:
    """Return a source. `parts` has, by the name of each split, where its characters are from, and the kind of tasks."""
    from .images.source import ImageSource

    stored, classes = cache.load("omniglot", fetched), divide(options.split)
    rotations: dict[Split, Rotations] = dict(zip(SPLITS, ROTATIONS[options.rotations], strict=True))
    pools: dict[Split, ClassPool] = {
        name: _pool(stored, classes[split], episodes == "within-alphabet")
        for name, (split, episodes) in parts.items()
        if classes[split]
    }
    return ImageSource(
        "omniglot",
        pools,
        rotations={name: rotations[parts[name][0]] for name in pools},
        in_memory=options.in_memory,
        dtype=dtype,
        **SCALE[options.ink],
        ink="light",  # `options.ink` is in the normalisation
        binary=True,
    )


def fetched() -> cache.Prepared:
    """Download the two official archives and read them, see `prepare`."""
    return prepare(download(ADDRESS, ARCHIVES))


def prepare(paths: Sequence[Path]) -> cache.Prepared:
    """Read the two official archives, or folders with their content.

    Raises:
        DataError: Some of Omniglot is missing, or the images differ from it.
    """
    bitmap_of: dict[tuple[int, int], np.ndarray] = {}
    damaged: list[str] = []
    with Bar("omniglot", CHARACTERS * DRAWERS) as bar:
        for path in paths:
            for member, data in members(path, MEMBER):
                number, drawer = MEMBER.search(member).groups()  # pyright: ignore
                try:
                    bitmap_of[int(number), int(drawer)] = decode(data, f"{path}: {member}")
                except DataError as error:
                    damaged.append(str(error))
                bar.advance()
    if damaged:
        raise DataError(listed(f"{len(damaged)} images cannot be read", damaged))
    found, complete = len(bitmap_of), CHARACTERS * DRAWERS
    numbers = {number for number, _ in bitmap_of}
    if found != complete or numbers != set(range(1, CHARACTERS + 1)):
        raise DataError(
            f"{', '.join(map(str, paths))}: {counted(len(numbers), 'character')} with {counted(found, 'image')}; "
            f"all of Omniglot has {CHARACTERS} with {complete}: give both images_background and images_evaluation "
            "(zips or folders)"
        )
    bitmaps = np.stack([bitmap_of[key] for key in sorted(bitmap_of)])  # [32460, 105, 105] bool, ink True
    if hashlib.sha256(np.packbits(bitmaps).tobytes()).hexdigest() != PIXELS:
        raise DataError(f"{', '.join(map(str, paths))}: the images differ from Omniglot's: fetch the official archives")
    images = np.stack([shrink(bitmap) for bitmap in bitmaps])[..., None]
    counts = np.full(CHARACTERS, DRAWERS)
    return cache.Prepared(images, counts, characters()[0], {})


def fetch() -> None:
    """Download the archives, check them and fill the cache."""
    cache.remove("omniglot")  # a damaged one, which `load` would return
    cache.load("omniglot", fetched)


def import_from(paths: Sequence[Path]) -> None:
    """Fill the cache from the user's own copies."""
    with cache.locked("omniglot"):
        cache.store("omniglot", prepare(paths))


def divide(split: str) -> dict[Split, list[int]]:
    """Return the class numbers of each split; a split without classes is empty."""
    names, vinyals = characters()
    if split.startswith("vinyals"):
        if split == "vinyals-1200-423":
            vinyals = ["test" if member == "test" else "train" for member in vinyals]
        return {each: [number for number, member in enumerate(vinyals) if member == each] for each in SPLITS}
    if split.startswith("background-"):
        background = range(BACKGROUND_CHARACTERS)
        last_five = sorted({alphabet_of(names[number]) for number in background})[-5:]
        held_out = [number for number in background if alphabet_of(names[number]) in last_five]
        trained = [number for number in background if number not in set(held_out)]
        if split in SMALL:  # whatever chose a checkpoint would be a part of what was learned from
            trained, held_out = [number for number in background if alphabet_of(names[number]) in SMALL[split]], []
        return {"train": trained, "val": held_out, "test": list(range(BACKGROUND_CHARACTERS, CHARACTERS))}
    if split == "without-latin":
        return {"train": [n for n, name in enumerate(names) if alphabet_of(name) != "Latin"], "val": [], "test": []}
    sizes = [int(size) for size in split.removeprefix("random-").split("-")]
    if len(sizes) == 2:
        sizes.insert(1, 0)
    order = sorted(range(len(names)), key=lambda number: hashlib.sha256(names[number].encode()).digest())
    ends = np.cumsum(sizes)
    parts = (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]])
    return dict(zip(SPLITS, map(sorted, parts), strict=True))


def alphabet_of(name: str) -> str:
    """Return the alphabet of a character, Greek of Greek/character01."""
    return name.split("/")[0]


def characters() -> tuple[tuple[str, ...], tuple[Split, ...]]:
    """Return the name (Greek/character01) and the split of Vinyals et al. of every character, by drawing number."""
    text = files(__package__ or "").joinpath("omniglot_vinyals_split.csv").read_text(encoding="utf-8")
    known: dict[int, tuple[str, Split]] = {}
    for row in csv.DictReader(text.splitlines()):
        first, last = map(int, row["characters"].split("-"))
        for character in range(first, last + 1):
            number = int(row["first_drawing"]) + character - first
            known[number] = f"{row['alphabet']}/character{character:02}", row["split"]  # pyright: ignore
    names, splits = zip(*(known[number] for number in sorted(known)), strict=True)
    return names, splits


def _pool(stored: cache.Stored, classes: list[int], within_alphabet: bool) -> ClassPool:
    from .images.source import ClassPool

    rows = (np.asarray(classes)[:, None] * DRAWERS + np.arange(DRAWERS)).ravel()
    names = tuple(stored.names[number] for number in classes)
    groups = tuple(map(alphabet_of, names)) if within_alphabet else ()
    return ClassPool(stored.images[rows], stored.counts[classes], names, groups, "alphabet")
