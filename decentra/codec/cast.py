"""fp32: chunks travel as they are, little-endian. bf16: the upper half of each fp32, rounded to nearest even."""

from __future__ import annotations

import torch

from decentra.codec import kernels
from decentra.types import CHUNK_ELEMENTS

MAX_BF16_BITS = 0x7F7F
"""Of the largest finite bf16: what would round to infinity becomes this, so that what is finite decodes to what is finite."""


class Fp32(kernels.Compiled):
    """4 bytes an element; decode(encode(x)) is x."""

    name = "fp32"
    chunk_bytes = 4 * CHUNK_ELEMENTS

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(chunks.contiguous().view(torch.uint8))

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(packed.contiguous().view(torch.float32))


class Bf16(kernels.Compiled):
    """2 bytes an element, 8 significant bits; what is beyond the largest finite bf16 becomes that."""

    name = "bf16"
    chunk_bytes = 2 * CHUNK_ELEMENTS

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """In integers, so that denormals are rounded alike on every device."""
        bits = chunks.contiguous().view(torch.int32)
        magnitude = bits & 0x7FFFFFFF
        upper = (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16
        signed = upper.clamp_(max=MAX_BF16_BITS) | ((bits >> 16) & 0x8000)
        out.copy_(signed.to(torch.int16).view(torch.uint8))

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        upper = packed.contiguous().view(torch.int16).to(torch.int32)
        torch.bitwise_left_shift(upper, 16, out=out.view(torch.int32))
