"""A swarm in one process: the trainer, codec, average and outer step of a node, its members one after another; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from decentra import build
from decentra.codec.base import num_blocks
from decentra.config import RunConfig
from decentra.ledger.apply import averaged
from decentra.ledger.entry import Entry, Sum, Term
from decentra.outer.average import coefficient, coefficient_bits, shares
from decentra.outer.fragments import Fragment, parameters
from decentra.rounds.contribution import Encoded, encode_contribution
from decentra.rounds.founding import empty_tensors
from decentra.rounds.merge import provisional_point
from decentra.rounds.reduction import reduce
from decentra.train.evaluate import evaluate
from decentra.train.loop import Slot
from decentra.train.step import copy_in, copy_out
from decentra.types import Digest, Intervals, SlotPlan


class Swarm:
    """Members of a run that all train every sync and are always counted.

    tensors: the agreed anchor and momentum. A member's slot takes over, `overlap_steps` into it, the fragment that was synced
    last: from the anchor, or with the eager merge from its own provisional point.
    """

    def __init__(self, run: RunConfig, cache: Path) -> None:
        """cache: where the text is, or is built."""
        text = build.text(run, cache)
        outfits = [build.outfit(run, text.files["train.bin"].parent) for _ in range(run.start_members)]
        self.run = run
        self.replicas = [replica for replica, _, _ in outfits]
        self.layout, self.machine = text.layout, build.machine(run, text.layout)
        self.tensors = empty_tensors(text.layout)
        self._names = parameters(text.layout, self.machine.fragments)
        text.fill(text.layout, self.tensors.anchor)
        self._source, self._heldout = outfits[0][1:]
        self._residuals: dict[tuple[int, int], torch.Tensor | None] = {}
        self._eager = run.outer.merge == "eager"
        self.bases = [self.tensors.anchor.clone() if self._eager else self.tensors.anchor for _ in self.replicas]
        """What each member last took over: the agreed anchor, or its own provisional points."""
        self._sync = 0

    def heldout_loss(self) -> float:
        """Of the anchor, in nats a token."""
        model = self.replicas[0].model
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        copy_in(model, self.layout.views(self.tensors.anchor))
        loss = evaluate(model, self._heldout)
        copy_in(model, own)
        return loss

    def sync(self) -> None:
        """Every member's slot, then one outer step of the fragment that is due."""
        # Senders are named so that their order is that of the members.
        members = [f"{member:08}" for member in range(len(self.replicas))]
        fragment = self.machine.due(self._sync)
        results = {name: self._train(member, fragment) for member, name in enumerate(members)}
        contributions = {name: encoded for name, (encoded, _) in results.items()}
        if self._eager:
            for member, (encoded, tokens) in enumerate(results.values()):
                self._go_ahead(member, fragment, encoded, tokens)
        # With the eager merge the average is complete a slot later, before the next provisional points: the first to look at it.
        sums, blobs = self._sums(contributions, {name: tokens for name, (_, tokens) in results.items()}, fragment)
        anchor, momentum = self.tensors.anchor[fragment.elements], self.tensors.momentum[fragment.elements]
        for where, gradient in averaged(self.machine, fragment, _entry(self._sync, fragment, sums), blobs.__getitem__):
            self.machine.outer.apply(anchor[where], momentum[where], gradient)
        self._sync += 1

    def _train(self, member: int, fragment: Fragment) -> tuple[Encoded, int]:
        """(contribution, tokens) of one member's slot."""
        replica, run, layout, base = self.replicas[member], self.run, self.layout, self.bases[member]
        outer, tokens_a_sync = run.outer, run.planned_tokens
        overlap_steps = outer.overlap_steps if self._sync else 0
        # All syncs count as many tokens, so what is planned ahead of the last one's end is what holds after it.
        plan = SlotPlan(
            sync=self._sync,
            lease=lease_of(run, member, self._sync),
            num_steps=outer.slot_steps,
            tokens_committed=self._sync * tokens_a_sync,
            tokens_last_sync=tokens_a_sync,
            evaluate=False,
            fresh=self._sync == 0,
            overlap_steps=overlap_steps,
            alpha=outer.alpha if overlap_steps else 0.0,
        )
        slot = Slot(replica, self._source, plan)
        if overlap_steps:
            slot.run(overlap_steps, lambda *_: True)
        slot.take_over(plan, layout.views(base), self._names)
        slot.run(plan.num_steps, lambda *_: True)
        local = torch.zeros(layout.num_elements)
        copy_out(replica.model, layout.views(local), self._names[fragment.index])
        codec, decay, key = self.machine.codecs[self.machine.up], self.machine.feedback, (member, fragment.index)
        encoded = encode_contribution(codec, base[fragment.elements], local[fragment.elements], self._residuals.get(key), decay)
        self._residuals[key] = encoded.residual
        return encoded, slot.result().num_tokens

    def _go_ahead(self, member: int, fragment: Fragment, own: Encoded, tokens: int) -> None:
        """Move a member's base to its provisional point: an outer step of copies of what is agreed, by its own share alone, as it was
        sent (eager updates, arXiv 2502.12996)."""
        share = coefficient(coefficient_bits(tokens, self.run.planned_tokens))
        anchor, momentum, base = (each[fragment.elements] for each in (self.tensors.anchor, self.tensors.momentum, self.bases[member]))
        provisional_point(self.machine, own.packed, share, anchor, momentum, base)

    def _sums(
        self, contributions: dict[str, Encoded], weights: dict[str, int], fragment: Fragment
    ) -> tuple[tuple[Sum, ...], dict[Digest, bytes]]:
        """What an entry names, and the blobs: contributions themselves, or their average encoded once more."""
        machine, blocks = self.machine, num_blocks(fragment.num_chunks)
        if machine.gather:
            terms = tuple(Term(e.blocks_digest, shares(weights)[name]) for name, e in contributions.items())
            blobs = {e.blocks_digest: e.packed.numpy().tobytes() for e in contributions.values()}
            return (Sum(0, blocks, machine.up, terms),), blobs
        parts = {name: encoded.blocks for name, encoded in contributions.items()}
        mean = reduce(parts, shares(weights), machine.codecs[machine.up], machine.codecs[machine.down])
        return (Sum(0, blocks, machine.down, (Term(b"mean", coefficient_bits(1, 1)),)),), {b"mean": mean.numpy().tobytes()}


def _entry(sync: int, fragment: Fragment, sums: tuple[Sum, ...]) -> Entry:
    """As much of an entry as its average is made of."""
    return Entry(b"", "", sync, b"", sync, fragment.index, (), sums, (), (), (), {}, {}, ())


def lease_of(run: RunConfig, member: int, sync: int) -> Intervals:
    """Sample ids of a member's slot. Step k of all members together takes the ids that step k of data parallel takes."""
    batch, steps = run.inner.batch_samples, range(sync * run.outer.slot_steps, (sync + 1) * run.outer.slot_steps)
    starts = [(step * run.start_members + member) * batch for step in steps]
    return tuple((start, start + batch) for start in starts)


def swarm_losses(run: RunConfig, cache: Path) -> Iterator[float]:
    """Held-out loss of the anchor before the first sync and after each round: a sync of every fragment, so H inner steps."""
    swarm = Swarm(run, cache)
    yield swarm.heldout_loss()
    for sync in range(1, run.stop_syncs + 1):
        swarm.sync()
        if sync % run.outer.fragments == 0:
            yield swarm.heldout_loss()
