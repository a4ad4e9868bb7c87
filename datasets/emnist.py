"""EMNIST by class (Cohen et al. 2017): 62 handwritten digits and letters, 814,255 images of 28x28, for tests only.

A class is its training and test images together. The files lie transposed and are turned; ink is light in them. Labels
0 to 9 are digits, 10 to 35 capitals, 36 to 61 small letters. Omniglot -> EMNIST (Chen et al. 2019, Patacchiola et al.
2020) validates on the classes with an even number and tests on the others, 31 each; no class is for training.
Their images are of another archive, inverted by a script, so numbers are near to theirs, not the same.
"""

from __future__ import annotations

import gzip
import string
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from .errors import DataError
from .images import boxes, published
from .images.layout import WHOLE, Item, Layout, Reader
from .options import EmnistOptions

if TYPE_CHECKING:
    from .images.source import ImageSource
    from .tasks import Split

CLASSES, TOTAL, SIDE = {WHOLE: 62}, {WHOLE: 814_255}, 28
NAMES = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)  # by label
FILE = "emnist-byclass-{}-{}-ubyte"
BATCHES = ("train", "test")
CHUNK = 4096  # images read at once


def layout(name: str = "emnist") -> Layout:
    """Return what is known of EMNIST."""
    return Layout(
        name=name,
        title="EMNIST by class",
        shape=(SIDE, SIDE, 1),
        classes=CLASSES,
        totals=TOTAL,
        fewest=1000,  # all have more
        expected="gzip.zip, or emnist-byclass-{train,test}-{images-idx3,labels-idx1}-ubyte(.gz)",
        archives=published.EMNIST[1],
        readers=_readers,
    )


def members(options: EmnistOptions) -> Mapping[Split, Sequence[str]]:
    """Return the names of the classes of each split of a spec."""
    return {"val": NAMES[0::2], "test": NAMES[1::2]}


def build(options: EmnistOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec: val and test.

    Raises:
        DataError: The data have not been imported.
    """
    return published.source(
        layout(), members(options), dtype, "unit" if options.ink else "inverted", options.in_memory, "light"
    )


def _readers(box: boxes.Box) -> dict[str | None, Reader]:
    """Return the reader of the IDX files, compressed or not."""
    found = {}
    for name in box.names:
        base = PurePosixPath(name).name
        found[base.removesuffix(".gz")] = name
    needed = [FILE.format(batch, kind) for batch in BATCHES for kind in ("images-idx3", "labels-idx1")]
    if any(name not in found for name in needed):
        return {}
    return {None: partial(_images, box, [found[name] for name in needed])}


def _images(box: boxes.Box, names: Sequence[str]) -> Iterator[Item]:
    for batch, images, labels in ((0, *names[:2]), (1, *names[2:])):
        (total,), stream = _idx(box, labels, 1)
        marks = _read(stream, total, box.where(labels))
        shape, pixels = _idx(box, images, 3)
        if shape != (total, SIDE, SIDE):
            raise DataError(f"{box.where(images)} has images of {list(shape)} for {total} labels in {labels}")
        where = box.where(images)
        for first in range(0, total, CHUNK):
            number = min(CHUNK, total - first)
            rows = np.frombuffer(_read(pixels, number * SIDE * SIDE, where), np.uint8).reshape(number, SIDE, SIDE, 1)
            for place, (image, label) in enumerate(zip(rows, marks[first : first + number], strict=True), first):
                if label >= len(NAMES):
                    raise DataError(
                        f"{box.where(labels)}: image {place} has the label {label}: at most {len(NAMES) - 1}"
                    )
                turned = image.transpose(1, 0, 2)
                yield Item(None, NAMES[label], f"{batch}{place:07}", f"{where}, image {place}", turned)


def _idx(box: boxes.Box, name: str, dimensions: int) -> tuple[tuple[int, ...], IO[bytes] | gzip.GzipFile]:
    """Return shape and bytes of an IDX file: magic number 0, 0, 8 (bytes), dimensions; then the lengths."""
    file = box.open(name)
    stream = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
    magic, *shape = struct.unpack(f">{1 + dimensions}I", _read(stream, 4 + 4 * dimensions, box.where(name)))
    if magic != 0x800 + dimensions or shape[0] > TOTAL[WHOLE]:
        raise DataError(f"{box.where(name)} is not an IDX file of bytes with {dimensions} dimensions")
    return tuple(shape), stream


def _read(stream: IO[bytes] | gzip.GzipFile, size: int, where: str) -> bytes:
    try:
        data = stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is not a readable gzip file ({error}): copy it again") from None
    if len(data) < size:
        raise DataError(f"{where} ends too early: copy it again")
    return data
