"""An event loop whose clock leaps: when every task waits, time jumps to the next timer. Seconds cost microseconds."""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

PROCESS: ContextVar[str] = ContextVar("process", default="")
"""The simulated process that a task belongs to; tasks that it starts inherit it. "" is nobody's."""

_CANCELLED_TO_SWEEP = 512


class Deadlock(RuntimeError):
    """Every task waits and no timer is set: nothing can ever happen again."""


class _Soon(asyncio.Handle):
    """asyncio's handle without its debugging, which costs more than most callbacks here."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: VirtualLoop, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled, self._repr, self._source_traceback = False, None, None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class _Later(asyncio.TimerHandle):
    """The same for a timer."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: VirtualLoop, context: Context | None) -> None:
        _Soon.__init__(self, callback, args, loop, context)  # type: ignore[arg-type]
        self._when, self._scheduled = when, True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]


class VirtualLoop(asyncio.SelectorEventLoop):
    """The standard loop on virtual time. Threads and sockets do not belong on it.

    Timers of the same moment run in the order in which they were set. A process may be frozen, as SIGSTOP does: what its
    tasks would do is put off until it thaws, while time and all others go on.
    """

    _ready: deque[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now_s = 0.0
        self._timers: list[tuple[float, int, Any]] = []
        self._num_timers = self._num_cancelled = 0
        self._frozen: dict[str, list[Any]] = {}

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._now_s

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        """See asyncio."""
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = _Later(when, callback, args, self, context)
        self._num_timers += 1
        heapq.heappush(self._timers, (when, self._num_timers, timer))
        return timer

    def freeze(self, process: str) -> None:
        """Stop a process in mid-step."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: str) -> None:
        """Let a process go on; all that it missed happens to it now."""
        self._ready.extend(self._frozen.pop(process, ()))

    def _timer_handle_cancelled(self, handle: Any) -> None:
        if not handle._scheduled:
            return
        self._num_cancelled += 1
        if self._num_cancelled > max(_CANCELLED_TO_SWEEP, len(self._timers) // 2):
            self._timers = [item for item in self._timers if not item[2]._cancelled]
            heapq.heapify(self._timers)
            self._num_cancelled = 0

    def _run_once(self) -> None:
        """One turn of the loop, in place of asyncio's own, whose selector and timers cost more than most callbacks here."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)[2]._scheduled = False
            self._num_cancelled -= 1
        if not ready and not self._stopping:
            if not timers:
                raise Deadlock("all tasks wait and no timer is set")
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._frozen and (put_off := self._frozen.get(handle._context.get(PROCESS, ""))) is not None:
                put_off.append(handle)
                continue
            handle._run()


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
