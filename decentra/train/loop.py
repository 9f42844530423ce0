"""Training, as one replica sees it. Read this first.

    while there is a slot: start at the anchor, take inner steps, hand the local parameters over.

What happens between two slots - the outer step, other peers, the network - is behind `OuterPlug`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from decentra.data import stream
from decentra.data.stream import Source
from decentra.train.evaluate import Heldout, evaluate
from decentra.train.schedule import learning_rate, slot_tokens
from decentra.train.step import Replica, Views, copy_in, copy_out
from decentra.types import SlotPlan, SlotResult

OnStep = Callable[[int, float, int], bool]
"""Called after each inner step with (steps done in the slot, loss in nats a token, tokens done in the slot).
False abandons the slot."""


class SlotAbandoned(Exception):
    """The slot's work is no longer wanted; the replica goes on from the next anchor."""


class OuterPlug(Protocol):
    """What a trainer needs of the swarm. The plug owns both sets of views and touches them only between slots."""

    @property
    def anchor(self) -> Views:
        """Where a slot starts; filled before `next_slot` returns and read-only to the trainer."""

    @property
    def local(self) -> Views:
        """Where a slot's end goes; filled before `contribute` is called."""

    def next_slot(self) -> SlotPlan | None:
        """Wait at the merge point for the next slot; None when the run has ended."""

    def progress(self, steps_done: int, loss: float, tokens: int) -> bool:
        """Report a step, as `OnStep`."""

    def contribute(self, result: SlotResult) -> None:
        """Hand over what now stands in `local`."""


def train(replica: Replica, source: Source, plug: OuterPlug, heldout: Heldout | None) -> None:
    """Train slot by slot until the plug has no more."""
    while (plan := plug.next_slot()) is not None:
        copy_in(replica.model, plug.anchor)
        try:
            result = run_slot(replica, source, plan, heldout, plug.progress)
        except SlotAbandoned:
            continue
        copy_out(replica.model, plug.local)
        plug.contribute(result)


def run_slot(replica: Replica, source: Source, plan: SlotPlan, heldout: Heldout | None, on_step: OnStep) -> SlotResult:
    """Take the plan's inner steps from where the replica stands, on a prefix of the plan's lease.

    A lease too short for all steps ends the slot early, without a part of a batch unless that is all there is;
    an empty lease gives a result of no steps and loss 0. Raises SlotAbandoned when `on_step` returns False.
    """
    anchor_loss = evaluate(replica.model, heldout) if plan.evaluate and heldout is not None else None
    batch_samples = replica.config.batch_samples
    ids = stream.take(plan.lease, plan.num_steps * batch_samples)
    num_steps = len(ids) // batch_samples or min(1, len(ids))
    num_samples, losses, compute_s = 0, 0.0, 0.0
    for step in range(1, num_steps + 1):
        batch_ids = ids[num_samples : num_samples + batch_samples]
        inputs, targets = source.batch(batch_ids)
        lr = learning_rate(slot_tokens(plan.tokens_committed, plan.tokens_last_sync, step, plan.num_steps), replica.config)
        start_s = time.perf_counter()
        loss = replica.inner_step(inputs, targets, lr)
        compute_s += time.perf_counter() - start_s
        num_samples += len(batch_ids)
        losses += loss * len(batch_ids)
        if not on_step(step, loss, num_samples * source.shard.context):
            raise SlotAbandoned(f"sync {plan.sync} went on without step {step} of {plan.num_steps}")
    return SlotResult(
        sync=plan.sync,
        num_steps=num_steps,
        num_samples=num_samples,
        num_tokens=num_samples * source.shard.context,
        loss=losses / max(1, num_samples),
        compute_s=compute_s,
        heldout_loss=anchor_loss,
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
