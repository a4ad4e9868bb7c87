"""miniImageNet in the split of Ravi and Larochelle (2017): its classes, and whether a copy has them. No TensorFlow.

The 64 / 16 / 20 classes are known by their WordNet numbers (n01532829). Eight pairs of its images are equal, six of
them in a class of training and one of validation; in no copy is an image of the test in another split.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from .images import cache, duplicates

SPLITS = ("train", "val", "test")
IN_TWO_SPLITS = {("n03535780", "n03888605"): 5, ("n02950826", "n04389033"): 1}  # classes of equal images -> pairs
TWICE = 8  # images that may be more than once in a split; two are
SHOWN = 5
Parts = Mapping[Any, cache.Stored]  # by split


@functools.cache
def classes() -> Mapping[str, str]:
    """Return the split of each class, by its WordNet number."""
    text = files(__package__ or "").joinpath("miniimagenet_ravi_split.csv").read_text(encoding="utf-8")
    return {row["class"]: row["split"] for row in csv.DictReader(text.splitlines())}


def number_of(name: str) -> str | None:
    """Return the WordNet number in the name of a class; None if it has none."""
    found = re.search(r"(?<![a-z0-9])n\d{8}(?!\d)", name.lower())
    return found[0] if found else None


def unknown_names(parts: Parts) -> str | None:
    """Return that class names cannot be compared with the known ones; None if all can."""
    names = [name for part in parts.values() for name in part.names]
    unknown = [name for name in names if number_of(name) is None]
    if not unknown:
        return None
    return (
        f"{len(unknown)} of {len(names)} class names ({_shown(unknown, 3)}) are no WordNet numbers, so they cannot be "
        "compared with the 64 / 16 / 20 known classes; equal images were looked for"
    )


def problems(parts: Parts, report: Callable[[int], object] = bool) -> Iterator[str]:
    """Yield why three parts are not miniImageNet in this split, by the names of the classes and by all pixels.

    Args:
        parts: The three splits.
        report: Called with the number of images read since the last call.
    """
    yield from _wrong_names(parts)
    yield from _equal_images(parts, report)


def _wrong_names(parts: Parts) -> Iterator[str]:
    known = classes()
    for split, part in parts.items():
        numbers = [number for name in part.names if (number := number_of(name))]
        if foreign := [number for number in numbers if number not in known]:
            yield f"{split} has {len(foreign)} classes that are not of miniImageNet: {_shown(foreign)}"
        for other in SPLITS:
            if other != split and (moved := [number for number in numbers if known.get(number) == other]):
                yield f"{split} has {len(moved)} classes of {other}: {_shown(moved)}"
    words = Counter(
        name for part in parts.values() for name in part.names if not number_of(name) and not name.isdigit()
    )
    if twice := [name for name, times in words.items() if times > 1]:
        yield f"{len(twice)} classes are in two splits: {_shown(twice)}"


def _equal_images(parts: Parts, report: Callable[[int], object]) -> Iterator[str]:
    names = [name for part in parts.values() for name in part.names]
    split_of = [split for split, part in parts.items() for _ in part.names]
    digests = []
    for part in parts.values():
        for image in part.images:
            digests.append(duplicates.digest_of(image))
            report(1)
    equals = duplicates.find(digests, np.concatenate([part.counts for part in parts.values()]))
    apart = [each for each in equals if len({split_of[number] for number in each.classes}) > 1]
    if not _are_those_known(apart, names, split_of):
        yield from duplicates.told(apart, names.__getitem__, split_of.__getitem__)
    within = [each for each in equals if each not in apart]
    if (copies := sum(each.files - each.images for each in within)) > TWICE:
        shown = _shown([names[each.classes[0]] for each in within])
        yield f"{copies} images are copies of another one in their split, by equal pixels: classes {shown}"


def _are_those_known(apart: list[duplicates.Equals], names: list[str], split_of: list[str]) -> bool:
    """Return whether the images in two splits are those of the original, as far as the names of the classes tell."""
    if any({split_of[number] for number in each.classes} != {"train", "val"} for each in apart):
        return False
    for each in apart:
        numbers = [number_of(names[number]) for number in each.classes]
        pair = tuple(sorted(number or "" for number in numbers))
        if each.images > (max(IN_TWO_SPLITS.values()) if "" in pair else IN_TWO_SPLITS.get(pair, 0)):  # pyright: ignore
            return False
    return sum(each.images for each in apart) <= sum(IN_TWO_SPLITS.values())


def _shown(some: list[str], most: int = SHOWN) -> str:
    return ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "")
