"""Gather the images of a copy on the disk, in whatever order they come; give them to the cache class after class."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from ..errors import DataError, listed
from . import cache, decode
from .layout import Item, Layout
from .progress import Bar


class Intake:
    """Collect the images of a dataset in an unnamed file in the cache's folder; memory holds only where each of them
    is.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self._rows: dict[str, defaultdict[str, list[tuple[str, int]]]] = {
            part: defaultdict(list) for part in layout.classes
        }  # part -> class -> (order, row)
        self._size = int(np.prod(layout.shape))
        self._number = 0
        self._damaged: list[str] = []
        self._foreign: dict[str, None] = {}
        try:
            self._file = tempfile.TemporaryFile(dir=cache.folder())  # noqa: SIM115
        except OSError as error:
            raise DataError(cache.disk_message(error)) from None

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, items: Iterable[Item]) -> None:
        """Take all images.

        Raises:
            DataError: Some cannot be read, have another size, or are of unknown classes; or the disk is full.
        """
        with warnings.catch_warnings(), Bar(self.layout.name, None) as bar:
            warnings.simplefilter("ignore")  # Pillow's, of odd files
            for item in items:
                bar.advance()
                try:
                    self._add(item)
                except DataError as error:
                    self._damaged.append(str(error))
                except OSError as error:
                    raise DataError(cache.disk_message(error)) from None
        try:
            self._file.flush()
        except OSError as error:
            raise DataError(cache.disk_message(error)) from None
        if self._damaged:
            raise DataError(listed(f"{len(self._damaged)} images cannot be read", self._damaged))
        if self._foreign:
            raise DataError(self.layout.foreign(list(self._foreign)))

    def _add(self, item: Item) -> None:
        part = item.split if item.split in self._rows else self.layout.part_of(item.name)
        if part is None:
            self._foreign[item.name] = None
            return
        image = item.image
        if isinstance(image, bytes):
            image = decode.decode(image, item.where, self.layout.shape[:2], self.layout.shape[2])
        if image.dtype != np.uint8 or image.shape != self.layout.shape:
            size = "x".join(map(str, self.layout.shape))
            raise DataError(f"{item.where} is {image.dtype}{list(image.shape)}, not a uint8 image of {size}")
        self._file.write(image.tobytes())
        self._rows[part][item.name].append((item.order, self._number))
        self._number += 1

    def wrong(self, shown: str) -> list[str]:
        """Return why parts are missing or not complete."""
        told = []
        for part, members in self._rows.items():
            if not members:
                split = "" if self.layout.is_whole else f"no {part} split: "
                told.append(f"{shown}: {split}expected {self.layout.forms(part)}")
            elif wrong := self.layout.problem(part, {name: len(rows) for name, rows in members.items()}):
                told.append(f"{shown}: {wrong}")
        return told

    def prepared(self, part: str) -> cache.Prepared:
        """Return a part for the cache: classes by name, the images of each in their order."""
        new_name = self.layout.renamed({each: list(members) for each, members in self._rows.items()})
        members = {new_name.get(name, name): sorted(rows) for name, rows in self._rows[part].items()}
        names = sorted(members)
        rows = [row for name in names for _, row in members[name]]
        facts, flip = {}, False
        if not self.layout.is_whole:
            mean, std = moments(self._images(rows))
            if flip := self.layout.reddest and mean[0] < mean[2]:
                print(f"{self.layout.name}: red and blue are exchanged in {part}: put right", file=sys.stderr)
                mean, std = mean[::-1], std[::-1]
            facts = {"mean": mean.tolist(), "std": std.tolist()}
        return cache.Prepared(
            self._images(rows, flip), np.array([len(members[name]) for name in names]), tuple(names), facts
        )

    def _images(self, rows: Iterable[int], flip: bool = False) -> Iterator[np.ndarray]:
        for row in rows:
            image = np.frombuffer(os.pread(self._file.fileno(), self._size, row * self._size), np.uint8)
            image = image.reshape(self.layout.shape)
            yield image[..., ::-1] if flip else image


def moments(pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each channel of uint8 images [H, W, C], over 255.

    They are exact, from counts of values.
    """
    counts = sum(
        np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(picture, -1, 0)])
        for picture in pictures
    )  # [C, 256]
    values, total = np.arange(256) / 255, np.sum(counts, axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)
