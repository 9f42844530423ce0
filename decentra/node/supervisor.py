"""Keeps the trainer process alive beside the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from decentra.node.trainer_port import ProcessTrainer

RESTART_AFTER_S = 2.0
GIVE_UP_AFTER = 5
LIVED_WELL_S = 60.0
"""A trainer that lived this long died of something new: the count of deaths starts again."""
END_S = 1.5


class Supervisor:
    """Starts the trainer, starts it again from shared state when it dies, ends it with the daemon."""

    def __init__(self, port: ProcessTrainer, num_threads: int, log: Path, note: Callable[[str], None]) -> None:
        self._port, self._threads, self._log, self._note = port, num_threads, log, note
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The trainer that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        deaths = 0
        while deaths < GIVE_UP_AFTER:
            born_s = time.monotonic()
            try:
                code = await self._live_once()
            except OSError as error:
                self._note(f"the trainer cannot be started ({error}); this node serves on without training")
                return
            if self._port.stopping:
                return
            deaths = 1 if time.monotonic() - born_s > LIVED_WELL_S else deaths + 1
            self._note(f"the trainer died with code {code} (see {self._log}); restart {deaths} of {GIVE_UP_AFTER} from shared state")
            self._port.trainer_lost()
            await asyncio.sleep(RESTART_AFTER_S)
        self._note(f"the trainer died {GIVE_UP_AFTER} times; this node serves on without training; its log is {self._log}")

    def _command(self) -> list[str]:
        """Module and arguments of the trainer, but for where its daemon's sockets are."""
        return ["decentra.cli.main", "trainer"]

    async def _live_once(self) -> int:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command(),
                *("--folder", str(self._port.folder)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                start_new_session=True,
            )
        return await self._process.wait()

    async def close(self) -> None:
        """End the trainer: it was told to stop; soon after it is ended."""
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=END_S)
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._task.cancel()
        await asyncio.wait({self._task})
