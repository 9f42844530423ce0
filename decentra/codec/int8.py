"""int8: blocks of 256 elements share an absmax scale; symmetric, rounded half to even.

Bytes of a chunk: 16 scales (fp32, little-endian), then 4,096 signed bytes. value = q * scale, scale = absmax / 127.
"""

from __future__ import annotations

import torch

from decentra.codec import kernels
from decentra.codec.base import multiply_scales
from decentra.types import CHUNK_ELEMENTS

GROUP_ELEMENTS = 256
NUM_GROUPS = CHUNK_ELEMENTS // GROUP_ELEMENTS
SCALE_BYTES = 4 * NUM_GROUPS
MAX_SCALE = float.fromhex("0x1.020406p+121")
"""The largest fp32 whose 127-fold is finite: what is finite decodes to what is finite."""


class Int8(kernels.Compiled):
    """1.016 bytes an element. A group whose scale rounds to zero decodes to zeros."""

    name = "int8"
    chunk_bytes = SCALE_BYTES + CHUNK_ELEMENTS

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """Division is the correctly rounded IEEE one, so bytes agree between machines."""
        groups = chunks.reshape(-1, NUM_GROUPS, GROUP_ELEMENTS)
        scale = groups.abs().amax(dim=2).div_(127.0).clamp_(max=MAX_SCALE)
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
        q = groups.div(divisor.unsqueeze(2)).round_().clamp_(-127, 127)
        q.masked_fill_((scale == 0).unsqueeze(2), 0)
        out[:, :SCALE_BYTES] = scale.view(torch.uint8).view(-1, SCALE_BYTES)
        out[:, SCALE_BYTES:] = q.to(torch.int8).view(torch.uint8).view(-1, CHUNK_ELEMENTS)

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        scale = packed[:, :SCALE_BYTES].contiguous().view(torch.float32)
        q = packed[:, SCALE_BYTES:].contiguous().view(torch.int8).view(-1, NUM_GROUPS, GROUP_ELEMENTS)
        multiply_scales(q.to(torch.float32), scale, out)
