"""Keeps the trainer process alive beside the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from decentra.node.trainer_port import ProcessTrainer

RESTART_AFTER_S = 2.0
GIVE_UP_AFTER = 5


class Supervisor:
    """Starts the trainer, starts it again from shared state when it dies, ends it with the daemon."""

    def __init__(self, port: ProcessTrainer, num_threads: int, log: Path, note: Callable[[str], None]) -> None:
        self._port, self._threads, self._log, self._note = port, num_threads, log, note
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        for attempt in range(GIVE_UP_AFTER):
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "decentra.cli.main", "trainer", "--folder", str(self._port.folder)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                    start_new_session=True,
                )
            code = await self._process.wait()
            if code == 0:
                return
            self._note(f"the trainer died with code {code} (see {self._log}); restart {attempt + 1} of {GIVE_UP_AFTER} from shared state")
            self._port.trainer_lost()
            await asyncio.sleep(RESTART_AFTER_S)
        self._note(f"the trainer died {GIVE_UP_AFTER} times; this node serves on without training")

    async def close(self) -> None:
        """End the trainer: it was told to stop; after 2 s it is ended."""
        if self._task is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._task), 2.0)
        except TimeoutError:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
            self._task.cancel()
