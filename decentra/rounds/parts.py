"""Blocks of contributions held in memory: one's own, and what an owner pulled of others'. Kept until the sync commits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from decentra.codec.base import Codec, block_slice
from decentra.ledger import chain
from decentra.ledger.state import Part
from decentra.rounds.offers import Offer
from decentra.types import BLOCK_CHUNKS, Digest, PeerId


@dataclass(slots=True)
class HeldContribution:
    """Encoded blocks of one contribution, by block number, with all its block digests."""

    offer: Offer
    block_digests: tuple[Digest, ...]
    blocks: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class PartStore:
    """Contributions of the due sync by root. refused: roots whose bytes can be held but not averaged; they count as lacking."""

    held: dict[Digest, HeldContribution] = field(default_factory=dict)
    refused: set[Digest] = field(default_factory=set)

    def holds(self, root: Digest, parts: list[Part]) -> bool:
        """Whether all blocks of these parts are here, to be averaged."""
        if root in self.refused:
            return False
        blocks = self.held[root].blocks if root in self.held else {}
        return all(b in blocks for p in parts for b in range(p.first_block, p.first_block + p.num_blocks))

    def missing(self, offer: Offer, part: Part) -> range | None:
        """The run of blocks of a part that is still to be pulled; None if nothing is missing, or nothing will help."""
        if offer.root in self.refused:
            return None
        entry = self.held.get(offer.root)
        wanted = range(part.first_block, part.first_block + part.num_blocks)
        if entry is None:
            return wanted
        lacking = [b for b in wanted if b not in entry.blocks]
        return range(lacking[0], lacking[-1] + 1) if lacking else None

    def packed(self, roots: dict[Digest, PeerId], part: Part, codec: Codec) -> dict[PeerId, torch.Tensor]:
        """(n, chunk_bytes) uint8 of a part, by sender. Raises KeyError where a block is missing."""
        return {
            sender: _rows(b"".join(self.held[root].blocks[b] for b in range(part.first_block, part.first_block + part.num_blocks)), codec)
            for root, sender in roots.items()
        }

    def clear(self) -> None:
        """The sync is decided."""
        self.held.clear()
        self.refused.clear()


def cut(packed: torch.Tensor) -> list[bytes]:
    """(n, chunk_bytes) uint8 -> bytes of each block."""
    rows = packed.shape[0]
    return [packed[block_slice(b, 1, rows)].numpy().tobytes() for b in range(-(-rows // BLOCK_CHUNKS))]


def own_contribution(blocks: list[bytes]) -> tuple[tuple[Digest, ...], Digest]:
    """(block digests, their tree digest) of an encoded contribution."""
    digests = tuple(chain.bytes_block(block) for block in blocks)
    return digests, chain.tree(digests)


def _rows(data: bytes, codec: Codec) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8)).view(-1, codec.chunk_bytes)
