"""Stop a command on a signal: between two steps, or at once where nothing is lost.

A stop that was requested is never forgotten. The handler notes it, and raises KeyboardInterrupt only inside `at_once`.
Everywhere else the work looks at it between two steps, with `check`. An exception of a handler is not enough by itself:
Python drops those that are raised inside a finalizer or the callback of a weak reference, and TensorFlow, while it is
imported or traces a program, is full of both.

The command imports this module first, so it imports nothing that takes long before it is needed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import Interrupted

# batch systems send any of these; SIGHUP comes when a terminal is closed
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SECONDS_TO_RETRY = 0.05  # after a signal inside an import or a finalizer, where no exception may be raised


class When(Enum):
    """Hold the moment at which a signal stops the work."""

    AT_ONCE = "at once"
    CHECKED = "at the next `check`"
    HELD = "never: the work looks at `requested`"


class _Process:
    """Hold the state of this process: its blocks, and the first signal that has come."""

    def __init__(self) -> None:
        self.blocks: list[StopSignal] = []  # the outermost first
        self.requested: signal.Signals | None = None  # the first signal
        self.when = When.CHECKED
        self.importing = False  # and nothing else has begun
        self.standard_error = 2  # descriptor, which `import_tensorflow` does not silence
        self.farewell: Callable[[], object] | None = None  # called before a signal ends the process at once


_process = _Process()


class StopSignal:
    """Let the signals of STOPPING stop the work of a block, with Interrupted, at the next `check`.

    Blocks may be nested: the outermost one installs the handler, and all know of the same signal. SIGHUP stays ignored
    if it was when the block began (`nohup`). A second SIGINT raises KeyboardInterrupt wherever it comes.
    """

    def __init__(self, then: str = "from the newest checkpoint") -> None:
        """Prepare the block.

        Args:
            then: where the same command resumes, for the message of Interrupted; "" if there is nothing to resume.
        """
        self.then = then
        self._former: Mapping[signal.Signals, object] = {}

    def __enter__(self) -> StopSignal:
        outermost = not _process.blocks
        if outermost:
            _process.requested, _process.when = None, When.CHECKED
        former = {
            number: signal.signal(number, _handle)  # in inner blocks again: TensorFlow takes SIGTERM when workers join
            for number in STOPPING
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        if outermost:
            self._former = former
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # see `postponed`
        _process.blocks.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _process.blocks.remove(self)
        for number, handler in self._former.items():
            signal.signal(number, handler or signal.SIG_DFL)  # pyright: ignore[reportArgumentType]
        if isinstance(error, KeyboardInterrupt) and _process.requested:
            raise _interrupted(self.message) from None

    @property
    def requested(self) -> bool:
        """Return whether a signal has come."""
        return _process.requested is not None

    @property
    def message(self) -> str:
        """Return the line for the user: the signal, and where the same command resumes."""
        by = f"stopped by {_process.requested.name}" if _process.requested else "stopped"
        return f"{by}; the same command resumes {self.then}" if self.then else by

    @contextmanager
    def held(self, holding: bool = True) -> Iterator[None]:
        """Defer signals inside the block: they set `requested`, and `check` does not raise.

        `held(False)` lets `check` raise again.
        """
        with _during(When.HELD if holding else When.CHECKED):
            check()
            yield

    def check(self) -> None:
        """Raise Interrupted if a signal has come, unless signals are `held`."""
        check()


def check() -> None:
    """Raise Interrupted if a signal has come. Does nothing where signals are `held`, or outside any StopSignal."""
    if _process.when is not When.HELD and (message := stopped()):
        raise _interrupted(message)


@contextmanager
def at_once() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt inside the block, wherever it is.

    It is for Python code that takes long and leaves nothing half done: reading, downloading and decoding data.
    """
    with _during(When.AT_ONCE):
        check()
        yield
    check()


def stopped() -> str:
    """Return the line for the user about the signal that has come, or "" if none has."""
    return _process.blocks[-1].message if _process.blocks and _process.requested else ""


def check_from_now_on() -> None:
    """Let `check` alone raise until the block around ends."""
    _process.when = When.CHECKED


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Let a first signal end the process of a command inside the block: a long import, with no other work begun."""
    _process.importing = len(_process.blocks) == 1
    try:
        yield
    finally:
        _process.importing = False
    check()


def say_before_end(farewell: Callable[[], object] | None) -> None:
    """Set what is called before a signal ends the process at once; None: nothing."""
    _process.farewell = farewell


@contextmanager
def postponed() -> Iterator[None]:
    """Keep signals back inside the block. A process that is started in it gets them in its first StopSignal."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise it starts with the first process, and lets SIGINT and SIGTERM through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin() -> None:
    """Start to note signals, until the end of this process, the process of a command.

    As soon as SIGINT follows another signal the process ends, also while the main thread is in a long call. Files are
    then whole or as they were before, as after SIGKILL. A first signal ends it where nothing has begun.
    """
    if _process.blocks:
        return
    StopSignal(then="").__enter__()
    _process.standard_error = os.dup(2)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(reader,), name="signals", daemon=True).start()


def _end(reader: int) -> None:
    came = False
    while numbers := os.read(reader, 64):
        for number in filter(STOPPING.__contains__, numbers):
            if came and number == signal.SIGINT or _process.importing:
                text = "interrupted" if came else f"stopped by {signal.Signals(number).name}"
                with suppress(OSError):
                    os.write(_process.standard_error, f"{text}\n".encode())
                    (_process.farewell or (lambda: None))()
                os._exit(128 + signal.SIGINT)
            came = True


def _interrupted(message: str) -> Interrupted:
    from ..errors import Interrupted

    return Interrupted(message)


@contextmanager
def _during(when: When) -> Iterator[None]:
    """Set when signals stop the work, inside the block."""
    before, _process.when = _process.when, when
    try:
        yield
    finally:
        _process.when = before


def _handle(number: int, frame: FrameType | None) -> None:
    """Store the first signal, and raise KeyboardInterrupt where it may be raised, or for a second SIGINT."""
    again = _process.requested is not None and number == signal.SIGINT
    if number != signal.SIGALRM:
        _process.requested = _process.requested or signal.Signals(number)
    if again:
        raise KeyboardInterrupt
    if _process.when is When.AT_ONCE and _process.blocks:
        if _loses_exceptions(frame):
            signal.signal(signal.SIGALRM, _handle)
            signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_RETRY)
        else:
            raise KeyboardInterrupt


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Return whether an exception in this frame may be dropped, or break what cannot be repeated: an import."""
    while frame:
        code = frame.f_code
        if code.co_name == "__del__" or any(name in code.co_filename for name in ("importlib._bootstrap", "weakref")):
            return True
        frame = frame.f_back
    return False
