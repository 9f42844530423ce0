"""The bytes of a chunk whose elements take four bits: int4 and fp4 differ only in what a code stands for.

32 scales (fp32, little-endian), then 64 bytes for each group of 128 elements: byte j holds the code of element j of the group
in its low and that of element 64 + j in its high half, so that packing moves whole registers.
"""

from __future__ import annotations

import torch

from decentra.types import CHUNK_ELEMENTS

GROUP_ELEMENTS = 128
NUM_GROUPS = CHUNK_ELEMENTS // GROUP_ELEMENTS
SCALE_BYTES = 4 * NUM_GROUPS
CHUNK_BYTES = SCALE_BYTES + CHUNK_ELEMENTS // 2


def scaled(chunks: torch.Tensor, most_value: float) -> tuple[torch.Tensor, torch.Tensor]:
    """chunks: (n, 4096) fp32, finite -> scale (n, 32) and x / scale (n, 32, 128), both fp32; 0 where the scale is 0.

    A group's scale is its largest magnitude divided by most_value, what the largest code stands for.
    """
    groups = chunks.reshape(-1, NUM_GROUPS, GROUP_ELEMENTS)
    scale = groups.abs().amax(dim=2).div_(most_value)
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, groups.div(divisor.unsqueeze(2)).masked_fill_((scale == 0).unsqueeze(2), 0.0)


def pack(scale: torch.Tensor, codes: torch.Tensor, out: torch.Tensor) -> None:
    """scale: (n, 32) fp32; codes: (n, 32, 128) int32, 0 to 15; out: (n, 2176) uint8, filled."""
    low, high = codes.chunk(2, dim=2)
    out[:, :SCALE_BYTES] = scale.view(torch.uint8).view(-1, SCALE_BYTES)
    out[:, SCALE_BYTES:] = (low | (high << 4)).to(torch.uint8).view(-1, CHUNK_ELEMENTS // 2)


def unpack(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """packed: (n, 2176) uint8 -> scale (n, 32) fp32, codes (n, 32, 128) int32, 0 to 15."""
    scale = packed[:, :SCALE_BYTES].contiguous().view(torch.float32)
    codes = packed[:, SCALE_BYTES:].to(torch.int32).view(-1, NUM_GROUPS, GROUP_ELEMENTS // 2)
    return scale, torch.cat((codes & 15, codes >> 4), dim=2)
