"""Equal images, found by their pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

DIGEST = 16  # bytes


class Equals(NamedTuple):
    """Hold images that are in the same classes."""

    classes: tuple[int, ...]  # numbers of the classes, each once
    images: int  # different ones
    files: int  # all of them, copies included


def digest_of(image: np.ndarray) -> bytes:
    """Return the digest of an image's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=DIGEST).digest()


def find(digests: Sequence[bytes] | np.ndarray, counts: Iterable[int]) -> list[Equals]:
    """Return the images that are there more than once, those of the same classes together, the most frequent first.

    Args:
        digests: The digest of each image, class after class.
        counts: The number of images of each class.
    """
    keys = np.frombuffer(b"".join(bytes(each) for each in digests), f"S{DIGEST}")
    counts = np.asarray(list(counts))
    class_of = np.repeat(np.arange(len(counts)), counts)
    _, image_of, times = np.unique(keys, return_inverse=True, return_counts=True)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(times[image_of] > 1):
        members[int(image_of[row])].append(int(class_of[row]))
    found: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for classes in members.values():
        found[tuple(sorted(set(classes)))].append(len(classes))
    sets = [Equals(classes, len(files), sum(files)) for classes, files in found.items()]
    return sorted(sets, key=lambda each: (-each.images, each.classes))


def told(equals: Iterable[Equals], name: Callable[[int], str], split: Callable[[int], str]) -> list[str]:
    """Return sentences about equal images: those in several classes, and those more than once in one class.

    Args:
        equals: The result of `find`.
        name: Maps the number of a class to its name.
        split: Maps the number of a class to its split.
    """
    equals = list(equals)
    across = [each for each in equals if len(each.classes) > 1]
    within = [each for each in equals if len(each.classes) == 1]
    lines = []
    if across:
        images = sum(each.images for each in across)
        apart = sum(each.images for each in across if len({split(number) for number in each.classes}) > 1)
        those = f", {apart} of them in several splits," if apart else ""
        shown = _shown(across, lambda number: _placed(name(number), split(number)), " = ")
        lines.append(f"{_images(images)} in several classes{those} by equal pixels: {shown}")
    if within:
        shown = _shown(within, name, "")
        images = sum(each.images for each in within)
        lines.append(f"{_images(images)} more than once in one class: {shown}; support and queries may share them")
    return lines


def _placed(name: str, split: str) -> str:
    return name if name.startswith(f"{split}/") else f"{name} ({split})"


def _images(number: int) -> str:
    return "1 image is" if number == 1 else f"{number} images are"


def _shown(equals: Sequence[Equals], name: Callable[[int], str], between: str, most: int = 3) -> str:
    def classes(each: Equals) -> str:
        more = f" and {len(each.classes) - most} more classes" if len(each.classes) > most else ""
        return between.join(map(name, each.classes[:most])) + more

    more = f"; and {len(equals) - most} more" if len(equals) > most else ""
    return ", ".join(f"{classes(each)}: {each.images}" for each in equals[:most]) + more
