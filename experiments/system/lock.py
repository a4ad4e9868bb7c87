"""Lock files between processes, on this host or on hosts that share the disk.

A lock ends with the process that holds it, so a killed process leaves none behind.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ...datasets.sharing import make_folder, share
from ..errors import RunError
from .atomic import naming

PATIENCE = 1.0  # seconds to wait: `holder` takes the lock briefly to test it


class Held(Exception):
    """Report that another process holds the lock. The message names that process."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` inside the block, and write this process and host into it.

    The file and its folder are made if they are missing.

    Raises:
        Held: another process holds the lock.
        RunError: the disk has no locks, or the file is another user's who shares the folder with nobody.
    """
    with _opened(path, PATIENCE) as file:
        with naming(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


@contextmanager
def waited(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` inside the block; wait while another process holds it.

    Raises:
        RunError: the disk has no locks, or the file is another user's who shares the folder with nobody.
    """
    with _opened(path, math.inf):
        yield


def _opened(path: Path, patience: float) -> TextIO:
    """Return the open, locked file at `path`, after at most `patience` seconds.

    A lock does not count if its folder was renamed meanwhile: the file that is now at `path` is opened instead. One
    that only another member of the group may write is replaced, once it is locked.
    """
    give_up = time.monotonic() + patience
    while True:
        make_folder(path.parent)
        file = _file(path)
        try:
            if patience == math.inf:
                _flock(file, fcntl.LOCK_EX)
            while not _taken(file, fcntl.LOCK_EX):
                if time.monotonic() > give_up:
                    file.seek(0)
                    raise Held(file.read().strip() or "another process")
                time.sleep(0.05)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                if file.writable():
                    return file
                path.unlink()
        except PermissionError:
            file.close()
            raise RunError(f"{path} belongs to another user: let the group write its folder (chmod g+w)") from None
        except BaseException:
            file.close()
            raise
        file.close()


def _file(path: Path) -> TextIO:
    """Open a lock file, for reading alone if another user made it and nobody else may write it."""
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except PermissionError:
        if not path.exists():  # the folder is that of another user
            raise
        return open(path, encoding="utf-8")
    share(path)
    return file


def holder(path: Path) -> str | None:
    """Return the process that holds the lock, as "process N on HOST".

    Returns None if no process holds it, or if the disk has no locks.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return None if _taken(file, fcntl.LOCK_SH) else file.read().strip() or "another process"
    except (FileNotFoundError, RunError):
        return None


def _taken(file: TextIO, kind: int) -> bool:
    """Try to lock the file, without waiting, and return whether that succeeded."""
    try:
        _flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(file: TextIO, kind: int) -> None:
    """Lock the file; raises RunError for a disk that has no locks."""
    try:
        fcntl.flock(file.fileno(), kind)
    except BlockingIOError:
        raise
    except OSError as error:  # Lustre without -o flock, NFS without lockd
        raise RunError(
            f"{file.name} cannot be locked ({error.strerror}): choose an --out on a disk with locks"
        ) from None
