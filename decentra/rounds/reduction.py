"""What an owner makes of a close, a block at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from decentra.codec.base import Codec, NotFiniteError, add_decoded, packed_rows
from decentra.outer.average import coefficient
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, PeerId

Blocks = Sequence[bytes | memoryview]
"""Encoded chunks of a part, block after block; every sender's are cut at the same places."""


class Reduction:
    """The average of a part, block after block: as far as all contributions have come.

    Terms are added in the order of sender ids.
    """

    def __init__(self, shares: Mapping[PeerId, int], rows: Sequence[int], up: Codec, down: Codec) -> None:
        """shares: by sender, the fp32 bits of what its blocks are multiplied by. rows: chunks of each block."""
        self.num_blocks = 0
        """Blocks averaged so far."""
        self.out = torch.empty(sum(rows), down.chunk_bytes, dtype=torch.uint8)
        self._factors = {sender: coefficient(shares[sender]) for sender in sorted(shares)}
        self._rows, self._up, self._down, self._first = rows, up, down, 0
        self._total, self._scratch = torch.empty(2, max(rows), CHUNK_ELEMENTS)

    def take(self, parts: Mapping[PeerId, Blocks]) -> None:
        """Average the next blocks, as many as there are. parts: by sender, encoded by `up`. Raises NotFiniteError."""
        senders = list(self._factors)
        for number in range(len(parts[senders[0]])):
            rows = self._rows[self.num_blocks]
            total, scratch = self._total[:rows], self._scratch[:rows]
            for sender, factor in self._factors.items():
                packed = packed_rows(parts[sender][number], self._up)
                add_decoded(self._up, packed, factor, total, scratch, sender == senders[0])
            try:
                self._down.encode(total, self.out[self._first : self._first + rows])
            except NotFiniteError as error:
                raise NotFiniteError(self._first + error.chunk) from error
            self._first += rows
            self.num_blocks += 1


def reduce(parts: Mapping[PeerId, Blocks], shares: Mapping[PeerId, int], up: Codec, down: Codec) -> torch.Tensor:
    """Average the whole parts of a close and encode once -> (n, down.chunk_bytes) uint8. See Reduction. Raises NotFiniteError."""
    reduction = Reduction(shares, [len(block) // up.chunk_bytes for block in next(iter(parts.values()))], up, down)
    reduction.take(parts)
    return reduction.out


def not_finite(parts: Mapping[PeerId, Blocks], up: Codec) -> list[PeerId]:
    """Senders whose part, encoded by `up`, decodes to NaN or infinity."""
    return [sender for sender in sorted(parts) if not all(is_finite(block, up) for block in parts[sender])]


def is_finite(data: bytes | memoryview, codec: Codec) -> bool:
    """Whether encoded chunks decode to finite values alone; what no encoder writes may decode to NaN."""
    packed = packed_rows(data, codec)
    decoded = torch.empty(min(len(packed), BLOCK_CHUNKS), CHUNK_ELEMENTS)
    for first in range(0, len(packed), BLOCK_CHUNKS):
        rows = packed[first : first + BLOCK_CHUNKS]
        codec.decode(rows, decoded[: len(rows)])
        if not bool(torch.isfinite(decoded[: len(rows)]).all()):
            return False
    return True
