"""What an owner makes of a close, a block at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from decentra.codec.base import Codec, NotFiniteError, add_decoded, packed_rows
from decentra.outer.average import coefficient, coefficient_bits
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, PeerId

Blocks = Sequence[bytes | memoryview]
"""Encoded chunks of a part, block after block; every sender's are cut at the same places."""


def reduce(parts: Mapping[PeerId, Blocks], weights: Mapping[PeerId, int], up: Codec, down: Codec) -> torch.Tensor:
    """Average the parts of a close and encode once.

    parts: by sender, encoded by `up`; weights: int64 tokens -> (n, down.chunk_bytes) uint8. Terms are added in the order of
    sender ids, coefficients w_i / W rounded once to fp32. Raises NotFiniteError.
    """
    senders = sorted(parts)
    total_weight = sum(weights.values())
    factors = [coefficient(coefficient_bits(weights[sender], total_weight)) for sender in senders]
    sizes = [len(block) // up.chunk_bytes for block in parts[senders[0]]]
    out = torch.empty(sum(sizes), down.chunk_bytes, dtype=torch.uint8)
    total, scratch = torch.empty(2, max(sizes), CHUNK_ELEMENTS)
    first = 0
    for number, rows in enumerate(sizes):
        for sender, factor in zip(senders, factors, strict=True):
            packed = packed_rows(parts[sender][number], up)
            add_decoded(up, packed, factor, total[:rows], scratch[:rows], sender == senders[0])
        try:
            down.encode(total[:rows], out[first : first + rows])
        except NotFiniteError as error:
            raise NotFiniteError(first + error.chunk) from error
        first += rows
    return out


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
