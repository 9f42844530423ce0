"""Blocks of contributions held in memory: one's own, and what an owner pulled of others'. Kept until the sync commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decentra.codec.base import num_blocks
from decentra.ledger.apply import Machine
from decentra.ledger.state import Part, State
from decentra.rounds.offers import Offer
from decentra.rounds.reduction import Reduction
from decentra.types import Digest, PeerId


def parts_to_hold(machine: Machine, state: State, peer: PeerId, takes_over: Sequence[Part]) -> list[Part]:
    """The parts of each contribution of the due sync that a member holds.

    Reduce: by the map, and as leader for owners that went silent. Gather: all, for the contributions themselves are the blobs.
    """
    if machine.gather:
        return [Part(0, num_blocks(machine.due(state.sync).num_chunks), peer)]
    return [part for part in (*state.parts, *takes_over) if part.owner == peer]


@dataclass(slots=True)
class HeldContribution:
    """Encoded blocks of one contribution, by block number, with all its block digests."""

    offer: Offer
    block_digests: tuple[Digest, ...]
    blocks: dict[int, bytes | memoryview] = field(default_factory=dict)


@dataclass(slots=True)
class Begun:
    """The average of one part of these contributions, in the order of senders. spoilt: not to be gone on with, for one
    holds NaN or infinity, or it was left in the middle."""

    roots: tuple[Digest, ...]
    reduction: Reduction
    spoilt: bool = False


@dataclass(slots=True)
class PartStore:
    """Contributions of the due sync by root. refused: roots whose bytes can be held but not averaged; they count as lacking.

    begun: averages of this member's own parts, by (first block, blocks).
    """

    held: dict[Digest, HeldContribution] = field(default_factory=dict)
    begun: dict[tuple[int, int], Begun] = field(default_factory=dict)
    refused: set[Digest] = field(default_factory=set)

    def holds(self, root: Digest, parts: list[Part]) -> bool:
        """Whether all blocks of these parts are here, to be averaged."""
        if root in self.refused:
            return False
        blocks = self.held[root].blocks if root in self.held else {}
        return all(b in blocks for p in parts for b in p.blocks)

    def missing(self, offer: Offer, part: Part) -> range | None:
        """The run of blocks of a part that is still to be pulled; None if nothing is missing, or nothing will help."""
        if offer.root in self.refused:
            return None
        entry = self.held.get(offer.root)
        if entry is None:
            return part.blocks
        lacking = [b for b in part.blocks if b not in entry.blocks]
        return range(lacking[0], lacking[-1] + 1) if lacking else None

    def whole(self, root: Digest) -> bytes | None:
        """All encoded bytes of a contribution; None where a block is missing."""
        entry = self.held.get(root)
        if entry is None or len(entry.blocks) < len(entry.block_digests):
            return None
        return b"".join(entry.blocks[b] for b in range(len(entry.block_digests)))

    def blocks(self, roots: dict[Digest, PeerId], part: Part) -> dict[PeerId, list[bytes | memoryview]]:
        """The encoded blocks of a part in order, by sender. Raises KeyError where one is missing."""
        return {sender: [self.held[root].blocks[b] for b in part.blocks] for root, sender in roots.items()}

    def clear(self) -> None:
        """The sync is decided."""
        self.held.clear()
        self.begun.clear()
        self.refused.clear()
