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
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..sharing import make_folder, share

FORMAT = 1
BY_SPLIT = ("miniimagenet", "tieredimagenet", "cifar-fs", "fc100")  # each split is a part of its own
PARTS = {  # dataset -> names of its prepared parts
    "omniglot": ("omniglot",),
    "lake-one-shot": ("lake-one-shot",),
    **{name: tuple(f"{name}-{split}" for split in ("train", "val", "test")) for name in BY_SPLIT},
    "cub": ("cub",),
    "emnist": ("emnist",),
}
FETCHED = ("omniglot", "lake-one-shot", "cifar-fs", "fc100", "emnist")  # datasets with a public address


class Prepared(NamedTuple):
    """Hold the input of the cache: images of all classes, class after class, and facts about them."""

    images: Iterable[np.ndarray]  # N x [H, W, C] uint8, taken one by one: all of them need not fit in memory
    counts: np.ndarray  # [classes] images of each class
    names: tuple[str, ...]  # one per class
    facts: dict[str, Any] | Callable[[], dict[str, Any]]  # JSON-able; a function is called after the last image


class Stored(NamedTuple):
    """Hold a dataset read from the cache."""

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


def load(name: str, prepare: Callable[[], Prepared], unfinished: str = "") -> Stored:
    """Return the prepared dataset `name` from the cache; fill the cache with `prepare()` first if it is absent.

    Args:
        name: The name of the dataset.
        prepare: Called under a lock, by one process at a time.
        unfinished: The name under which a preparation that fails or is stopped is kept; "": it is lost.

    Raises:
        DataError: The cache cannot be written or locked, or `prepare` raises it.
    """
    if found := read(name):
        return found
    with locked(name):
        found = read(name)  # another process may have been faster
        if found is None:
            store(name, prepare(), unfinished)
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
        images = _mapped(array, record["bytes"])
        counts = np.asarray(record["counts"], np.int64)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != counts.sum():
            raise ValueError("the array does not match its description")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"warning: {array} is damaged ({error})", file=sys.stderr)
        return None
    return Stored(images, counts, tuple(record["names"]), record["facts"], record["digest"])


def _mapped(array: Path, size: int) -> np.memmap:
    """Return a file of `size` bytes as a memory map.

    A shared lock on the file tells `discard` that it is in use. The map keeps the file open, and so the lock, until no
    array looks at it.
    """
    with open(array, "rb") as file:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_SH)
        if not _is_at(file.fileno(), array):  # discarded before the lock was held
            raise FileNotFoundError(f"{array} is gone")
        if os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{os.fstat(file.fileno()).st_size} bytes instead of {size}")
        np.lib.format.read_magic(file)
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        return np.memmap(file, kind, "r", file.tell(), shape)


def store(name: str, prepared: Prepared, unfinished: str = "") -> None:
    """Write a prepared dataset into the cache.

    If `prepared.images` raises an error, what it had given is kept under the name `unfinished`, the other rows are 0.

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
            _publish(temporary, name, prepared, digest)
        except OSError:
            raise
        except BaseException:
            if unfinished and temporary.exists():
                _publish(temporary, unfinished, prepared, digest="")
            raise
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(disk_message(error)) from None


def _publish(temporary: Path, name: str, prepared: Prepared, digest: str) -> None:
    """Give a file of images its name, and write its description."""
    record = {
        "format": FORMAT,
        "bytes": temporary.stat().st_size,
        "digest": digest,
        "counts": prepared.counts.tolist(),
        "names": list(prepared.names),
        "facts": prepared.facts() if callable(prepared.facts) else prepared.facts,
    }
    temporary.replace(array_path(name))
    _describe(name, record)


def _describe(name: str, record: dict[str, Any]) -> None:
    text = description_path(name).with_name(f".{name}.json.{os.getpid()}")
    text.write_text(json.dumps(record), encoding="utf-8")
    text.replace(description_path(name))


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
        size = file.tell() + math.prod(shape)
        try:
            for image in chain([first], images):
                pixels = image.astype(np.uint8, casting="equiv").tobytes()
                file.write(pixels)
                digest.update(pixels)
        finally:
            file.truncate(size)
            file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def described(prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and description of each prepared dataset whose name begins with `prefix`."""
    for path in sorted(folder().glob(f"{prefix}*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("facts"), dict):
            yield path.stem, record


def note(name: str, **facts: Any) -> None:
    """Write more facts into the description of a prepared dataset, if the cache can be written."""
    with suppress(OSError, ValueError):
        record = json.loads(description_path(name).read_text(encoding="utf-8"))
        record["facts"] |= facts
        _describe(name, record)


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


def discard(name: str) -> bool:
    """Remove a prepared dataset, unless a process reads or prepares it; return whether it was removed."""
    try:
        with locked(name, wait=False), open(array_path(name), "r+b") as file:  # NFS locks what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(name)
            lock_path(name).unlink(missing_ok=True)
    except (DataError, OSError):
        return False
    return True


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


def lock_path(name: str) -> Path:
    """Return the path of the lock file of a dataset."""
    return folder() / f".{name}.lock"


@contextmanager
def locked(name: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a dataset, so that one process at a time prepares it.

    Raises:
        DataError: The lock cannot be made, or, without `wait`, another process holds it.
    """
    path = lock_path(name)
    handle = -1
    try:
        while handle < 0:
            try:
                make_folder(path.parent)
                handle = _opened(path)
            except OSError as error:
                raise DataError(disk_message(error)) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{name} is being prepared by another process") from None
            except OSError as error:  # some file systems have no locks
                raise DataError(
                    f"{path} cannot be locked ({error.strerror}): set METARUN_CACHE to a folder on a disk with locks"
                ) from None
            if not _is_at(handle, path):  # `discard` removed it meanwhile
                os.close(handle)
                handle = -1
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _opened(path: Path) -> int:
    """Open a lock file, also one that another user made and nobody else may write."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        share(path)
        return handle
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def disk_message(error: OSError) -> str:
    """Return the message for an error of the disk."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
    full[errno.EFBIG] = "a file may not be so large (`ulimit -f`)"
    reason = full.get(error.errno or 0) or error.strerror or error
    return f"cannot write to the cache {folder()}: {reason}; set METARUN_CACHE to a folder with free space"
