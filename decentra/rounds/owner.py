"""The owner of parts: pull their blocks of every offer, and reduce exactly what a close names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from decentra.codec.base import NotFiniteError, block_slice, num_blocks
from decentra.errors import PeerError, PeerFault, PeerUnreachable, RefusedError
from decentra.ledger.entry import Sum, Term
from decentra.ledger.state import Part
from decentra.outer.average import coefficient_bits
from decentra.rounds import ahead, exchange, records
from decentra.rounds.download import pull_blocks
from decentra.rounds.offers import Offer
from decentra.rounds.parts import HeldContribution, parts_to_hold
from decentra.rounds.reduction import Blocks, is_finite, not_finite
from decentra.rounds.validate import close_fault
from decentra.types import BLOCK_CHUNKS, Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def owned(member: Member) -> list[Part]:
    """The parts of each contribution that this member holds."""
    return parts_to_hold(member.run.machine, member.state, member.peer, member.takes_over)


async def pull_parts(member: Member) -> None:
    """As an owner: pull one's blocks of every offer, one stream a sender; until cancelled."""
    running: dict[Digest, asyncio.Task[None]] = {}
    complained: set[Digest] = set()
    try:
        while True:
            for offer in list(member.book.offers.values()):
                lacking = any(member.parts.missing(offer, part) is not None for part in owned(member))
                if lacking and offer.root not in running and offer.sender != member.peer:
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
        if member.fetcher.is_silent(offer.sender):
            await _pull_around(member, offer, part)
            continue
        try:
            await _pull_part(member, offer, part, offer.sender)
        except PeerError:
            member.fetcher.was_silent(offer.sender)
            await _pull_around(member, offer, part)


async def _pull_around(member: Member, offer: Offer, part: Part) -> None:
    """The sender cannot be reached from here: by way of any member that both ends reach. Raises PeerError."""
    last: PeerError = PeerUnreachable(offer.sender, "nobody else can be asked for its parts")
    for peer in member.within_reach(member.heard() if member.leading else member.leader_heard):
        if peer == offer.sender:
            continue
        try:
            await _pull_part(member, offer, part, peer, relay=True)
            return
        except PeerError as error:
            last = error
    raise last


async def _pull_part(member: Member, offer: Offer, part: Part, source: PeerId, relay: bool = False) -> None:
    wanted = member.parts.missing(offer, part)
    if wanted is None:
        return
    request = state_pb2.PullRequest(
        run_id=member.run.run_id, contribution_root=offer.root, first_block=wanted.start, num_blocks=len(wanted), relay=relay
    )
    start, size = member.now(), 0
    blocks = num_blocks(offer.num_chunks)
    codec = member.run.machine.codecs[offer.codec]
    chunk_bytes = codec.chunk_bytes
    block_bytes, to_come = BLOCK_CHUNKS * chunk_bytes, min(len(wanted) * BLOCK_CHUNKS, offer.num_chunks) * chunk_bytes
    idle_s = member.fetcher.idle_s(block_bytes)
    stream = pull_blocks(member.ports.transport, source, request, blocks, offer.blocks_digest, False, idle_s, block_bytes=block_bytes)
    with member.ports.flows.flow(f"parts of sync {offer.sync}", (source,), to_come, start) as flow:
        async with aclosing(stream):
            async for number, data, digests in stream:
                if member.book.offers.get(offer.sender) is not offer:
                    return
                rows = block_slice(number, 1, offer.num_chunks)
                if len(data) != (rows.stop - rows.start) * chunk_bytes:
                    raise PeerFault(source, f"block {number} of a contribution has {len(data)} bytes")
                if member.run.machine.gather and not is_finite(data, codec):
                    _refuse(member, [offer])  # an owner finds it when it reduces; here nobody would before all apply it
                    return
                member.parts.held.setdefault(offer.root, HeldContribution(offer, digests)).blocks[number] = data
                member.arrived.notify()
                size += len(data)
                flow.moved(len(data), member.now())
    member.fetcher.saw(size, member.now() - start)


async def relay(member: Member, root: Digest, first_block: int, num_blocks_wanted: int) -> None:
    """Hold blocks of an offered contribution for a member that its sender cannot reach. Raises RefusedError or PeerError."""
    offer = next((o for o in member.book.offers.values() if o.root == root), None)
    if offer is None or first_block + num_blocks_wanted > num_blocks(offer.num_chunks) or offer.sender == member.peer:
        raise RefusedError(f"contribution {root.hex()[:12]} is not offered here")
    await _pull_part(member, offer, Part(first_block, num_blocks_wanted, member.peer), offer.sender)


async def reduce_close(member: Member, sender: PeerId, close: rounds_pb2.Close) -> rounds_pb2.Report:
    """Average exactly that close, encode once, keep the blobs. Raises RefusedError or PeerError."""
    if close.r != member.state.r or close.sync != member.state.sync or close.ballot < member.vote().promised:
        raise RefusedError(f"close of entry {close.r} in ballot {close.ballot} is not obeyed at entry {member.state.r}")
    exchange.only_its_leader(member, sender, close.ballot)
    parts = records.of_parts(close.parts)
    if fault := close_fault(member.run.machine, member.state, close.roots, parts):
        raise RefusedError(fault)
    for signed in close.offers[: len(member.state.members)]:
        exchange.take_offer(member, signed.SerializeToString())
    by_root = {offer.root: offer for offer in member.book.offers.values()}
    missing = [root.hex()[:12] for root in close.roots if root not in by_root]
    if missing:
        raise RefusedError(f"the close names roots that are not offered here: {', '.join(missing)}")
    chosen = [by_root[root] for root in close.roots]
    member.mark("closed")
    mine = [p for p in parts if p.owner == member.peer]
    await asyncio.gather(*(pull_contribution(member, offer, mine) for offer in chosen if offer.sender != member.peer))
    sums = [await _reduce_part(member, close.r, part, chosen) for part in mine]
    return rounds_pb2.Report(close_digest=records.close_digest(close), sums=records.to_sums(sums))


async def _reduce_part(member: Member, r: int, part: Part, chosen: list[Offer]) -> Sum:
    down = member.run.machine.codecs[member.run.machine.down]
    try:
        parts = member.parts.blocks({o.root: o.sender for o in chosen}, part)
    except KeyError as error:
        raise RefusedError("a block of the close is not held here any more") from error
    try:
        out = await ahead.averaged_part(member, part, chosen, parts)
    except NotFiniteError as error:
        raise RefusedError(await _refuse_not_finite(member, parts, chosen)) from error
    data = out.numpy().data.cast("B")
    digests = await member.ports.run_blocking(member.ports.store.serve_blob, data, r)
    blob = member.fetcher.keep(data, digests, r)
    return Sum(part.first_block, part.num_blocks, down.name, (Term(blob, coefficient_bits(1, 1)),))


async def _refuse_not_finite(member: Member, parts: Mapping[PeerId, Blocks], chosen: list[Offer]) -> str:
    up = member.run.machine.codecs[member.run.machine.up]
    guilty = await member.ports.run_blocking(not_finite, parts, up)
    return _refuse(member, [offer for offer in chosen if offer.sender in guilty])


def _refuse(member: Member, guilty: list[Offer]) -> str:
    """Hold no longer what decodes to NaN or infinity, so that no later close counts it; says whose it is."""
    member.parts.refused.update(offer.root for offer in guilty)
    names = ", ".join(offer.sender[:8] for offer in guilty)
    reason = f"the contribution of {names or 'nobody alone'} holds NaN or infinity"
    member.ports.note(f"sync {member.state.sync}: {reason}")
    return reason
