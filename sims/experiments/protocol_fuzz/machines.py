"""What a simulated swarm is made of: small blocks, a trainer that costs nothing, machines that outlive their processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from decentra.identity.keys import Identity
from decentra.ledger import intervals
from decentra.ledger.files import MemoryFiles
from decentra.outer.fragments import Fragment
from decentra.rounds import partition
from decentra.rounds.member import Member
from decentra.transport.memory import MemoryTransport
from decentra.types import Intervals, PeerId, SlotPlan, SlotResult

CHUNKS = 9
RATE_BYTES_PER_S, DELAY_S = 1.25e6, 0.02
STEP_S = 0.2
BATCH_SAMPLES = 4
_TIMES: dict[Any, Any] = {}

T = TypeVar("T")


@contextlib.contextmanager
def small_blocks(file_block_bytes: int = 1 << 14) -> Iterator[None]:
    """One chunk a block in every loaded room, for as long as the context lasts."""
    small = {"BLOCK_CHUNKS": 1, "FILE_BLOCK_BYTES": file_block_bytes}
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
    """The same pure search, once a process for the same rates: it would be half of all the time spent here.

    Members are sorted first, for the times do not depend on their order; so neither does what is remembered.
    """

    def search(rates: Any) -> Any:
        order = np.lexsort((rates.may_own, rates.down, rates.up))
        up, down, may_own = rates.up[order], rates.down[order], rates.may_own[order]
        key = (up.tobytes(), down.tobytes(), may_own.tobytes())
        if key not in _TIMES:
            _TIMES[key] = best_times(type(rates)(up, down, may_own))
        return _TIMES[key]

    return search


class CheapTrainer:
    """A trainer port without a model: a replica drifts by noise seeded by who, which process, when and on what."""

    def __init__(self, anchor: torch.Tensor, seed: int, step_s: float, fragments: Sequence[Fragment]) -> None:
        self.local = torch.zeros_like(anchor)
        self.step_s = step_s
        self.stalled_until_s = 0.0
        self.spoiled_sync = -1
        self.abandoned = 0
        self.carried: Intervals = ()
        """Ids in the replica: trained since it last started at the anchor as a whole."""
        self.base = torch.zeros_like(anchor)
        """Where each fragment of the replica was last taken over: the anchor as it was then, or a provisional point of its own."""
        self.own_points: set[int] = set()
        """Fragments whose base is a provisional point."""
        self.drift: dict[int, torch.Tensor] = {}
        """By sync, the newest two: base - local of the due fragment at the end of its slot."""
        self._anchor, self._seed, self._fragments, self._progress = anchor, seed, fragments, (0, 0)
        self._replica = torch.zeros_like(anchor)

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """See rounds.ports.TrainerPort."""
        steps = 0
        synced = (plan.sync - 1) % len(self._fragments)
        own = (self.local if plan.provisional else self._replica)[self._fragments[synced].elements].clone()
        provisional = plan.provisional
        try:
            if final is not None:
                steps = await self._pass(0, plan.overlap_steps, plan)
                plan = await final
            start, base = self._anchor.clone(), self._anchor.clone()
            own_points = set()
            if not plan.fresh:
                where, agreed = self._fragments[synced].elements, start[self._fragments[synced].elements]
                start, start[where] = self._replica.clone(), torch.lerp(agreed, own, plan.alpha)
                base, base[where] = self.base.clone(), own if provisional and plan.alpha == 1.0 else agreed
                own_points = {*self.own_points - {synced}, *([synced] if provisional and plan.alpha == 1.0 else [])}
            steps = await self._pass(steps, plan.num_steps, plan)
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self._progress = (0, 0)
        samples = steps * BATCH_SAMPLES
        trained = intervals.split(plan.lease, samples)[0]
        generator = torch.Generator().manual_seed(1000 * plan.sync + self._seed + 7919 * (trained[0][0] if trained else 0))
        self._replica, self.base, self.own_points = start + torch.randn(start.shape, generator=generator), base, own_points
        due = self._fragments[plan.sync % len(self._fragments)].elements
        self.local[due] = self._replica[due]
        self.drift = {known: drift for known, drift in self.drift.items() if known == plan.sync - 1}
        self.drift[plan.sync] = base[due] - self._replica[due]
        self.carried = intervals.join(() if plan.fresh else self.carried, trained)
        if plan.sync == self.spoiled_sync:
            self.local[due.start] = float("nan")
        return SlotResult(plan.sync, steps, samples, samples * 128, 1.0, steps * self.step_s)

    async def _pass(self, done: int, steps: int, plan: SlotPlan) -> int:
        steps = min(steps, intervals.total(plan.lease) // BATCH_SAMPLES)
        for step in range(done, steps):
            self._progress = (step, plan.num_steps)
            await asyncio.sleep(self.step_s + max(0.0, self.stalled_until_s - asyncio.get_running_loop().time()))
        self._progress = (steps, plan.num_steps)
        return steps

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        return self._progress


class Work:
    """run_blocking of a simulated machine: a direct call, charged `work_s`, which a slow disk raises."""

    def __init__(self, work_s: float) -> None:
        self.work_s = work_s

    async def __call__(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of the call."""
        result = work(*arguments)
        await asyncio.sleep(self.work_s)
        return result


@dataclass(eq=False)
class Node:
    """One machine: what outlives a process (identity, files, clock, disk) and the process that runs on it, if any.

    clock_rate, clock_offset_s: its clock against that of the simulation. link_factor: how much slower its link is for good.
    """

    number: int
    identity: Identity
    files: MemoryFiles
    step_s: float
    work: Work
    clock_rate: float = 1.0
    clock_offset_s: float = 0.0
    boots: int = 0
    address: str = ""
    transport: MemoryTransport | None = None
    member: Member | None = None
    trainer: CheapTrainer | None = None
    task: asyncio.Task[None] | None = None
    booting: asyncio.Task[None] | None = None
    dialable: bool = True
    link_factor: float = 1.0
    frozen: bool = False
    gone: bool = False
    """Left, or lost with its files: it will not come back as who it was."""
    lost: dict[int, float] = field(default_factory=dict)
    """When each of its incarnations ended with its files."""

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

    @property
    def process(self) -> str:
        """Names its present process to the loop."""
        return f"{self.name}/{self.boots}"

    def incarnation(self) -> int | None:
        """Of the vote store on its disk; None where there is none."""
        raw = self.files.read("vote.json")
        return None if raw is None else int(json.loads(raw)["incarnation"])

    def slow(self, factor: float) -> None:
        """Give its link 1 / factor of the usual rate."""
        if self.transport is not None and self.transport._shaper is not None:
            for link in (self.transport._shaper.up, self.transport._shaper.down):
                link.rate_bytes_per_s = RATE_BYTES_PER_S / max(factor, self.link_factor)


def copied(files: MemoryFiles) -> MemoryFiles:
    """What is written now, for the next process; what a dying task still writes does not reach it."""
    fresh = MemoryFiles()
    fresh._files = dict(files._files)
    return fresh
