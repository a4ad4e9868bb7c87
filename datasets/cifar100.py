"""CIFAR-FS (Bertinetto et al. 2019) and FC100 (Oreshkin et al. 2018): two divisions of CIFAR-100, 32x32, 600 per class.

A class is its 500 training and 100 test images of CIFAR-100 together. CIFAR-FS has 64 / 16 / 20 classes; FC100 has 60 /
20 / 20, divided by superclass. The lists are in cifar100_splits.csv. Read are

- cifar-100-python.tar.gz, or its folder: the pickles train, test and meta;
- cifar-100-binary.tar.gz, or its folder: train.bin, test.bin and fine_label_names.txt, without pickles;
- class folders without splits, as of R2D2 (data/apple/*.png): the names of the classes decide;
- CIFAR_FS_{train,val,test}.pickle or FC100_{train,val,test}.pickle, and class folders by split.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from .errors import DataError
from .images import boxes, forms, pickles, published
from .images.layout import Item, Layout, Reader
from .options import CifarFSOptions, FC100Options

if TYPE_CHECKING:
    from .images.source import ImageSource

CLASSES = {
    "cifar-fs": {"train": 64, "val": 16, "test": 20},
    "fc100": {"train": 60, "val": 20, "test": 20},
}
TITLES = {
    "cifar-fs": "CIFAR-FS in the split of Bertinetto et al.",
    "fc100": "FC100 in the split of Oreshkin et al.",
}
IMAGES, SIDE = 600, 32
RECORD = 2 + 3 * SIDE * SIDE  # bytes of the binary form: coarse label, fine label, pixels by channel
BATCHES = ("train", "test")
MD5 = {  # of the pickles
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
MOST = 60_000  # images of both batches


@functools.cache
def divisions() -> Mapping[str, Mapping[str, str]]:
    """Return the split of each class of CIFAR-100, by dataset. The order is that of the archive's label numbers."""
    text = files(__package__ or "").joinpath("cifar100_splits.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {name: {row["class"]: row[name] for row in rows} for name in CLASSES}


def layout(name: str) -> Layout:
    """Return what is known of cifar-fs or fc100."""
    stem = {"cifar-fs": "CIFAR_FS", "fc100": "FC100"}[name]
    return Layout(
        name=name,
        title=TITLES[name],
        shape=(SIDE, SIDE, 3),
        classes=CLASSES[name],
        images=IMAGES,
        expected="cifar-100-python.tar.gz or cifar-100-binary.tar.gz or their folders, <class>/*.png of all 100 "
        f"classes, {{}}/<class>/*.png or {stem}_{{}}.pickle",
        archives=published.CIFAR100[1] | {"cifar-100-binary.tar.gz": ""},
        known=divisions()[name],
        key=key,
        kind_of_names="names of CIFAR-100",
        readers=_readers,
        renamed=partial(_renamed, divisions()[name]),
    )


def build(options: CifarFSOptions | FC100Options, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The data have not been imported.
    """
    return published.source(layout(options.name), None, dtype, options.normalisation, options.in_memory)


def key(name: str) -> str | None:
    """Return the name of a class as the archive writes it; None for a number."""
    return None if name.isdigit() else name.lower().replace(" ", "_").replace("-", "_")


def _renamed(known: Mapping[str, str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the names of classes that are numbers, if each split has just the label numbers of its known classes."""
    numbers = {str(number): name for number, name in enumerate(known)}
    if any({numbers.get(each) for each in members} != _of(known, split) for split, members in names.items()):
        return {}
    return numbers


def _of(known: Mapping[str, str], split: str) -> set[str | None]:
    return {name for name, each in known.items() if each == split}


def _readers(box: boxes.Box) -> dict[str | None, Reader]:
    """Return the reader of the official archives."""
    names = set(box.names)
    for folder in sorted({str(PurePosixPath(name).parent) for name in names}):
        inside = {
            each: str(PurePosixPath(folder) / each) for each in ("train", "test", "meta", "train.bin", "test.bin")
        }
        inside["names"] = str(PurePosixPath(folder) / "fine_label_names.txt")
        if {inside["train"], inside["test"], inside["meta"]} <= names:
            return {None: partial(_of_pickles, box, inside)}
        if {inside["train.bin"], inside["test.bin"], inside["names"]} <= names:
            return {None: partial(_of_records, box, inside)}
    return {}


def _of_pickles(box: boxes.Box, inside: Mapping[str, str]) -> Iterator[Item]:
    for name, md5 in MD5.items() if box.is_folder else ():
        forms.warn_of_another(box.path / inside[name], md5)
    with box.open(inside["meta"]) as file:
        told = pickles.load_arrays(file, box.where(inside["meta"]))
    names = _checked(told.get("fine_label_names"), box.where(inside["meta"]))
    for batch in BATCHES:
        where = box.where(inside[batch])
        with box.open(inside[batch]) as file:
            told = pickles.load_arrays(file, where)
        pixels, labels = told.get("data"), told.get("fine_labels")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (RECORD - 2,):
            raise DataError(f"{where} has no uint8 rows of {RECORD - 2} under data")
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise DataError(f"{where} has not one number per image under fine_labels")
        yield from _images(pixels, labels, names, batch, where)


def _of_records(box: boxes.Box, inside: Mapping[str, str]) -> Iterator[Item]:
    with box.open(inside["names"]) as file:
        names = _checked(file.read(1 << 16).decode("latin1").split(), box.where(inside["names"]))
    for batch in BATCHES:
        where = box.where(inside[f"{batch}.bin"])
        with box.open(inside[f"{batch}.bin"]) as file:
            data = file.read(RECORD * MOST)
        if len(data) % RECORD:
            raise DataError(f"{where} has {len(data)} bytes, not records of {RECORD}: copy it again")
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        yield from _images(records[:, 2:], records[:, 1].tolist(), names, batch, where)


def _checked(names: object, where: str) -> list[str]:
    """Return the names of all classes by label number; DataError if they are not those of CIFAR-100."""
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(divisions()["fc100"]):
        raise DataError(f"{where} has not the 100 class names of CIFAR-100")
    return names


def _images(pixels: np.ndarray, labels: Sequence[int], names: Sequence[str], batch: str, where: str) -> Iterator[Item]:
    """Yield images that lie as channel, row, column; those of the batch train come first in their class."""
    for number, (row, label) in enumerate(zip(pixels, labels, strict=True)):
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise DataError(f"{where}: image {number} has the label {label}, not one of 0 to {len(names) - 1}")
        image = np.moveaxis(row.reshape(3, SIDE, SIDE), 0, -1)
        yield Item(None, names[label], f"{BATCHES.index(batch)}{number:06}", f"{where}, image {number}", image)
