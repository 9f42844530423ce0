"""Training, as one replica sees it. Read this first.

    while there is a slot: take over what the last sync agreed, take inner steps, hand the due fragment over.

Where rounds overlap with training, a slot begins before the last sync is decided: its first steps come before the taking
over. What happens between two syncs - the outer step, other peers, the network - is behind `OuterPlug`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from decentra.data import stream
from decentra.data.stream import Source
from decentra.train.evaluate import Heldout, evaluate
from decentra.train.guard import SlotDropped
from decentra.train.pace import Done, steps_to_take
from decentra.train.schedule import learning_rate, slot_tokens
from decentra.train.step import Replica, Views, copy_in, copy_out
from decentra.types import SlotPlan, SlotResult

OnStep = Callable[[int, float, int], bool]
"""Called after each inner step with (steps done in the slot, loss in nats a token, tokens done in the slot).
False abandons the slot."""


class SlotAbandoned(Exception):
    """The slot's work is no longer wanted; the replica goes on from the next anchor."""


class OuterPlug(Protocol):
    """What a trainer needs of the swarm. The plug owns both sets of views."""

    @property
    def anchor(self) -> Views:
        """What is taken over; the fragment that is due for it holds still from the return of a plan to the next step."""

    @property
    def local(self) -> Views:
        """Where a slot's end goes; filled before `contribute` is called. A provisional plan finds there what it begins with."""

    @property
    def fragments(self) -> Sequence[Collection[str]]:
        """Names of the parameters of each fragment."""

    def next_slot(self) -> SlotPlan | None:
        """Wait for the next slot; None when the run has ended."""

    def final(self, plan: SlotPlan) -> SlotPlan:
        """Wait, after a plan's overlap steps, for the one that holds from there on. Raises SlotAbandoned."""

    def progress(self, steps_done: int, loss: float, tokens: int) -> bool:
        """Report a step, as `OnStep`."""

    def contribute(self, result: SlotResult) -> None:
        """Hand over what now stands in `local`; of a result with a fault, nothing does."""


def train(replica: Replica, source: Source, plug: OuterPlug, heldout: Heldout | None) -> None:
    """Train slot by slot until the plug has no more."""
    while (plan := plug.next_slot()) is not None:
        slot = Slot(replica, source, plan, heldout)
        slot.begin(plug.local, plug.fragments)
        try:
            if plan.overlap_steps:
                slot.run(plan.overlap_steps, plug.progress)
                start_s = time.perf_counter()
                plan = plug.final(plan)
                slot.wait_s = time.perf_counter() - start_s
            slot.take_over(plan, plug.anchor, plug.fragments)
            slot.run(plan.num_steps, plug.progress)
        except SlotAbandoned:
            continue
        except SlotDropped as why:
            plug.contribute(dataclasses.replace(slot.result(), fault=str(why), leave=why.leave))
            continue
        copy_out(replica.model, plug.local, plug.fragments[plan.sync % len(plug.fragments)])
        plug.contribute(slot.result())


class Slot:
    """Inner steps of one slot, on a prefix of its lease.

    A lease too short for all steps ends the slot early, without a part of a batch unless that is all there is;
    an empty lease gives a result of no steps and loss 0.
    """

    def __init__(self, replica: Replica, source: Source, plan: SlotPlan, heldout: Heldout | None = None) -> None:
        self.wait_s = 0.0
        self._replica, self._source, self._plan, self._heldout = replica, source, plan, heldout
        self.num_steps = self._num_samples = 0
        self._losses = self._compute_s = 0.0
        self._judged_samples = 0
        self._heldout_loss: float | None = None

    def begin(self, local: Views, fragments: Sequence[Collection[str]]) -> None:
        """Take the provisional point of the fragment that was synced last, where the plan has one."""
        if self._plan.provisional:
            copy_in(self._replica.model, local, fragments[(self._plan.sync - 1) % len(fragments)])

    def take_over(self, plan: SlotPlan, anchor: Views, fragments: Sequence[Collection[str]]) -> None:
        """Take the plan's share of the anchor, and measure the anchor where the plan asks for it; go on by this plan."""
        self._plan = plan
        model = self._replica.model
        if plan.evaluate and self._heldout is not None:
            own = {} if plan.fresh else {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            copy_in(model, anchor)
            self._heldout_loss = evaluate(model, self._heldout)
            copy_in(model, own, own)
        copy_in(model, anchor, None if plan.fresh else fragments[(plan.sync - 1) % len(fragments)], plan.alpha)

    def run(self, num_steps: int, on_step: OnStep, steps: Iterable[Done] | None = None) -> None:
        """Take inner steps until so many are done, or until the time of a plan that ends by time is over.

        steps: see train.pace; None: on this machine's clock. Raises SlotAbandoned when `on_step` returns False.
        """
        plan, batch_samples = self._plan, self._replica.config.batch_samples
        num_samples = (num_steps - plan.first_step) * batch_samples
        if plan.budget_s and not plan.overlap_steps:
            num_samples = sum(stop - start for start, stop in plan.lease)
        ids = stream.take(plan.lease, num_samples)
        last = len(ids) // batch_samples
        if not last and num_steps >= plan.num_steps:
            last = min(1, len(ids))
        steps = steps_to_take(plan, self.num_steps) if steps is None else steps
        for step, done in zip(range(self.num_steps + 1, last + 1), steps, strict=False):
            batch_ids = ids[self._num_samples : self._num_samples + batch_samples]
            inputs, targets = self._source.batch(batch_ids)
            tokens = slot_tokens(plan.tokens_committed, plan.tokens_last_sync, *done)
            lr = learning_rate(tokens, plan.inner or self._replica.config)
            start_s = time.perf_counter()
            loss = self._replica.inner_step(inputs, targets, lr)
            self._compute_s += time.perf_counter() - start_s
            self.num_steps = step
            self._num_samples += len(batch_ids)
            if math.isfinite(loss):  # of a bad step it may not be
                self._losses += loss * len(batch_ids)
                self._judged_samples += len(batch_ids)
            if not on_step(step, loss, self._num_samples * self._source.shard.context):
                raise SlotAbandoned(f"sync {plan.sync} went on without step {step} of {plan.num_steps}")

    def result(self) -> SlotResult:
        """What was done. loss: of steps that were not bad; NaN where there was no other."""
        no_loss = math.nan if self.num_steps else 0.0
        return SlotResult(
            sync=self._plan.sync,
            num_steps=self.num_steps,
            num_samples=self._num_samples,
            num_tokens=self._num_samples * self._source.shard.context,
            loss=self._losses / self._judged_samples if self._judged_samples else no_loss,
            compute_s=self._compute_s,
            heldout_loss=self._heldout_loss,
            wait_s=self.wait_s,
        )


def train_plain(replica: Replica, source: Source, num_steps: int, on_step: OnStep | None = None, start_step: int = 0) -> list[float]:
    """Train without a swarm: step k takes samples [k B, (k + 1) B) and the rate after its tokens. Returns the losses.

    `on_step` gets (steps done, loss, tokens done); False ends the run.
    """
    batch_samples, context = replica.config.batch_samples, source.shard.context
    losses: list[float] = []
    for step in range(start_step, start_step + num_steps):
        inputs, targets = source.batch(stream.take(((step * batch_samples, (step + 1) * batch_samples),), batch_samples))
        tokens = (step + 1) * batch_samples * context
        losses.append(replica.inner_step(inputs, targets, learning_rate(tokens, replica.config)))
        if on_step is not None and not on_step(step + 1, losses[-1], tokens):
            break
    return losses
