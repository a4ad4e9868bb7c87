"""Show the progress of long work, and keep it in a file for other processes."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from ...datasets.images.progress import Bar
from .atomic import write_json_atomic

SECONDS_BETWEEN_FILES = 5.0


class Progress(Bar):
    """Show a `Bar`, whose counts and rate may be in a file too."""

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "step", file: Path | None = None):
        """Start to count.

        Args:
            label: text in front of the counts.
            total: units of the whole work.
            done: units that were done before this process.
            unit: name of a unit, in the singular.
            file: JSON file that keeps the counts and the rate for other processes, such as `metarun status`.
        """
        super().__init__(label, total, done, unit)
        self.file, self.next_file = file, 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._write()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done, and show `note` beside the rate."""
        super().advance(count, note)
        if time.monotonic() >= self.next_file:
            self.next_file = time.monotonic() + SECONDS_BETWEEN_FILES
            self._write()

    def end_here(self) -> None:
        """Take the units that are done for the whole work: no more will come."""
        self.total = self.bar.total = self.done

    def _write(self) -> None:
        if self.file:
            write_json_atomic(self.file, {"done": self.done, "total": self.total, "per_second": self.rate})
