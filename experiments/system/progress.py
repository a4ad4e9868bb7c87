"""Show the progress of long work: a bar on a terminal, a plain line every 30 seconds in a batch log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from .atomic import write_json_atomic

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_FILES = 5.0


class Progress:
    """A progress display on standard error, with rate and time left.

    It is a context manager; `advance` counts on inside its block.
    """

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "step", file: Path | None = None):
        """Start to count.

        Args:
            label: text in front of the counts.
            total: units of the whole work.
            done: units that were done before this process.
            unit: name of a unit, in the singular.
            file: JSON file that keeps the counts and the rate for other processes, such as `metarun status`.
        """
        self.file, self.next_file = file, 0.0
        self.label, self.total, self.unit = label, total, unit
        self.terminal = sys.stderr.isatty()
        self.start, self.first = time.monotonic(), done
        self.done, self.next_line = done, self.start + SECONDS_BETWEEN_LINES
        self.bar = tqdm(
            total=total, initial=done, desc=label, unit=unit, disable=not self.terminal, delay=2, dynamic_ncols=True
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        self._write()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done, and show `note` beside the rate."""
        self.done += count
        self.bar.update(count)
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        if not self.terminal and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._line(note)
        if time.monotonic() >= self.next_file:
            self.next_file = time.monotonic() + SECONDS_BETWEEN_FILES
            self._write()

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        tqdm.write(text, file=sys.stderr)

    @property
    def rate(self) -> float:
        """Return the units per second that this process has done."""
        return (self.done - self.first) / (time.monotonic() - self.start)

    def _write(self) -> None:
        if self.file:
            write_json_atomic(self.file, {"done": self.done, "total": self.total, "per_second": self.rate})

    def _line(self, note: str) -> None:
        rate = self.rate
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        beside = f", {note}" if note else ""
        self.say(f"{self.label}: {self.done}/{self.total} {self.unit}s, {rate:.2f}/s, {left} left{beside}")
