"""Write files atomically: after a crash a file is whole, or as it was before."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    """Write `data` to a temporary file in the same folder, flush it to the disk and rename it to `path`.

    Folders that are missing are made. Raises OSError if the disk refuses; `path` then stays as it was.
    """
    make_folder(path.parent)
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
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
