"""Stop a run on a signal: between two steps, or at once where nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from ..errors import Interrupted

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # batch systems send any of them


class StopSignal:
    """A handler of the signals of STOPPING, while its block runs.

    The first signal sets `requested` and raises Interrupted. Inside `held` it only sets `requested`. A second SIGINT
    raises KeyboardInterrupt at once.
    """

    def __init__(self, then: str = "from the newest checkpoint") -> None:
        """Prepare the handler.

        Args:
            then: where the same command resumes, for the message of Interrupted.
        """
        self.then = then
        self.requested = self.holding = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in STOPPING:
            self._former[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    @contextmanager
    def held(self, holding: bool = True) -> Iterator[None]:
        """Defer signals inside the block: they set `requested` and do not raise.

        `held(False)` lets them raise again.
        """
        before, self.holding = self.holding, holding
        try:
            if not holding:
                self.check()
            yield
        finally:
            self.holding = before

    def check(self) -> None:
        """Raise Interrupted if a stop was requested inside `held`."""
        if self.requested:
            raise Interrupted(f"stopped; the same command resumes {self.then}")

    def _request(self, number: int, frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if first and not self.holding:
            raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command resumes {self.then}")
