"""Steps that must not stop half-way: what has been logged must be applied, a lock must not open while its write runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Moves:
    """Runs such steps: a caller that is cancelled leaves, the step goes on."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        """The result of the step."""
        task = asyncio.ensure_future(step)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def running(self) -> list[asyncio.Task[Any]]:
        """Steps under way."""
        return list(self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task)
        # Seen by whoever waits; where nobody does any more, it is nobody's.
        if not task.cancelled():
            task.exception()
