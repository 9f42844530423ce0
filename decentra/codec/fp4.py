"""fp4 E3M0, what Streaming DiLoCo sends (arXiv 2501.18512): a sign, three bits of exponent, no mantissa.

Bytes of a chunk: see codec.nibbles. A code is 8 * sign + e; it stands for 0 where e = 0, else for 2^(e - 7): the levels are
0, 1/64, 1/32, ..., 1/2, 1 of the group's largest magnitude, which is its scale and comes back exactly.
"""

from __future__ import annotations

import itertools

import torch

from decentra.codec import kernels, nibbles
from decentra.codec.base import multiply_scales

LEVELS = (0.0, *(2.0 ** (e - 7) for e in range(1, 8)))
"""By e."""

MIDDLES = tuple((low + high) / 2 for low, high in itertools.pairwise(LEVELS))
"""The least |x / scale| of e = 1 to 7."""


class Fp4(kernels.Compiled):
    """0.531 bytes an element. The nearest level is taken, of two equally near ones the larger."""

    name = "fp4"
    chunk_bytes = nibbles.CHUNK_BYTES

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """Division is the correctly rounded IEEE one, so bytes agree between machines."""
        scale, ratio = nibbles.scaled(chunks, 1.0)
        e = torch.bucketize(ratio.abs(), torch.tensor(MIDDLES, device=ratio.device), out_int32=True, right=True)
        sign = ((ratio < 0) & (e > 0)).to(torch.int32)
        nibbles.pack(scale, e | (sign << 3), out)

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        scale, codes = nibbles.unpack(packed)
        values = torch.tensor((*LEVELS, *(-level for level in LEVELS)), device=packed.device)
        multiply_scales(values[codes], scale, out)
