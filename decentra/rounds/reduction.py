"""Who reduces which blocks, and what an owner makes of a close. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from decentra.codec.base import Codec
from decentra.ledger.state import Member, Part
from decentra.outer.average import add_term, coefficient_bits
from decentra.types import CHUNK_ELEMENTS, PeerId


def split(owners: Sequence[Member], num_blocks: int) -> tuple[Part, ...]:
    """Cut the blocks among owners in proportion to the slower of their two rates; equal shares where one is unknown."""
    rates = [min(m.up_bytes_per_s, m.down_bytes_per_s) for m in owners]
    if not all(rates):
        rates = [1] * len(owners)
    total, parts, first, summed = sum(rates), [], 0, 0
    for member, rate in zip(owners, rates, strict=True):
        summed += rate
        last = (2 * num_blocks * summed + total) // (2 * total)
        if last > first:
            parts.append(Part(first, last - first, member.peer))
        first = max(first, last)
    return tuple(parts)


def owners_of(members: Sequence[Member], heard: Collection[PeerId]) -> list[Member]:
    """Members that may own blocks: heard and dialable, by id."""
    return sorted((m for m in members if m.dialable and m.peer in heard), key=lambda m: m.peer)


def next_parts(parts: Sequence[Part], members: Sequence[Member], heard: Collection[PeerId], num_blocks: int, recut: bool) -> tuple[Part, ...]:
    """The map for the due sync: the present one while all its owners stay, unless a sync was just counted (`recut`)."""
    staying = {m.peer for m in members}
    if not recut and parts and all(part.owner in staying for part in parts):
        return tuple(parts)
    return split(owners_of(members, heard), num_blocks)


def hand_on(parts: Sequence[Part], owners: Sequence[Member]) -> tuple[Part, ...]:
    """The map with the parts of silent owners given to those that remain, in turn."""
    alive = [m.peer for m in owners]
    given = iter(range(len(parts)))
    return tuple(p if p.owner in alive else Part(p.first_block, p.num_blocks, alive[next(given) % len(alive)]) for p in parts)


def tiles(parts: Sequence[Part], num_blocks: int) -> bool:
    """Whether the parts cover every block once, in order."""
    at = 0
    for part in parts:
        if part.first_block != at or part.num_blocks < 1:
            return False
        at += part.num_blocks
    return at == num_blocks


def reduce(packed: Mapping[PeerId, torch.Tensor], weights: Mapping[PeerId, int], up: Codec, down: Codec) -> torch.Tensor:
    """Average the parts of a close and encode once.

    packed: (n, up.chunk_bytes) uint8 by sender; weights: int64 tokens -> (n, down.chunk_bytes) uint8. Terms are added in
    the order of sender ids, coefficients w_i / W rounded once to fp32. Raises NotFiniteError.
    """
    total_weight = sum(weights.values())
    rows = len(next(iter(packed.values())))
    total, term = torch.empty(rows, CHUNK_ELEMENTS), torch.empty(rows, CHUNK_ELEMENTS)
    for index, sender in enumerate(sorted(packed)):
        up.decode(packed[sender], term)
        add_term(total, term, coefficient_bits(weights[sender], total_weight), index == 0)
    out = torch.empty(rows, down.chunk_bytes, dtype=torch.uint8)
    down.encode(total, out)
    return out
