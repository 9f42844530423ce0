"""topk: the 64 elements of largest magnitude of each chunk, each a sign and one of two levels; the rest is left unsaid.

Bytes of a chunk: low and high level (fp32), then bits, least significant first: the indices' upper bits (128), a level bit
and a sign bit for each value (64 and 64), the indices' lower six bits (384). Indices are coded as Elias and Fano do
(J. ACM 21(2), 1974): 8.0 bits each. A chunk of bytes that no encoder writes decodes to NaN.
"""

from __future__ import annotations

import torch

from decentra.codec import kernels
from decentra.types import CHUNK_ELEMENTS

K = 64
"""Values a chunk; also the number of buckets of 64 elements that the upper bits name."""

_LEVELS, _UPPER, _HIGH, _SIGN = slice(0, 8), slice(8, 24), slice(24, 32), slice(32, 40)
_LOWER = slice(40, 88)
_SIGN_BIT = -(1 << 31)


class TopK(kernels.Compiled):
    """88 bytes a chunk, 186 times less than fp32. Meant for contributions with error feedback, never for averages."""

    name = "topk"
    chunk_bytes = 88

    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """Of equal magnitudes at the border those of lower index are sent."""
        magnitudes = chunks.abs().view(torch.int32)
        last = CHUNK_ELEMENTS - 1
        place = torch.arange(last, -1, -1, device=chunks.device)
        largest = torch.topk((magnitudes.to(torch.int64) << 12) | place, K).values  # keys differ, so their order is one
        index = (last - (largest & last)).sort(dim=1).values
        sent = magnitudes.gather(1, index)
        levels, least_high = _choose_levels(sent)
        upper = torch.zeros(len(chunks), 2 * K, dtype=torch.bool, device=chunks.device)
        upper.scatter_(1, (index >> 6) + torch.arange(K, device=chunks.device), True)
        lower = (index.unsqueeze(2) >> torch.arange(6, device=chunks.device)) & 1
        out[:, _LEVELS] = levels.view(torch.uint8)
        out[:, _UPPER] = _to_bytes(upper)
        out[:, _HIGH] = _to_bytes(sent >= least_high)
        out[:, _SIGN] = _to_bytes(chunks.gather(1, index) < 0)
        out[:, _LOWER] = _to_bytes(lower.flatten(1))

    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        index, values, whole = _open(packed)
        out.zero_()
        out.scatter_(1, index, values)
        out.masked_fill_(~whole, torch.nan)

    def _add(self, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
        """Only where a value was sent: all others, -0.0 too, stay as they are."""
        index, values, whole = _open(packed)
        total.scatter_(1, index, total.gather(1, index) + values * factor)
        total.masked_fill_(~whole, torch.nan)


def _choose_levels(sent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sent: (n, 64) int32, bits of magnitudes -> ((n, 2) fp32, (n, 1) int32: from where a magnitude is high).

    The split of the sorted magnitudes in two that loses the least square error when each half stands for its mean. f64 sums in
    ascending order, one column after another: a parallel sum would depend on the machine.
    """
    ordered = sent.sort(dim=1).values
    columns = ordered.view(torch.float32).to(torch.float64).unbind(1)
    low = [torch.zeros_like(columns[0])]
    for column in columns:
        low.append(low[-1] + column)
    below = torch.stack(low[1:-1], dim=1)
    above = low[-1].unsqueeze(1) - below
    count = torch.arange(1, K, dtype=torch.float64, device=sent.device)
    gain = below * below / count + above * above / (K - count)
    best = (gain == gain.amax(dim=1, keepdim=True)).to(torch.uint8).argmax(dim=1, keepdim=True)  # the first of equals
    levels = torch.cat([(below / count).gather(1, best), (above / (K - count)).gather(1, best)], dim=1)
    return levels.to(torch.float32), ordered.gather(1, best + 1)


def _open(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """packed: (n, 88) uint8 -> ((n, 64) int64 indices, ascending; (n, 64) fp32; (n, 1) bool: False where no encoder wrote it)."""
    levels = packed[:, _LEVELS].contiguous().view(torch.int32)
    upper = _to_bits(packed[:, _UPPER])
    rank = torch.arange(K, device=packed.device)
    whole = (upper.sum(dim=1) == K) & ~upper[:, -1] & (levels >= 0).all(dim=1) & (levels < 0x7F800000).all(dim=1)
    upper = torch.where(whole.unsqueeze(1), upper, torch.arange(2 * K, device=packed.device) % 2 == 0)  # any that can be read
    lower = (_to_bits(packed[:, _LOWER]).view(-1, K, 6).to(torch.int64) << torch.arange(6, device=packed.device)).sum(dim=2)
    index = ((upper.nonzero()[:, 1].view(-1, K) - rank) << 6) | lower
    whole &= (index[:, 1:] > index[:, :-1]).all(dim=1)
    index = torch.where(whole.unsqueeze(1), index, rank)
    bits = levels.gather(1, _to_bits(packed[:, _HIGH]).to(torch.int64))
    bits = torch.where(_to_bits(packed[:, _SIGN]), bits | _SIGN_BIT, bits)
    return index, bits.view(torch.float32), whole.unsqueeze(1)


def _to_bits(data: torch.Tensor) -> torch.Tensor:
    """(n, b) uint8 -> (n, 8 b) bool, least significant first."""
    return ((data.unsqueeze(2) >> torch.arange(8, dtype=torch.uint8, device=data.device)) & 1).flatten(1).to(torch.bool)


def _to_bytes(bits: torch.Tensor) -> torch.Tensor:
    """(n, 8 b) of 0 and 1 -> (n, b) uint8, least significant first."""
    eights = bits.to(torch.uint8).view(len(bits), bits.shape[1] // 8, 8) << torch.arange(8, dtype=torch.uint8, device=bits.device)
    return eights.sum(dim=2, dtype=torch.uint8)
