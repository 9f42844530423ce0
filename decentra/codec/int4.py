"""int4: groups of 128 elements share an absmax scale; symmetric, -7 to 7, rounded half to even.

Bytes of a chunk: see codec.nibbles; codes are two's complement. value = q * scale, scale = absmax / 7. No clamp of the scale is
needed: the largest fp32 divided by 7 and rounded is the largest whose 7-fold is finite.
"""

from __future__ import annotations

import torch

from decentra.codec import kernels, nibbles
from decentra.codec.base import multiply_scales


class Int4(kernels.Compiled):
    """0.531 bytes an element. A group whose scale rounds to zero decodes to zeros."""

    name = "int4"
    chunk_bytes = nibbles.CHUNK_BYTES

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """Division is the correctly rounded IEEE one, so bytes agree between machines."""
        scale, ratio = nibbles.scaled(chunks, 7.0)
        nibbles.pack(scale, ratio.clamp_(-7, 7).round_().to(torch.int32) & 15, out)

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        scale, codes = nibbles.unpack(packed)
        multiply_scales(((codes ^ 8) - 8).to(torch.float32), scale, out)
