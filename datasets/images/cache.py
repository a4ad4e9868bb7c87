"""Prepared datasets on the disk: an array of images and a JSON text that describes them.

The first process that needs a dataset prepares it under a lock; the others wait and read it. Files are written beside
their final name, checked and renamed, so a file with its final name is complete. If a size does not match, the file was
damaged and the dataset is prepared again. The digest is for `metarun data verify`, which reads every byte.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..sharing import share

FORMAT = 1
PARTS = {  # dataset -> names of its prepared parts
    "omniglot": ("omniglot",),
    "miniimagenet": ("miniimagenet-train", "miniimagenet-val", "miniimagenet-test"),
}


class Prepared(NamedTuple):
    """The input of the cache: images of all classes, class after class, and facts about them."""

    images: Iterable[np.ndarray]  # N x [H, W, C] uint8, taken one by one: all of them need not fit in memory
    counts: np.ndarray  # [classes] images of each class
    names: tuple[str, ...]  # one per class
    facts: dict[str, Any]  # JSON-able


class Stored(NamedTuple):
    """A dataset read from the cache."""

    images: np.ndarray  # [N, H, W, C] uint8, memory-mapped
    counts: np.ndarray  # [classes]
    names: tuple[str, ...]
    facts: dict[str, Any]
    digest: str  # SHA-256 of shape and pixels


def folder() -> Path:
    """Return the folder of the cache: METARUN_CACHE, or the user's cache directory on this platform."""
    if given := os.environ.get("METARUN_CACHE"):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("metarun"))


def load(name: str, prepare: Callable[[], Prepared]) -> Stored:
    """Return the prepared dataset `name` from the cache; fill the cache with `prepare()` first if it is absent.

    Raises:
        DataError: The cache cannot be written or locked, or `prepare` raises it.
    """
    if found := read(name):
        return found
    with locked(name):
        found = read(name)  # another process may have been faster
        if found is None:
            store(name, prepare())
            found = read(name)
    if found is None:
        raise DataError(f"{array_path(name)} cannot be read back after writing: check the disk")
    return found


def read(name: str) -> Stored | None:
    """Return the cached dataset, or None if there is none; warn of a damaged one on standard error."""
    description, array = description_path(name), array_path(name)
    if not description.exists():
        return None
    try:
        record = json.loads(description.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            return None
        if array.stat().st_size != record["bytes"]:
            raise ValueError(f"{array.stat().st_size} bytes instead of {record['bytes']}")
        images = np.load(array, mmap_mode="r", allow_pickle=False)
        counts = np.asarray(record["counts"], np.int64)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != counts.sum():
            raise ValueError("the array does not match its description")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"warning: {array} is damaged ({error})", file=sys.stderr)
        return None
    return Stored(images, counts, tuple(record["names"]), record["facts"], record["digest"])


def store(name: str, prepared: Prepared) -> None:
    """Write a prepared dataset into the cache.

    Raises:
        DataError: The disk is full, or the cache cannot be written.
    """
    try:
        array = array_path(name)
        array.parent.mkdir(parents=True, exist_ok=True)
        for left in (*array.parent.glob(f".{name}.npy.*"), *array.parent.glob(f".{name}.json.*")):
            left.unlink(missing_ok=True)  # by a process that was killed: this one has the lock
        temporary = array.with_name(f".{array.name}.{os.getpid()}")
        try:
            digest = _write(temporary, prepared.images, int(prepared.counts.sum()))
            record = {
                "format": FORMAT,
                "bytes": temporary.stat().st_size,
                "digest": digest,
                "counts": prepared.counts.tolist(),
                "names": list(prepared.names),
                "facts": prepared.facts,
            }
            temporary.replace(array)
        finally:
            temporary.unlink(missing_ok=True)
        text = description_path(name).with_name(f".{name}.json.{os.getpid()}")
        text.write_text(json.dumps(record), encoding="utf-8")
        text.replace(description_path(name))
    except OSError as error:
        raise DataError(disk_message(error)) from None


def _write(path: Path, images: Iterable[np.ndarray], number: int) -> str:
    """Write `number` images to an array file and return their digest.

    A memory map is not used, because a full disk would then crash the process.
    """
    images = iter(images)
    first = next(images)
    shape = (number, *first.shape)
    digest = _digest_of(shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in chain([first], images):
            pixels = image.astype(np.uint8, casting="equiv").tobytes()
            file.write(pixels)
            digest.update(pixels)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def verify(name: str, found: Stored | None, report: Callable[[int], object] = bool) -> str:
    """Return "absent", "good" or "damaged".

    Args:
        name: The name of the dataset.
        found: The result of `read(name)`.
        report: Called with the number of images read since the last call; every byte is read.
    """
    if found is None:
        return "damaged" if description_path(name).exists() else "absent"
    return "good" if content_digest(found.images, report) == found.digest else "damaged"


def remove(name: str) -> None:
    """Remove a prepared dataset from the cache."""
    description_path(name).unlink(missing_ok=True)
    array_path(name).unlink(missing_ok=True)


def rename(name: str, to: str) -> None:
    """Move a prepared dataset to the name `to`; it replaces a dataset of that name."""
    description_path(to).unlink(missing_ok=True)
    array_path(name).replace(array_path(to))
    description_path(name).replace(description_path(to))


def content_digest(images: np.ndarray, report: Callable[[int], object] = bool) -> str:
    """Return the SHA-256 of shape and pixels; `report` gets the number of images read since its last call."""
    digest = _digest_of(images.shape)
    for start in range(0, len(images), 4096):
        some = images[start : start + 4096]
        digest.update(np.ascontiguousarray(some).tobytes())
        report(len(some))
    return digest.hexdigest()


def _digest_of(shape: tuple[int, ...]):
    return hashlib.sha256(repr(shape).encode())


def array_path(name: str) -> Path:
    """Return the path of the images of a dataset."""
    return folder() / f"{name}.npy"


def description_path(name: str) -> Path:
    """Return the path of the description of a dataset, which is written last."""
    return folder() / f"{name}.json"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of a dataset, so that one process at a time prepares it."""
    path = folder() / f".{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            share(path)
        except PermissionError:  # another user made it, and nobody else may write it
            if not path.exists():
                raise
            handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(disk_message(error)) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # some file systems have no locks
            reason = f"{path} cannot be locked ({error.strerror}): set METARUN_CACHE to a folder on a disk with locks"
            raise DataError(reason) from None
        yield
    finally:
        os.close(handle)


def disk_message(error: OSError) -> str:
    """Return the message for an error of the disk."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
    full[errno.EFBIG] = "a file may not be so large (`ulimit -f`)"
    reason = full.get(error.errno or 0) or error.strerror or error
    return f"cannot write to the cache {folder()}: {reason}; set METARUN_CACHE to a folder with free space"
