"""The standard streams of a command: what becomes of text that nobody can read any more.

A command that works, such as `train`, goes on without a reader; one that only prints, such as `table`, ends.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from typing import Any, TextIO


class _Dropping(io.FileIO):
    """Drop the text of a file where it cannot be written: no reader, no terminal, a full disk."""

    def write(self, data: Any, /) -> int:
        """Write the data, or drop them, and return the number of bytes that are done with."""
        try:
            while (written := super().write(data)) is None:  # another program made the terminal non-blocking
                select.select([], [self], [])
        except OSError:
            return memoryview(data).nbytes
        return written


def open_closed() -> None:
    """Open those of the three standard streams that were closed before the command began, to the null device.

    Otherwise the next file that is opened gets the number of a stream, and messages of libraries would be written into
    it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout, sys.stderr = sys.stdout or text_stream(1), sys.stderr or text_stream(2)


def drop_what_cannot_be_written() -> None:
    """Let the command work on where its output cannot be written, for example because a terminal was closed."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    sys.stdout, sys.stderr = text_stream(1), text_stream(2)


def end_without_reader() -> None:
    """Let the command end quietly where its output cannot be written, as Unix commands do (`metarun table | head`)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def text_stream(descriptor: int) -> TextIO:
    """Return a stream of text that drops what cannot be written.

    Characters that its encoding lacks become backslash escapes.
    """
    raw = _Dropping(descriptor, "w", closefd=descriptor > 2)
    encoding = getattr(sys.__stdout__, "encoding", None)  # that of the locale, or PYTHONIOENCODING
    line_buffering = descriptor != 1 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=line_buffering)
