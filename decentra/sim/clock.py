"""An event loop whose clock leaps: when every task waits, time jumps to the next timer. Seconds cost microseconds."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Every task waits and no timer is set: nothing can ever happen again."""


class _LeapingSelector(selectors.SelectSelector):
    """Never waits: asks the clock to leap instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("all tasks wait and no timer is set")
        if timeout > 0.0:  # late in a long run a short wait is less than one step of the clock's float
            self.now_s = max(self.now_s + timeout, math.nextafter(self.now_s, math.inf))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The standard loop on virtual time. Threads and sockets do not belong on it."""

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._leaping.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
