"""The layout of a published dataset: all that is known of it, by which a copy is recognised and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import counted, first_of
from . import boxes

WHOLE = "all"  # the only part of a dataset whose classes a spec divides


class Item(NamedTuple):
    """Hold an image of a copy."""

    split: str | None  # None: the class decides
    name: str  # of the class
    order: str  # images of a class are sorted by it
    where: str  # for messages
    image: bytes | np.ndarray  # an encoded one, or uint8 [H, W, C]


Reader = Callable[[], Iterator[Item]]


def _nothing(box: boxes.Box) -> Mapping[str | None, Reader]:
    return {}


def _as_they_are(names: Mapping[str, list[str]]) -> Mapping[str, str]:
    return {}


class Layout(NamedTuple):
    """Hold a published dataset. Its parts in the cache are its splits, or one for all classes, `WHOLE`."""

    name: str
    title: str  # in messages
    shape: tuple[int, int, int]  # of an image: height, width, channels
    classes: Mapping[str, int]  # of each part
    expected: str  # the forms that can be imported, "{}" for the split
    images: int | None = None  # of each class; None: classes differ
    fewest: int = 0  # a lower bound of the images of a class, where classes differ
    totals: Mapping[str, int] | None = None  # images of each part
    archives: Mapping[str, str] = {}  # names of archives that hold all of it -> md5 of the original; "": not known
    known: Mapping[str, str] = {}  # the split of each class; empty: no list of classes is known
    key: Callable[[str], str | None] = str  # name of a class -> its name in `known`; None: it cannot be compared
    kind_of_names: str = "known class names"  # what those of `known` are, for messages
    readers: Callable[[boxes.Box], Mapping[str | None, Reader]] = _nothing  # of forms that only this dataset has
    folder: str = ""  # images lie in class folders in a folder of this name; "": of any name
    renamed: Callable[[Mapping[str, list[str]]], Mapping[str, str]] = _as_they_are  # by the class names of all parts
    reddest: bool = False  # red is brighter than blue on average, which tells exchanged channels
    problems: Callable[..., Iterator[str]] | None = None  # in place of `divisions.problems`

    @property
    def is_whole(self) -> bool:
        """Return whether all classes are one part."""
        return WHOLE in self.classes

    def cached(self, part: str) -> str:
        """Return the name of a part in the cache."""
        return self.name if self.is_whole else f"{self.name}-{part}"

    def part_of(self, name: str) -> str | None:
        """Return the part of a class that is in no split of the copy; None if it is not known."""
        if self.known:
            return self.known.get(self.key(name) or "")
        return WHOLE if self.is_whole else None

    def forms(self, split: str) -> str:
        """Return the forms of a copy that are expected, for a split."""
        return self.expected.replace("{}", split)

    def foreign(self, names: Sequence[str]) -> str:
        """Return the message for classes that are in no split and not known."""
        split = "" if self.is_whole else " without a split"
        return (
            f"{counted(len(names), 'class', 'classes')}{split} ({first_of(sorted(names), 5)}) whose names are "
            f"not those of {self.title}: expected {self.forms('train')}"
        )

    def problem(self, part: str, counts: Mapping[str, int]) -> str | None:
        """Return why a part with so many images of each class is not complete; None if it is."""
        has = "" if part == WHOLE else f"{part} has "
        told = [f"{has}{len(counts)} classes of {self.classes[part]}"]
        wrong = len(counts) != self.classes[part]
        if self.images:
            few = [f"{name} has {count}" for name, count in sorted(counts.items()) if count != self.images]
            if few:
                told.append(f"{first_of(few, 20)} images of {self.images}")
                wrong = True
        if self.totals and sum(counts.values()) != self.totals[part]:
            told.append(f"{sum(counts.values())} images of {self.totals[part]}")
            wrong = True
        return "; ".join(told) + f": the copy is not complete, or not {self.title}" if wrong else None
