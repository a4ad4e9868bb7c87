"""Images with labels in pickles and npz files, under the names of keys that are about.

Images: image_data, data or images, uint8 [N, H, W, C] or a list of images, encoded ones (PNG) too. Classes: class_dict
(name -> numbers of images), or a label per image in labels or label_specific, with names in catname2label or
label_specific_str. A pickle is in memory as a whole; the images of an npz pass one by one.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np

from ..errors import DataError
from . import boxes, pickles
from .layout import Item, Layout

PICKLES = (".pkl", ".pickle")
IMAGES, LABELS = ("image_data", "data", "images"), ("labels", "label_specific", "label", "targets")
CHUNK = 256  # images of an npz that are read at once
MAXIMUM_LABELS = 256 << 20  # bytes


def items(box: boxes.Box, name: str, layout: Layout, split: str) -> Iterator[Item]:
    """Yield the images of a pickle or npz file.

    Raises:
        DataError: It is none, or it has no images of the dataset's size, or not one class per image.
    """
    try:
        yield from _items(box, name, layout, split)
    except boxes.UNREADABLE as error:
        kind = name.rpartition(".")[2]
        raise DataError(f"{box.where(name)} is not a readable {kind} ({error}): copy it again") from None


def _items(box: boxes.Box, name: str, layout: Layout, split: str) -> Iterator[Item]:
    where = box.where(name)
    with box.open(name) as file:
        if name.lower().endswith(".npz"):
            images, told = _of_npz(file, where, layout)
        else:
            told = pickles.load(file, where)
            images, told = (told, {}) if isinstance(told, list) else _images_in(told, where, layout)
        if not {"class_dict", *LABELS} & set(told):
            told = _labels_beside(box, name)
        numbers, names = _classes(told, where)
        if isinstance(images, Iterator):
            yield from _in_order(images, names, split, where)
            return
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(images):
            raise DataError(f"{where} has class members beyond its {len(images)} images")
        if "class_dict" not in told and len(numbers) != len(images):
            raise DataError(f"{where} has {len(numbers)} labels for {len(images)} images")
        for order, (number, label) in enumerate(zip(numbers, names, strict=True)):
            yield _item(split, label, order, f"{where}, image {number}", images[number])


def _in_order(images: Iterator[np.ndarray], names: Sequence[str], split: str, where: str) -> Iterator[Item]:
    number = -1
    for number, image in enumerate(images):
        if number == len(names):
            raise DataError(f"{where} has {len(names)} labels, but more images")
        yield _item(split, names[number], number, f"{where}, image {number}", image)
    if number + 1 < len(names):
        raise DataError(f"{where} has {len(names)} labels for {number + 1} images")


def _item(split: str, name: str, order: int, where: str, image: Any) -> Item:
    """Return an image; one dimension, or one beside a one, are the bytes of an encoded one."""
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and (image.ndim == 1 or image.ndim == 2 and 1 in image.shape)
    ):
        image = image.tobytes()
    if not isinstance(image, bytes | np.ndarray):
        raise DataError(f"{where} is a {type(image).__name__}: neither an array nor an encoded image")
    return Item(split, name, f"{order:09}", where, image)


def _images_in(told: Any, where: str, layout: Layout) -> tuple[Any, dict[str, Any]]:
    """Return the images of a dict, and the dict."""
    if not isinstance(told, dict):
        raise DataError(f"{where} holds a {type(told).__name__}, not a dict of arrays")
    images = next((told[key] for key in IMAGES if key in told), None)
    height, width, channels = layout.shape
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (channels, height, width):
        images = np.moveaxis(images, 1, -1)
    good = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == layout.shape
    if not good and not isinstance(images, list):
        size = "x".join(map(str, layout.shape))
        raise DataError(f"{where} has no uint8 images of {size} under {', '.join(IMAGES[:-1])} or {IMAGES[-1]}")
    return images, told


def _labels_beside(box: boxes.Box, name: str) -> dict[str, Any]:
    """Return the content of train_labels.pkl beside train_images.npz or train_images_png.pkl."""
    base = PurePosixPath(name).name
    for ending in PICKLES:
        other = box.beside(name, re.sub(r"_?images.*|\.\w+$", "", base) + "_labels" + ending)
        if other:
            with box.open(other) as file:
                told = pickles.load(file, box.where(other))
            return told if isinstance(told, dict) else {"labels": told}
    raise DataError(f"{box.where(name)} has no labels in it, nor beside it in a pickle with _labels in its name")


def _classes(told: Mapping[str, Any], where: str) -> tuple[np.ndarray, list[str]]:
    """Return numbers of images, class after class where the file lists them so, and the class of each."""
    try:
        if isinstance(told.get("class_dict"), dict):
            members = {str(name): _flat(rows, np.int64) for name, rows in told["class_dict"].items()}
            if any(rows.ndim != 1 for rows in members.values()):
                raise ValueError("not one list of numbers per class")
            numbers = np.concatenate([np.zeros(0, np.int64), *members.values()])
            if len(np.unique(numbers)) < len(numbers):
                raise DataError(f"{where} has an image twice in its classes")
            return numbers, [name for name, rows in members.items() for _ in rows]
        labels = _flat(next((told[key] for key in LABELS if key in told), []))
        if labels.ndim != 1:
            raise ValueError("not one label per image")
        names = _names(told, [str(label) for label in np.unique(labels)])
        return np.arange(len(labels)), [names.get(str(label), str(label)) for label in labels]
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{where} has no image numbers under class_dict, or not one label per image under {LABELS[0]} ({error})"
        ) from None


def _names(told: Mapping[str, Any], labels: list[str]) -> dict[str, str]:
    """Return the name of each label, where the file says it and names differ."""
    if isinstance(by_name := told.get("catname2label"), dict):
        names = {str(label): str(name) for name, label in by_name.items()}
    elif told.get("label_specific_str") is not None:
        names = {str(number): str(name) for number, name in enumerate(_flat(told["label_specific_str"]))}
    else:
        return {}
    times = Counter(names.get(label) for label in labels)
    return {label: name if times[name] == 1 else f"{name} ({label})" for label, name in names.items()}


def _flat(rows: Any, dtype: Any = None) -> np.ndarray:
    """Return rows as an array, or raise ValueError for nested lists before looking into them: any size is possible."""
    if not isinstance(rows, np.ndarray) and any(isinstance(row, list | tuple | dict | np.ndarray) for row in rows):
        raise ValueError("a list in a list")
    return np.asarray(rows, dtype)


def _of_npz(file: IO[bytes], where: str, layout: Layout) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
    """Return the images of an npz, read one after the other, and its labels."""
    archive = zipfile.ZipFile(file)
    inside = {each.removesuffix(".npy"): each for each in archive.namelist()}
    name = next((inside[key] for key in IMAGES if key in inside), None)
    if name is None:
        raise DataError(f"{where} has no images under {', '.join(IMAGES[:-1])} or {IMAGES[-1]}")
    told = {}
    for key in (each for each in LABELS if each in inside):
        if archive.getinfo(inside[key]).file_size > MAXIMUM_LABELS:
            raise DataError(f"{where} has {key} of over {MAXIMUM_LABELS >> 20} MiB: not one number or name per image")
        with archive.open(inside[key]) as part:
            told[key] = np.lib.format.read_array(io.BytesIO(part.read(MAXIMUM_LABELS)), allow_pickle=False)
    return _rows(archive, name, where, layout), told


def _rows(archive: zipfile.ZipFile, name: str, where: str, layout: Layout) -> Iterator[np.ndarray]:
    with archive.open(name) as part:
        version = np.lib.format.read_magic(part)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise DataError(f"{where} has arrays of an unknown version {version}")
        shape, by_column, kind = read_header[version](part)
        if kind != np.uint8 or by_column or shape[1:] != layout.shape:
            size = "x".join(map(str, layout.shape))
            raise DataError(f"{where} has {name} of {kind}{list(shape)}, not uint8 images of {size}")
        one = int(np.prod(layout.shape))
        for first in range(0, shape[0], CHUNK):
            number = min(CHUNK, shape[0] - first)
            data = part.read(number * one)
            if len(data) < number * one:
                raise DataError(f"{where} ends within image {first + len(data) // one} of {shape[0]}: copy it again")
            yield from np.frombuffer(data, np.uint8).reshape(number, *layout.shape)
