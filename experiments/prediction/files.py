"""Find and read the images of a support set and those to classify. No TensorFlow."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...datasets.errors import DataError, counted, first_of, listed
from ...datasets.images import duplicates
from ...datasets.images.decode import Decoded
from ...datasets.images.folders import classes_in, images_below
from ...datasets.images.preprocessing import Preprocessing
from ..system import signals

NAMED = 20  # classes whose numbers of images are told
SHOWN = 3  # pairs of equal images in a warning


class SupportFiles(NamedTuple):
    """Hold the files of a support set: class after class, sorted by name."""

    folder: Path
    classes: tuple[str, ...]  # names of the folders, sorted
    counts: tuple[int, ...]  # images of each class
    paths: tuple[Path, ...]
    left_out: list[str]  # sentences

    @property
    def name(self) -> str:
        """Return the folder and the number of images of each class, for a reader; of many classes the smallest ones."""
        by_count = list(zip(self.counts, self.classes, strict=True))
        shown = by_count if len(by_count) <= NAMED else sorted(by_count)[:NAMED]
        each = ", ".join(f"{name} {count}" for count, name in shown)
        rest = f", ..., up to {max(self.counts)}" if len(shown) < len(by_count) else ""
        images = counted(len(self.paths), "image")
        return f"support {self.folder}: {counted(len(self.classes), 'class', 'classes')}, {images}: {each}{rest}"

    def shown(self, row: int) -> str:
        """Return the path of an image below the folder."""
        return os.path.relpath(self.paths[row], self.folder)


class SupportImages(NamedTuple):
    """Hold the images of a support set as the network reads them."""

    files: SupportFiles
    images: np.ndarray  # [S, height, width, channels] uint8
    digests: list[bytes]  # of the pixels of each

    @property
    def labels(self) -> np.ndarray:
        """Return the number of the class of each image, int32 `[S]`."""
        return np.repeat(np.arange(len(self.files.counts), dtype=np.int32), self.files.counts)


class GivenImages(NamedTuple):
    """Hold the files to classify, in the order in which they were given; those of a folder sorted by path."""

    paths: tuple[Path, ...]
    left_out: list[str]  # sentences


def find_support(folder: Path) -> SupportFiles:
    """Return the files of a support set, one folder per class.

    Raises:
        DataError: the folder is missing, cannot be read, or has no class with images.
    """
    found = classes_in(folder)
    classes = found.classes["all"]
    return SupportFiles(
        folder,
        tuple(name for name, _ in classes),
        tuple(len(paths) for _, paths in classes),
        tuple(path for _, paths in classes for path in paths),
        found.left_out,
    )


def find_images(given: Sequence[Path]) -> GivenImages:
    """Return the images to classify: the given files, and all images in and below the given folders, each once.

    Raises:
        DataError: a name is neither a file nor a folder, a folder cannot be read, or there is no image.
    """
    missing = [f"{each} is neither a file nor a folder" for each in given if not each.exists()]
    if missing:
        raise DataError(listed(f"{len(missing)} of {len(given)} names are missing", missing))
    paths: list[Path] = []
    left_out: list[str] = []
    for each in given:
        if each.is_dir():
            below, told = images_below(each)
            paths += below
            left_out += [f"{each}: left out: {sentence}" for sentence in told]
        else:
            paths.append(each)
    if not paths:
        raise DataError("; ".join([f"{', '.join(map(str, given))}: no image to classify", *left_out]))
    return GivenImages(tuple(dict.fromkeys(paths)), left_out)


class Read(NamedTuple):
    """Hold a file that was read: its image, or why it cannot be one."""

    path: Path
    image: Decoded | None
    problem: str


def read_images(paths: Sequence[Path], preprocessing: Preprocessing, invert: bool) -> list[Read]:
    """Return the images of files as a network reads them, in their order; several are decoded at a time."""

    def read(path: Path) -> Read:
        try:
            return Read(path, preprocessing.decode(path.read_bytes(), str(path), invert), "")
        except DataError as error:
            return Read(path, None, str(error))
        except OSError as error:
            return Read(path, None, f"{path} cannot be read: {error.strerror}")

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # Pillow warns of large images and odd EXIF data
        warnings.simplefilter("ignore")
        return list(pool.map(read, paths))


def in_chunks(paths: Sequence[Path], preprocessing: Preprocessing, invert: bool, size: int) -> Iterator[list[Read]]:
    """Yield the images of files, `size` at a time, as `read_images` returns them."""
    for start in range(0, len(paths), size):
        signals.check()
        yield read_images(paths[start : start + size], preprocessing, invert)


def read_support(files: SupportFiles, preprocessing: Preprocessing, invert: bool, at_once: int = 256) -> SupportImages:
    """Return the images of a support set.

    Raises:
        DataError: images cannot be read; all of them are listed. A support set with fewer images would give other
            predictions, so nothing is predicted.
    """
    read = [each for chunk in in_chunks(files.paths, preprocessing, invert, at_once) for each in chunk]
    if damaged := [each.problem for each in read if each.image is None]:
        heading = (
            f"{files.folder}: {len(damaged)} of {len(read)} support images cannot be read, so nothing is predicted"
        )
        raise DataError(listed(heading, damaged))
    images = np.stack([each.image.pixels for each in read if each.image])
    return SupportImages(files, images, [duplicates.digest_of(image) for image in images])


def equal_supports(support: SupportImages) -> str:
    """Return a sentence about pictures that are in the support set more than once, or ""."""
    first: dict[bytes, int] = {}
    pairs = []
    for row, digest in enumerate(support.digests):
        if (other := first.setdefault(digest, row)) != row:
            pairs.append((support.files.shown(other), support.files.shown(row)))
    if not pairs:
        return ""
    labels = support.labels
    across = any(labels[first[digest]] != label for digest, label in zip(support.digests, labels, strict=True))
    why = "; in two classes they contradict each other" if across else ""
    return (
        f"{counted(len(pairs), 'support image is', 'support images are')} the same picture as another one, by its "
        f"pixels: {shown_pairs(pairs)}; leave-one-out accuracy is too good then{why}"
    )


def shown_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the first pairs of equal images, and how many more there are."""
    return first_of([" = ".join(pair) for pair in pairs], SHOWN)
