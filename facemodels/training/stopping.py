"""Ctrl-C and the signal of a scheduler, heard at the end of a step."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO_SECONDS = 2.0  # launchers pass on a Ctrl-C that their processes have got already


class StopRequest:
    """Within this context SIGINT and SIGTERM set `wanted`; who asks again, seconds later, stops at once.

    Attributes:
        wanted: Whether a signal came.
        ending: The process ends by itself: a SIGTERM after the context must not cut off its last words.
    """

    def __init__(self) -> None:
        self.wanted = self.ending = False
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.ending and number == signal.SIGTERM else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.wanted and now - self._first > _ECHO_SECONDS:
            raise KeyboardInterrupt
        if not self.wanted:
            self.wanted, self._first = True, now
