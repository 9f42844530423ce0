"""Compute in virtual time: real training whose seconds come from a model, not from this machine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from decentra.data.stream import Source
from decentra.outer.layout import Layout
from decentra.train.evaluate import Heldout
from decentra.train.loop import run_slot
from decentra.train.step import Replica, copy_in, copy_out
from decentra.types import SlotPlan, SlotResult

T = TypeVar("T")


class SimTrainer:
    """A trainer port: takes real inner steps, charges `step_s` virtual seconds for each."""

    def __init__(self, replica: Replica, source: Source, heldout: Heldout, layout: Layout, anchor: torch.Tensor, step_s: float) -> None:
        self._replica, self._source, self._heldout, self._step_s = replica, source, heldout, step_s
        self._anchor = layout.views(anchor)
        self.local = torch.zeros(layout.num_elements)
        self._local_views = layout.views(self.local)
        self._progress = (0, 0)

    async def train(self, plan: SlotPlan) -> SlotResult:
        """See rounds.ports.TrainerPort. The steps are taken at the end, so an abandoned slot costs nothing."""
        start = {name: view.clone() for name, view in self._anchor.items()}
        for step in range(plan.num_steps):
            self._progress = (step, plan.num_steps)
            await asyncio.sleep(self._step_s)
        copy_in(self._replica.model, start)
        result = run_slot(self._replica, self._source, plan, self._heldout, lambda *_: True)
        copy_out(self._replica.model, self._local_views)
        self._progress = (0, 0)
        return dataclasses.replace(result, compute_s=self._step_s * result.num_steps)

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
