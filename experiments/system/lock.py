"""Locks between processes, on this host or on those that share the disk; they end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import RunError

PATIENCE = 1.0  # seconds: whoever asks for the holder of a lock has it for a moment


class Held(Exception):
    """Another process has the lock; the message names it."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, made with its folder, and say in it who does; Held where another process does."""
    with _opened(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _opened(path: Path) -> TextIO:
    """The file, locked; that of another folder, where its own was renamed meanwhile, does not count."""
    give_up = time.monotonic() + PATIENCE
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            while not _taken(file, fcntl.LOCK_EX):
                if time.monotonic() > give_up:
                    file.seek(0)
                    raise Held(file.read().strip() or "another process")
                time.sleep(0.05)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def holder(path: Path) -> str | None:
    """Who holds the lock, `process N on HOST`; None where nobody does, or nobody can."""
    try:
        with open(path, encoding="utf-8") as file:
            return None if _taken(file, fcntl.LOCK_SH) else file.read().strip() or "another process"
    except (FileNotFoundError, RunError):
        return None


def _taken(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Lustre without -o flock, NFS without lockd
        raise cannot_lock(file.name, error) from None
    return True


def cannot_lock(path: str, error: OSError) -> RunError:
    """What to say where the disk has no locks."""
    return RunError(f"{path} cannot be locked ({error.strerror}): choose an --out on a disk with locks")
