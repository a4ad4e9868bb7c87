"""The files of a folder, a zip or a tar under one interface. Nothing is extracted, and no name becomes a path."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ..errors import DataError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
DEEPEST = 6  # levels of folders that are looked into
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted zip; NotImplementedError of unknown methods, RecursionError of odd headers
    zlib.error,
    lzma.LZMAError,
)


class Box(NamedTuple):
    """Hold the files of a folder or an archive."""

    path: Path
    names: Sequence[str]  # of regular files, with the folders inside; of an archive in its own order
    open: Callable[[str], IO[bytes]]  # of a name
    is_folder: bool

    def where(self, name: str) -> str:
        """Return the place of a file, for messages."""
        return str(self.path / name) if self.is_folder else f"{self.path}: {name}"

    def beside(self, name: str, other: str) -> str | None:
        """Return the name of the file `other` in the folder of `name`; None if there is none."""
        found = str(PurePosixPath(name).with_name(other))
        return found if found in self.names else None


def is_archive(name: str) -> bool:
    """Return whether a file's name ends like that of a zip or a tar."""
    return name.lower().endswith(ARCHIVES)


@contextmanager
def opened(path: Path) -> Iterator[Box]:
    """Open a folder or an archive. Use it inside a generator: only then are errors inside the block those of reading.

    A file that is no archive is a folder of which all other files are left out, but for those that it needs.

    Raises:
        DataError: There is nothing at `path`, or it is an archive that cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_dir():
        yield _folder(path)
    elif not is_archive(path.name):
        yield _folder(path.parent, levels=1)
    else:
        is_zip = path.suffix.lower() == ".zip"
        try:
            if is_zip:
                with zipfile.ZipFile(path) as archive:
                    yield Box(path, [each.filename for each in archive.infolist() if not each.is_dir()],
                              archive.open, False)  # fmt: skip
            else:
                with tarfile.open(path) as archive:
                    members = {each.name.removeprefix("./"): each for each in archive.getmembers() if each.isfile()}
                    yield Box(path, list(members), lambda name: archive.extractfile(members[name]), False)  # pyright: ignore
        except UNREADABLE as error:
            kind, reason = "zip" if is_zip else "tar", " ".join(str(error).split())  # one line per compression
            raise DataError(f"{path} is not a readable {kind} archive ({reason}): copy it again") from None


def _folder(path: Path, levels: int = DEEPEST) -> Box:
    names = sorted(_files(path, "", levels))
    return Box(path, names, lambda name: open(path / name, "rb"), True)


def _files(folder: Path, prefix: str, levels: int) -> Iterator[str]:
    """Yield the names of the files in a folder and the folders in it; links are followed, hidden ones are not read."""
    try:
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file():
                    yield prefix + entry.name
                elif levels and entry.is_dir():
                    yield from _files(folder, f"{prefix}{entry.name}/", levels - 1)
    except OSError as error:
        raise DataError(f"{folder / prefix} cannot be read: {error.strerror}") from None
