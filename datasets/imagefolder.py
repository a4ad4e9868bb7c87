"""The user's own images: class/*.png, or train|val|test/class/*.png.

The images are decoded once into the cache, split after split. The name of the cached file depends on every image's
path, size and time, so a changed folder is read again; what has not changed is taken from the former copy. The images
are never in memory all at once, unless the source holds them there.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, first_of, listed
from .images import cache, decode, duplicates
from .images.folders import SPLITS, Classes, cached_name, decoding, divide, divided, find_classes, in_order
from .images.preprocessing import Preprocessing, converted
from .images.progress import Bar
from .images.source import ClassPool, ImageSource
from .options import ImageFolderOptions
from .tasks import Split

__all__ = ["build", "divide", "find_classes"]
AT_ONCE, DECODED = 256, 1 << 26  # images decoded ahead of the one that is written, and their bytes
FEW_BITS = (8, 10, 12, 14)  # depths of cameras; their values in 16 bits are nearly black
FILE = np.dtype(  # what the cache keeps of each image
    [("key", "V16"), ("pixels", "V16"), ("largest", "<u2"), ("depth", "u1"), ("frames", "?"), ("read", "?")]
)
Former = dict[bytes, tuple[np.ndarray, np.ndarray, int]]  # key -> images, what is noted of them, row
_told: set[str] = set()  # warnings of this process, which builds the source anew for every run


def build(options: ImageFolderOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The folder has no classes, lacks a split, or is divided already and the spec divides it again; or
            images cannot be read.
    """
    splits, left_out = divided(options)
    everything = in_order(splits)
    name = cached_name(options, everything)
    try:
        stored = cache.load(name, _Decoder(options, everything).prepared, unfinished=f"{name}-unfinished")
        if frames := stored.facts["frames"]:
            left_out = [*left_out, f"all but the first frame of {frames} {'files' if frames > 1 else 'file'}"]
        _discard_unfinished(options)
    finally:
        if left_out:
            _warn(f"{options.path}: left out: {'; '.join(left_out)}")
    split_of = [split for split in SPLITS for _ in splits.get(split, [])]
    for line in _doubts(options, stored, split_of):
        _warn(f"{options.path}: {line}")
    pools: dict[Split, ClassPool] = {}
    classes = rows = 0
    for split in SPLITS:
        if own := len(splits.get(split, [])):
            counts = stored.counts[classes : classes + own]
            images = stored.images[rows : rows + counts.sum()]  # of the memory map, not a copy
            pools[split] = ClassPool(images, counts, stored.names[classes : classes + own])
            classes, rows = classes + own, rows + len(images)
    content = _digest_of_files(name, stored, everything) if options._tested else stored.digest
    division = repr([(split, pool.names, pool.counts.tolist()) for split, pool in pools.items()])
    return ImageSource(
        f"imagefolder {options.path}",
        pools,
        in_memory=options.in_memory,
        former_digest=stored.digest,
        content_digest=hashlib.sha256(os.fsencode(content + division)).hexdigest(),
        dtype=dtype,
        bits=options.bits,
        binary=options._binary,
    )


def _digest_of_files(name: str, stored: cache.Stored, classes: Classes) -> str:
    """Return a digest of the bytes of all files, which is noted in the cache.

    Networks read a folder that they are tested on in several sizes; its content is the same.
    """
    if known := stored.facts.get("bytes"):
        return known
    digest = hashlib.sha256()
    for _, paths in classes:
        for path in paths:
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}") from None
    cache.note(name, bytes=digest.hexdigest())
    return digest.hexdigest()


def _discard_unfinished(options: ImageFolderOptions) -> None:
    """Remove copies of preparations that failed: all that they hold is in the copy that is whole."""
    for path in cache.folder().glob("imagefolder-*-unfinished.json"):
        if any(path.stem == name for name, _ in _copies(options)):
            cache.discard(path.stem)


def _warn(text: str) -> None:
    """Print a warning on standard error, once in a process."""
    if text not in _told:
        _told.add(text)
        print(f"warning: {text}", file=sys.stderr)


def _doubts(options: ImageFolderOptions, stored: cache.Stored, split_of: Sequence[str]) -> Iterator[str]:
    """Yield what makes numbers of these images doubtful: classes and images in two splits, depths that are unclear.

    Raises:
        DataError: `bits` has no effect.
    """
    yield from _shared_names(stored.names, split_of)
    equals = [duplicates.Equals(tuple(classes), *numbers) for classes, *numbers in stored.facts["equal"]]
    yield from duplicates.told(equals, stored.names.__getitem__, split_of.__getitem__)
    depths, largest = stored.facts["depths"], stored.facts["largest"]
    if options.bits and not stored.facts["deep"]:
        raise DataError(f"dataset.bits has no effect: no image of {options.path} has values of 16 bits; remove it")
    fewer = next((bits for bits in FEW_BITS if largest < 1 << bits), None)
    if (number := depths.get("16 bits")) and fewer:
        images = "its only 16-bit image" if number == 1 else f"its {number} 16-bit images"
        yield (
            f"no value of {images} passes {(1 << fewer) - 1}, so they are nearly black: if they have {fewer} "
            f"significant bits, set dataset.bits: {fewer}"
        )
    if (low := depths.get("low bits")) and (high := depths.get("high bits")):
        yield (
            f"{low} of the images that name fewer bits than 16 seem to have them as the lowest, {high} as the highest: "
            "set dataset.bits (16: as they are)"
        )


def _shared_names(names: Sequence[str], split_of: Sequence[str]) -> Iterator[str]:
    """Yield class names in two splits: accuracy on classes of the training is not few-shot accuracy."""
    own = {split: set() for split in SPLITS}
    for name, split in zip(names, split_of, strict=True):
        own[split].add(name.removeprefix(f"{split}/"))
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(own[one] & own[other]):
            yield (
                f"{one}/ and {other}/ both have {first_of(both, 3)}; the splits of a few-shot dataset have "
                "different classes"
            )


class _Decoder:
    """Decode the images of a folder, or take them from former copies in the cache, and note what is seen."""

    def __init__(self, options: ImageFolderOptions, classes: Classes):
        self.options = options
        self.names = tuple(name for name, _ in classes)
        self.counts = [len(paths) for _, paths in classes]
        self.paths = [path for _, paths in classes for path in paths]
        self.shape = (options.image_size, options.image_size, options.channels)
        self.files = np.zeros(len(self.paths), FILE)
        self.damaged: list[str] = []

    def prepared(self) -> cache.Prepared:
        """Return the input of the cache; its images are read when they are taken."""
        return cache.Prepared(self._images(), np.asarray(self.counts), self.names, self._facts)

    def _images(self) -> Iterator[np.ndarray]:
        former, at_once = _former(self.options), max(8, min(AT_ONCE, DECODED // max(1, math.prod(self.shape))))
        empty = np.zeros(self.shape, np.uint8)
        with (
            warnings.catch_warnings(),  # not in the threads: it is for the whole process
            ThreadPoolExecutor() as pool,
            Bar(f"reading {self.options.path}", len(self.paths)) as bar,
        ):
            warnings.simplefilter("ignore")
            try:
                for start in range(0, len(self.paths), at_once):
                    rows = range(start, min(start + at_once, len(self.paths)))
                    for row, (image, file) in zip(
                        rows, pool.map(lambda row: self._read(row, former), rows), strict=True
                    ):
                        yield empty if file is None else image
                        if file is None:
                            self.damaged.append(image)
                        else:  # the image is written
                            self.files[row] = file
                    bar.advance(len(rows))
            finally:
                pool.shutdown(cancel_futures=True)  # after a request to stop: those that wait
        if self.damaged:
            heading = (
                f"{self.options.path}: {len(self.damaged)} of {len(self.paths)} images cannot be read; the others are "
                "kept, so that only what changes is read again"
            )
            raise DataError(listed(heading, self.damaged))

    def _read(self, row: int, former: Former) -> tuple[Any, Any]:
        """Return the pixels of an image and what is noted of it; or a message and None for one that is damaged."""
        path, options = self.paths[row], self.options
        try:
            key = _key(path, options.path)
            if key in former:
                images, files, number = former[key]
                return images[number], files[number]
            size = None if options._binary else self.shape[:2]
            image = decode.read(path, size, options.channels, options.bits)
        except DataError as error:
            return str(error), None
        except OSError as error:  # it went away after the folder was listed
            return f"{path} cannot be read: {error.strerror}", None
        pixels, depth = image.pixels, decode.DEPTHS.index(image.depth)
        if options._binary:
            height, width, channels = self.shape
            pixels = converted(pixels, Preprocessing(height=height, width=width, channels=channels, binary=True))
        return pixels, (key, duplicates.digest_of(pixels), image.largest, depth, image.frames, True)

    def _facts(self) -> dict[str, Any]:
        options, files = self.options, self.files
        whole = bool(files["read"].all())
        depths = Counter(decode.DEPTHS[depth] for depth in files["depth"].tolist())
        unclear = files["largest"][files["depth"] == decode.DEPTHS.index("16 bits")]
        return {
            "folder": str(options.path),
            "decoding": decoding(options),
            "options": {"path": str(options.path), **options.model_dump(mode="json", exclude={"path", "in_memory"})},
            "unfinished": not whole,
            "frames": int(files["frames"].sum()),
            "depths": dict(depths),
            "deep": int((files["largest"] > 0).sum()),
            "largest": int(unclear.max(initial=0)),
            "equal": duplicates.find(files["pixels"], self.counts) if whole else [],
            "files": base64.b64encode(files.tobytes()).decode(),
        }


def _key(path: Path, folder: Path) -> bytes:
    """Return a digest of an image's path below the folder, its size and its time."""
    facts = path.stat()
    text = f"{os.path.relpath(path, folder)}/{facts.st_size}/{facts.st_mtime_ns}"
    return hashlib.blake2b(os.fsencode(text), digest_size=16).digest()


def _former(options: ImageFolderOptions) -> Former:
    """Return the images of the folder that the cache holds, decoded in the same way, by their keys."""
    found: Former = {}
    for name, facts in _copies(options):
        if stored := cache.read(name):
            files = np.frombuffer(base64.b64decode(facts["files"]), FILE)
            rows = np.flatnonzero(files["read"])
            keys = files["key"][rows].tolist()
            found.update((key, (stored.images, files, row)) for key, row in zip(keys, rows.tolist(), strict=True))
    return found


def _copies(options: ImageFolderOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and facts of each copy of the folder in the cache whose images were decoded in the same way."""
    for name, record in cache.described("imagefolder-"):
        if record["facts"].get("decoding") == decoding(options):
            yield name, record["facts"]
