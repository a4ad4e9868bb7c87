"""`metarun` in a fresh process that imports everything itself, interrupted at a moment of its start."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def interrupted(arrived: Callable[[Path], bool], seconds: float, *arguments: object) -> subprocess.CompletedProcess:
    """Send SIGINT to `metarun ARGUMENTS` some seconds after it has arrived somewhere, and wait for its end.

    `arrived` gets the folder of the process below /proc.
    """
    command = [sys.executable, "-m", "metarun.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not arrived(Path(f"/proc/{process.pid}")):
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, *printed)


def began(process: Path) -> bool:
    """Return whether the process has a handler of SIGTERM, which it has from the first line of the command on."""
    caught = next(line for line in _read(process / "status").splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def imports_tensorflow(process: Path) -> bool:
    """Return whether the process has begun to load TensorFlow's library."""
    return "libtensorflow" in _read(process / "maps")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return "SigCgt: 0"


def stopped() -> None:
    """Check for a signal, as the first thing that a process does."""
    from metarun.experiments.errors import Interrupted
    from metarun.experiments.system.signals import StopSignal, check

    try:
        with StopSignal():
            check()
    except Interrupted as error:
        sys.exit(error.code)
