"""The founder's text, built by a process of its own: sentencepiece cannot be interrupted, a process can."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from decentra.config import DataConfig
from decentra.errors import ConfigError, SetupError

T = TypeVar("T")


async def build_text(config: DataConfig, folder: Path) -> None:
    """Build tokenizer and shards in `folder`; cancelled, it leaves nothing half-written. Raises ConfigError, SetupError."""
    was_there = folder.exists()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "decentra.cli.main", "text", "--data", json.dumps(dataclasses.asdict(config)), "--folder", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    finally:
        for part in folder.glob(f"*.{process.pid}.tmp"):
            part.unlink(missing_ok=True)
        if not was_there and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    if process.returncode:
        last = (complaint.decode(errors="replace").strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]
        kind = ConfigError if process.returncode == 2 else SetupError
        raise kind(last.removeprefix("decentra: ") if last.startswith("decentra: ") else f"building the text failed: {last}")


async def to_its_end(work: Awaitable[T]) -> T:
    """Await work that writes files; cancelled, it is waited for first, so that nobody cleans up below it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
