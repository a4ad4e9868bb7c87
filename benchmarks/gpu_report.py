"""The report of gpu.py, the processes that it starts, and the time that is left to them."""

from __future__ import annotations

import copy
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

Command = tuple[Sequence[object], Mapping[str, str], Path | None]  # arguments, variables, folder


class Failed(Exception):
    """Report a process that ended with an error, or too late; its last line."""


class Check:
    """Print the lines and checks of sections, count failures, and hold the time that is left."""

    def __init__(self, minutes: float, small: bool, threads: int):
        """Begin now.

        Args:
            minutes: the time for everything.
            small: whether sizes are those of a CPU.
            threads: the threads of each process; 0: as many as TensorFlow takes.
        """
        self.end, self.small, self.failures = time.monotonic() + 60 * minutes, small, 0
        self.environment = {"TF_NUM_INTRAOP_THREADS": str(threads)} if threads else {}
        self.gpus, self.file = 0, sys.stdout

    def aside(self) -> Check:
        """Return a report that prints into a text of its own, with the same end."""
        other = copy.copy(self)
        other.failures, other.file = 0, io.StringIO()
        return other

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"  {text}", file=self.file, flush=True)

    def check(self, what: str, holds: bool, found: str = "") -> None:
        """Print whether something holds, and count it if not."""
        self.failures += not holds
        self.say(f"{'ok    ' if holds else 'FAILED'} {what}{found and f': {found}'}")

    def left_out(self, what: str, why: object) -> None:
        """Print that something was not done."""
        self.say(f"left out: {what}: {why}")

    def seconds(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.end - time.monotonic())

    def run(self, command: Sequence[object], environment: Mapping[str, str] = {}, cwd: Path | None = None) -> str:
        """Return what a command prints on its standard output. Raises Failed, also where the time is over."""
        (found,) = self.together([(command, environment, cwd)])
        return found

    def all(self, commands: Sequence[Command]) -> None:
        """Run commands, at the same time on a GPU. Raises Failed."""
        for some in [commands] if self.gpus else [[command] for command in commands]:
            self.together(some)

    def together(self, commands: Sequence[Command]) -> list[str]:
        """Return what commands print that run at the same time. Raises Failed."""
        begun = [self.start(*command) for command in commands]
        try:
            told = [process.communicate(timeout=self.seconds()) for process in begun]
        except subprocess.TimeoutExpired:
            raise Failed("no time left") from None
        finally:
            for process in begun:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
        for process, (_, errors) in zip(begun, told, strict=True):
            if process.returncode:
                raise Failed((errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300])
        return [printed for printed, _ in told]

    def start(
        self, command: Sequence[object], environment: Mapping[str, str], cwd: Path | None
    ) -> subprocess.Popen[str]:
        """Start a command in a group of its own."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)], env=os.environ | self.environment | environment, cwd=cwd, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
