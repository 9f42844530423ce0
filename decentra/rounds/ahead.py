"""Averaging ahead of the close: while parts arrive, as if all that have offered will be counted, which they mostly are.

A close that counts others is averaged from the beginning; the bits are the same either way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from decentra.codec.base import NotFiniteError, block_slice
from decentra.ledger.state import Part
from decentra.rounds.offers import Offer
from decentra.rounds.parts import Begun, parts_to_hold
from decentra.rounds.reduction import Blocks, Reduction, reduce
from decentra.types import PeerId

if TYPE_CHECKING:
    from decentra.rounds.member import Member


async def average_ahead(member: Member) -> None:
    """As an owner: average what has come of the due sync, again and again; until cancelled."""
    while True:
        if not await _average_some(member):
            await member.arrived.wait(1.0)


async def _average_some(member: Member) -> bool:
    """Whether there was something to average."""
    offers = sorted(member.book.offers.values(), key=lambda offer: offer.sender)
    if member.run.machine.gather or not offers or any(peer not in member.book.offers for peer in member.state.expected()):
        return False
    for part in parts_to_hold(member.run.machine, member.state, member.peer, member.takes_over):
        begun = _begun(member, part, offers)
        if await _go_on(member, begun, part, offers):
            return True
    return False


def _begun(member: Member, part: Part, offers: Sequence[Offer]) -> Begun:
    roots, where = tuple(offer.root for offer in offers), (part.first_block, part.num_blocks)
    known = member.parts.begun.get(where)
    if known is None or known.roots != roots:
        machine, chunks = member.run.machine, offers[0].num_chunks
        slices = [block_slice(number, 1, chunks) for number in part.blocks]
        rows = [each.stop - each.start for each in slices]
        known = Begun(roots, Reduction(machine.shares(offers), rows, machine.codecs[machine.up], machine.codecs[machine.down]))
        member.parts.begun[where] = known
    return known


async def _go_on(member: Member, begun: Begun, part: Part, offers: Sequence[Offer]) -> bool:
    """Average the blocks that have come from all and are not averaged yet; False where there is none."""
    async with member.averaging:
        first, held = part.first_block + begun.reduction.num_blocks, [member.parts.held.get(root) for root in begun.roots]
        last = first
        while last < part.blocks.stop and all(each is not None and last in each.blocks for each in held):
            last += 1
        if last == first or begun.spoilt:
            return False
        blocks = {o.sender: [each.blocks[b] for b in range(first, last)] for o, each in zip(offers, held, strict=True) if each is not None}
        begun.spoilt = True  # who is cancelled while a thread is at work on it leaves that thread at work
        with contextlib.suppress(NotFiniteError):
            await member.ports.run_blocking(begun.reduction.take, blocks)
            begun.spoilt = False
        return True


async def averaged_part(member: Member, part: Part, chosen: Sequence[Offer], blocks: Mapping[PeerId, Blocks]) -> torch.Tensor:
    """The average of a part of exactly these contributions, whose `blocks` of it are given -> (n, down.chunk_bytes) uint8.

    Raises NotFiniteError.
    """
    offers = sorted(chosen, key=lambda offer: offer.sender)
    begun = member.parts.begun.get((part.first_block, part.num_blocks))
    if begun is not None and begun.roots == tuple(offer.root for offer in offers):
        await _go_on(member, begun, part, offers)
        if not begun.spoilt and begun.reduction.num_blocks == part.num_blocks:
            return begun.reduction.out
    machine = member.run.machine
    return await member.ports.run_blocking(reduce, blocks, machine.shares(offers), machine.codecs[machine.up], machine.codecs[machine.down])
