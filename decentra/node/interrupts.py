"""Ctrl-C and SIGTERM of a node, from the first line of its life to the last."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The first signal calls `first`, by default `cancel`; a second one `cancel`; more change nothing. Use as a context."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self.first = self.cancel = cancel
        self.seen = 0

    def __enter__(self) -> Interrupts:
        for number in NUMBERS:
            asyncio.get_running_loop().add_signal_handler(number, self._came)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Handlers stay: a signal while the process ends must not cut that short. They go with the loop."""
        logging.disable(logging.NOTSET)

    def _came(self) -> None:
        self.seen += 1
        # A terminal's Ctrl-C ends p2pd too, and its client then complains of lost connections: nobody needs to read that.
        logging.disable(logging.ERROR)
        asyncio.get_running_loop().set_exception_handler(_is_expected)
        if self.seen == 1:
            self.first()
        elif self.seen == 2 and self.first is not self.cancel:
            self.cancel()


def _is_expected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), ConnectionError):
        logging.disable(logging.NOTSET)
        loop.default_exception_handler(context)
        logging.disable(logging.ERROR)
