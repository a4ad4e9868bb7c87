"""Compare the splits of a copy with the known ones: names of classes, and images that are in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import first_of
from . import cache, duplicates
from .layout import Layout

SHOWN = 5  # names in a message
SHARE = 0.01  # of the images may have an equal one in another split, as originals have a few
Parts = Mapping[Any, cache.Stored]  # by split


def unknown_names(parts: Parts, layout: Layout) -> str | None:
    """Return that class names cannot be compared with the known ones; None if all can, or none are known."""
    names = [name for part in parts.values() for name in part.names]
    unknown = [name for name in names if layout.key(name) is None]
    if not unknown or not layout.known:
        return None
    sizes = " / ".join(str(number) for number in layout.classes.values())
    return (
        f"{len(unknown)} of {len(names)} class names ({first_of(unknown, 3)}) are no {layout.kind_of_names}, so they "
        f"cannot be compared with the {sizes} known classes; equal images were looked for"
    )


def wrong_names(parts: Parts, layout: Layout) -> Iterator[str]:
    """Yield what is wrong with the names of classes: foreign ones, those of another split, those in two."""
    known = layout.known
    for split, part in parts.items() if known else ():
        keys = [key for name in part.names if (key := layout.key(name))]
        if foreign := [key for key in keys if key not in known]:
            dataset = layout.title.split(" in ")[0]
            yield f"{split} has {len(foreign)} classes that are not of {dataset}: {first_of(foreign, SHOWN)}"
        for other in parts:
            if other != split and (moved := [key for key in keys if known.get(key) == other]):
                yield f"{split} has {len(moved)} classes of {other}: {first_of(moved, SHOWN)}"
    words = Counter(
        name
        for part in parts.values()
        for name in part.names
        if not name.isdigit() and not (known and layout.key(name))
    )
    if twice := [name for name, times in words.items() if times > 1]:
        yield f"{len(twice)} classes are in two splits: {first_of(twice, SHOWN)}"


def equal_images(parts: Parts) -> tuple[list[duplicates.Equals], list[duplicates.Equals], list[str], list[str]]:
    """Return the images that are in two splits, those that are twice in one, and name and split of each class."""
    names = [name for part in parts.values() for name in part.names]
    split_of = [split for split, part in parts.items() for _ in part.names]
    digests = [duplicates.digest_of(image) for part in parts.values() for image in part.images]
    equals = duplicates.find(digests, np.concatenate([part.counts for part in parts.values()]))
    apart: list[duplicates.Equals] = []
    within: list[duplicates.Equals] = []
    for each in equals:
        (apart if len({split_of[number] for number in each.classes}) > 1 else within).append(each)
    return apart, within, names, split_of


def problems(parts: Parts, layout: Layout) -> Iterator[str]:
    """Yield why the splits of a copy are not the known ones, by the names of the classes and by all pixels.

    Args:
        parts: The three splits.
        layout: What is known of the dataset.
    """
    yield from wrong_names(parts, layout)
    apart, _, names, split_of = equal_images(parts)
    if sum(each.images for each in apart) > SHARE * sum(len(part.images) for part in parts.values()):
        yield from duplicates.told(apart, names.__getitem__, split_of.__getitem__)
