"""Compute in virtual time: real training whose seconds come from a model, not from this machine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import torch

from decentra.data.stream import Source
from decentra.outer.fragments import fragments, parameters
from decentra.outer.layout import Layout
from decentra.train.evaluate import Heldout
from decentra.train.loop import Slot
from decentra.train.step import Replica, copy_out
from decentra.types import SlotPlan, SlotResult

T = TypeVar("T")


class SimTrainer:
    """A trainer port: takes real inner steps, charges `step_s` virtual seconds for each."""

    def __init__(
        self, replica: Replica, source: Source, heldout: Heldout, layout: Layout, anchor: torch.Tensor, step_s: float, num_fragments: int
    ) -> None:
        self._replica, self._source, self._heldout, self._step_s = replica, source, heldout, step_s
        self._anchor = layout.views(anchor)
        self.local = torch.zeros(layout.num_elements)
        self._local_views = layout.views(self.local)
        self._names = parameters(layout, fragments(layout, num_fragments))
        self._progress = (0, 0)

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """See rounds.ports.TrainerPort. Steps are taken when their time is over, so an abandoned slot costs little."""
        slot = Slot(self._replica, self._source, plan, self._heldout)
        slot.begin(self._local_views, self._names)
        try:
            if final is not None:
                await self._pass(0, plan.overlap_steps, plan.num_steps)
                slot.run(plan.overlap_steps, lambda *_: True)
                reached_s = asyncio.get_running_loop().time()
                plan = await final
                slot.wait_s = asyncio.get_running_loop().time() - reached_s
            taken = {name: view.clone() for name, view in self._anchor.items()}
            await self._pass(slot.num_steps, plan.num_steps, plan.num_steps)
            slot.take_over(plan, taken, self._names)
            slot.run(plan.num_steps, lambda *_: True)
        finally:
            self._progress = (0, 0)
        copy_out(self._replica.model, self._local_views, self._names[plan.sync % len(self._names)])
        result = slot.result()
        return dataclasses.replace(result, compute_s=self._step_s * result.num_steps)

    async def _pass(self, done: int, steps: int, planned: int) -> None:
        for step in range(done, steps):
            self._progress = (step, planned)
            await asyncio.sleep(self._step_s)
        self._progress = (steps, planned)

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        return self._progress


class ChargedWork:
    """run_blocking of a simulated node: a direct call, charged a fixed virtual time."""

    def __init__(self, work_s: float) -> None:
        self._work_s = work_s

    async def __call__(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of the call."""
        result = work(*arguments)
        await asyncio.sleep(self._work_s)
        return result
