"""A swarm in one process: the trainer, codec, average and outer step of a node, its members one after another; nothing is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from decentra import build
from decentra.codec.base import Codec, num_blocks
from decentra.config import RunConfig
from decentra.ledger.apply import averaged
from decentra.ledger.entry import Entry, Sum, Term
from decentra.outer.average import coefficient_bits, shares
from decentra.outer.fragments import parameters
from decentra.rounds.contribution import Encoded, encode_contribution
from decentra.rounds.founding import empty_tensors
from decentra.rounds.reduction import reduce
from decentra.train.evaluate import evaluate
from decentra.train.loop import Slot, train_plain
from decentra.train.step import copy_in, copy_out
from decentra.types import Digest, Intervals, SlotPlan

DIGEST_BYTES = 32


class Swarm:
    """Members of a run that all train every sync and are always counted."""

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
        self._residuals: list[torch.Tensor | None] = [None] * run.start_members
        self._sync = 0

    def heldout_loss(self) -> float:
        """Of the anchor, in nats a token."""
        copy_in(self.replicas[0].model, self.layout.views(self.tensors.anchor))
        return evaluate(self.replicas[0].model, self._heldout)

    def sync(self) -> None:
        """Every member's slot, then one outer step."""
        # Senders are named so that their order is that of the members.
        members = [f"{member:08}" for member in range(len(self.replicas))]
        results = {name: self._train(member) for member, name in enumerate(members)}
        contributions = {name: encoded for name, (encoded, _) in results.items()}
        sums, blobs = self._sums(contributions, {name: tokens for name, (_, tokens) in results.items()})
        fragment = self.machine.due(self._sync)
        for where, gradient in averaged(self.machine, fragment, _entry(self._sync, sums), blobs.__getitem__):
            self.machine.outer.apply(self.tensors.anchor[where], self.tensors.momentum[where], gradient)
        self._sync += 1

    def _train(self, member: int) -> tuple[Encoded, int]:
        """(contribution, tokens) of one member's slot."""
        replica, run, layout = self.replicas[member], self.run, self.layout
        num_steps, tokens_a_sync = run.outer.inner_steps, run.planned_tokens
        lease = lease_of(run, member, self._sync)
        plan = SlotPlan(self._sync, lease, num_steps, self._sync * tokens_a_sync, tokens_a_sync, evaluate=False)
        slot = Slot(replica, self._source, plan)
        slot.take_over(plan, layout.views(self.tensors.anchor), self._names)
        slot.run(num_steps, lambda *_: True)
        local = torch.zeros(layout.num_elements)
        copy_out(replica.model, layout.views(local))
        codec, decay = self.machine.codecs[self.machine.up], self.machine.feedback
        encoded = encode_contribution(codec, self.tensors.anchor, local, self._residuals[member], decay)
        self._residuals[member] = encoded.residual
        return encoded, slot.result().num_tokens

    def _sums(self, contributions: dict[str, Encoded], weights: dict[str, int]) -> tuple[tuple[Sum, ...], dict[Digest, bytes]]:
        """What an entry names, and the blobs: contributions themselves, or their average encoded once more."""
        machine, blocks = self.machine, num_blocks(self.layout.num_chunks)
        if machine.gather:
            terms = tuple(Term(e.blocks_digest, shares(weights)[name]) for name, e in contributions.items())
            blobs = {e.blocks_digest: e.packed.numpy().tobytes() for e in contributions.values()}
            return (Sum(0, blocks, machine.up, terms),), blobs
        parts = {name: encoded.blocks for name, encoded in contributions.items()}
        mean = reduce(parts, shares(weights), machine.codecs[machine.up], machine.codecs[machine.down])
        return (Sum(0, blocks, machine.down, (Term(b"mean", coefficient_bits(1, 1)),)),), {b"mean": mean.numpy().tobytes()}


def _entry(sync: int, sums: tuple[Sum, ...]) -> Entry:
    """As much of an entry as its average is made of."""
    return Entry(b"", "", sync, b"", sync, 0, (), sums, (), (), (), {}, {}, ())


def lease_of(run: RunConfig, member: int, sync: int) -> Intervals:
    """Sample ids of a member's slot. Step k of all members together takes the ids that step k of data parallel takes."""
    batch, steps = run.inner.batch_samples, range(sync * run.outer.inner_steps, (sync + 1) * run.outer.inner_steps)
    starts = [(step * run.start_members + member) * batch for step in steps]
    return tuple((start, start + batch) for start in starts)


def swarm_losses(run: RunConfig, cache: Path) -> Iterator[float]:
    """Held-out loss of the anchor before the first sync and after each."""
    swarm = Swarm(run, cache)
    yield swarm.heldout_loss()
    for _ in range(run.stop_syncs):
        swarm.sync()
        yield swarm.heldout_loss()


def data_parallel_losses(run: RunConfig, cache: Path) -> list[float]:
    """As swarm_losses, of one model that takes an AdamW step on the mean gradient of all members' batches."""
    batch = run.inner.batch_samples
    whole = dataclasses.replace(run, inner=dataclasses.replace(run.inner, batch_samples=run.start_members * batch))
    replica, source, heldout = build.outfit(whole, build.text(run, cache).files["train.bin"].parent, micro_batch=batch)
    losses = [evaluate(replica.model, heldout)]

    def on_step(steps_done: int, loss: float, tokens: int) -> bool:
        if steps_done % run.outer.inner_steps == 0:
            losses.append(evaluate(replica.model, heldout))
        return True

    train_plain(replica, source, run.stop_syncs * run.outer.inner_steps, on_step)
    return losses


def contribution_bytes(codec: Codec, num_chunks: int) -> int:
    """Encoded bytes of one contribution with the digests of its blocks."""
    return num_chunks * codec.chunk_bytes + DIGEST_BYTES * num_blocks(num_chunks)
