"""What a test swarm is made of: small blocks, a trainer that costs nothing, machines that outlive their processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from decentra.identity.keys import Identity
from decentra.ledger import intervals
from decentra.ledger.files import MemoryFiles
from decentra.rounds import partition
from decentra.rounds.member import Member
from decentra.transport.memory import MemoryTransport
from decentra.types import PeerId, SlotPlan, SlotResult

CHUNKS = 9
RATE_BYTES_PER_S, DELAY_S = 1.25e6, 0.02
STEP_S = 0.2
BATCH_SAMPLES = 4
_TIMES: dict[Any, Any] = {}


@contextlib.contextmanager
def small_blocks() -> Iterator[None]:
    """One chunk a block in every loaded room, for as long as the context lasts."""
    small = {"BLOCK_CHUNKS": 1, "FILE_BLOCK_BYTES": 1 << 14}
    saved = []
    for name, module in list(sys.modules.items()):
        for constant, value in small.items():
            if name.startswith("decentra.") and hasattr(module, constant):
                saved.append((module, constant, getattr(module, constant)))
                setattr(module, constant, value)
    saved.append((partition, "_best_times", partition._best_times))
    partition._best_times = _remembered(partition._best_times)
    try:
        yield
    finally:
        for module, constant, value in saved:
            setattr(module, constant, value)


def _remembered(best_times: Any) -> Any:
    """The same pure search, once a process for the same rates: it would be half of all the time spent here."""

    def search(rates: Any) -> Any:
        key = (rates.up.tobytes(), rates.down.tobytes(), rates.may_own.tobytes())
        if key not in _TIMES:
            _TIMES[key] = best_times(rates)
        return _TIMES[key]

    return search


class CheapTrainer:
    """A trainer port without a model: local = anchor + noise seeded by who, when and on what."""

    def __init__(self, anchor: torch.Tensor, number: int, step_s: float) -> None:
        self.local = torch.zeros_like(anchor)
        self.step_s = step_s
        self.stalled_until_s = 0.0
        self.spoiled_sync = -1
        self.abandoned = 0
        self._anchor, self._number, self._progress = anchor, number, (0, 0)

    async def train(self, plan: SlotPlan) -> SlotResult:
        """See rounds.ports.TrainerPort."""
        start = self._anchor.clone()
        steps = min(plan.num_steps, intervals.total(plan.lease) // BATCH_SAMPLES)
        try:
            for step in range(steps):
                self._progress = (step, plan.num_steps)
                await asyncio.sleep(self.step_s + max(0.0, self.stalled_until_s - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self._progress = (0, 0)
        generator = torch.Generator().manual_seed(1000 * plan.sync + self._number + 7919 * plan.lease[0][0])
        self.local.copy_(start + torch.randn(start.shape, generator=generator))
        if plan.sync == self.spoiled_sync:
            self.local[0] = float("nan")
        samples = steps * BATCH_SAMPLES
        return SlotResult(plan.sync, steps, samples, samples * 128, 1.0, steps * self.step_s)

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        return self._progress


@dataclass(eq=False)
class Node:
    """One machine: what outlives a process (identity, files) and the process that runs on it, if any."""

    number: int
    identity: Identity
    files: MemoryFiles
    step_s: float
    boots: int = 0
    transport: MemoryTransport | None = None
    member: Member | None = None
    trainer: CheapTrainer | None = None
    task: asyncio.Task[None] | None = None
    booting: asyncio.Task[None] | None = None
    dialable: bool = True
    gone: bool = False
    """Left, or lost with its files: it will not come back as who it was."""

    @property
    def peer(self) -> PeerId:
        return self.identity.peer

    @property
    def up(self) -> bool:
        """Whether a process runs, joining included."""
        return self.transport is not None

    @property
    def name(self) -> str:
        return f"n{self.number}"

    def slow(self, factor: float) -> None:
        """Give its link 1 / factor of the usual rate."""
        if self.transport is not None and self.transport._shaper is not None:
            self.transport._shaper.up.rate_bytes_per_s = self.transport._shaper.down.rate_bytes_per_s = RATE_BYTES_PER_S / factor


def copied(files: MemoryFiles) -> MemoryFiles:
    """What is written now, for the next process; what a dying task still writes does not reach it."""
    fresh = MemoryFiles()
    fresh._files = dict(files._files)
    return fresh
