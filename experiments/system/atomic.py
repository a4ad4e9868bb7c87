"""Write files atomically: after a crash a file is whole, or as it was before."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ...datasets.sharing import make_folder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block that names no file, as those of writing and flushing do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` with `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file in the same folder, which is flushed to the disk and renamed to `path` after the block.

    Folders that are missing are made. If the block raises, or the disk refuses (OSError), `path` stays as it was.
    """
    make_folder(path.parent)
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `write_bytes_atomic`.

    In file names, bytes that are not UTF-8 become backslash escapes.
    """
    write_bytes_atomic(path, text.encode(errors="backslashreplace"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with `write_bytes_atomic`. Raises ValueError for NaN and infinities."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to write to. At the end of the block it is flushed and renamed to `path`.

    An error in the block removes it. Raises FileExistsError if `path` exists at the end.
    """
    make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        for each in temporary.rglob("*"):
            if each.is_file():
                with open(each, "rb") as file:
                    os.fsync(file.fileno())
        temporary.chmod(0o777 & ~_umask())
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush_folder(path.parent)


def drop_unfinished(folder: Path) -> None:
    """Delete temporary files in the folder that a process left which was killed while it wrote. None may write now."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.(json|csv|npz|yaml|txt)\.[a-z0-9_]{8}", path.name):
            path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
