"""Show how far long work is: a bar on a terminal, a plain line every 30 seconds in the log of a job."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Show progress on standard error, with rate and time left: a context manager; `advance` counts in its block."""

    def __init__(self, label: str, total: int | None, done: int = 0, unit: str = "image"):
        """Start to count.

        Args:
            label: The text in front of the counts.
            total: The units of the whole work; None: not known.
            done: The units that were done before this process.
            unit: The name of a unit, in the singular.
        """
        self.label, self.total, self.unit = label, total, unit
        self.terminal = sys.stderr.isatty()
        self.start, self.first = time.monotonic(), done
        self.done, self.next_line = done, self.start + SECONDS_BETWEEN_LINES
        self.bar = tqdm(
            total=total, initial=done, desc=label, unit=unit, disable=not self.terminal, delay=2, dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done, and show `note` beside the rate."""
        self.done += count
        self.bar.update(count)
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        if not self.terminal and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._line(note)

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        tqdm.write(text, file=sys.stderr)

    @property
    def rate(self) -> float:
        """Return the units per second that this process has done."""
        return (self.done - self.first) / (time.monotonic() - self.start)

    def _line(self, note: str) -> None:
        rate, counts, left = self.rate, f"{self.done}", ""
        if self.total is not None:
            counts += f"/{self.total}"
            left = f", {tqdm.format_interval((self.total - self.done) / rate) if rate else '?'} left"
        beside = f", {note}" if note else ""
        self.say(f"{self.label}: {counts} {self.unit}s, {rate:.2f}/s{left}{beside}")
