"""The owner of parts: pull their blocks of every offer, and reduce exactly what a close names."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from decentra.codec.base import num_blocks
from decentra.errors import PeerError, RefusedError
from decentra.ledger.entry import Sum, Term
from decentra.ledger.state import Part
from decentra.outer.average import coefficient_bits
from decentra.rounds import exchange, records
from decentra.rounds.fetch import pull_blocks
from decentra.rounds.offers import Offer
from decentra.rounds.parts import HeldContribution
from decentra.rounds.reduction import reduce
from decentra.types import Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def owned(member: Member) -> list[Part]:
    """The parts that this member reduces: by the map, and as leader for owners that went silent."""
    return [p for p in (*member.state.parts, *member.takes_over) if p.owner == member.peer]


async def pull_parts(member: Member) -> None:
    """As an owner: pull one's blocks of every offer, one stream a sender; until cancelled."""
    running: dict[Digest, asyncio.Task[None]] = {}
    complained: set[Digest] = set()
    try:
        while True:
            for offer in list(member.book.offers.values()):
                if offer.root not in running and offer.sender != member.peer and not member.parts.holds(offer.root, owned(member)):
                    running[offer.root] = asyncio.ensure_future(_pull_offer(member, offer, complained))
            complained.intersection_update(running)
            await member.changed.wait(1.0)
            for root in [root for root, task in running.items() if task.done()]:
                running.pop(root).result()
    finally:
        for task in running.values():
            task.cancel()


async def _pull_offer(member: Member, offer: Offer, complained: set[Digest]) -> None:
    try:
        await pull_contribution(member, offer, owned(member))
        member.changed.notify()
    except PeerError as error:
        if offer.root not in complained:
            member.ports.note(f"parts of sync {offer.sync}: {error}")
        complained.add(offer.root)
        await asyncio.sleep(member.period_s())


async def pull_contribution(member: Member, offer: Offer, parts: list[Part]) -> None:
    """Hold the blocks of these parts of a contribution. Raises PeerError."""
    for part in parts:
        wanted = member.parts.missing(offer, part)
        if wanted is None:
            continue
        request = state_pb2.PullRequest(
            run_id=member.run.run_id, contribution_root=offer.root, first_block=wanted.start, num_blocks=len(wanted)
        )
        start, size = member.now(), 0
        blocks = num_blocks(offer.num_chunks)
        stream = pull_blocks(member.ports.transport, offer.sender, request, blocks, offer.blocks_digest, False, member.silence_s())
        async with aclosing(stream):
            async for number, data, digests in stream:
                if member.book.offers.get(offer.sender) is not offer:
                    return
                member.parts.held.setdefault(offer.root, HeldContribution(offer, digests)).blocks[number] = data
                size += len(data)
        member.fetcher.saw(size, member.now() - start)


async def reduce_close(member: Member, sender: PeerId, close: rounds_pb2.Close) -> rounds_pb2.Report:
    """Average exactly that close, encode once, keep the blobs. Raises RefusedError or PeerError."""
    if close.r != member.state.r or close.sync != member.state.sync or close.ballot < member.vote().promised:
        raise RefusedError(f"close of entry {close.r} in ballot {close.ballot} is not obeyed at entry {member.state.r}")
    exchange.only_its_leader(member, sender, close.ballot)
    for signed in close.offers:
        exchange.take_offer(member, signed.SerializeToString())
    by_root = {offer.root: offer for offer in member.book.offers.values()}
    missing = [root.hex()[:12] for root in close.roots if root not in by_root]
    if missing or not close.roots:
        raise RefusedError(f"the close names roots that are not offered here: {', '.join(missing)}")
    chosen = [by_root[root] for root in close.roots]
    member.mark("closed")
    mine = [p for p in records.of_parts(close.parts) if p.owner == member.peer]
    await asyncio.gather(*(pull_contribution(member, offer, mine) for offer in chosen if offer.sender != member.peer))
    sums = [await _reduce_part(member, close.r, part, chosen) for part in mine]
    return rounds_pb2.Report(close_digest=records.close_digest(close), sums=records.to_sums(sums))


async def _reduce_part(member: Member, r: int, part: Part, chosen: list[Offer]) -> Sum:
    machine = member.run.machine
    up, down = machine.codecs[machine.up], machine.codecs[machine.down]
    try:
        packed = member.parts.packed({o.root: o.sender for o in chosen}, part, up)
    except KeyError as error:
        raise RefusedError("a block of the close is not held here any more") from error
    out = await member.ports.run_blocking(reduce, packed, {o.sender: o.weight_tokens for o in chosen}, up, down)
    blob = await member.ports.run_blocking(member.ports.store.put_blob, out.numpy().tobytes(), r)
    return Sum(part.first_block, part.num_blocks, down.name, (Term(blob, coefficient_bits(1, 1)),))
