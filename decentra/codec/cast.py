"""fp32: chunks travel as they are, little-endian."""

from __future__ import annotations

import torch

from decentra.codec.base import decode_then_add, refuse_not_finite
from decentra.types import CHUNK_ELEMENTS


class Fp32:
    """4 bytes an element; decode(encode(x)) is x."""

    name = "fp32"
    chunk_bytes = 4 * CHUNK_ELEMENTS

    def encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """See codec.base."""
        refuse_not_finite(chunks)
        out.copy_(chunks.contiguous().view(torch.uint8))

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """See codec.base."""
        out.copy_(packed.contiguous().view(torch.float32))

    def add(self, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
        """See codec.base."""
        decode_then_add(self, packed, factor, total, scratch)
