"""The part of numpy_decoder.py that reads topk."""

from __future__ import annotations

import numpy as np

K = 64


def sent(data: bytes) -> tuple[list[int], np.ndarray] | None:
    """One chunk -> (64 indices, (64,) fp32 values); None where it is not well formed."""
    levels = np.frombuffer(data[:8], "<f4")
    upper, high, negative, lower = (_bits(data[a:b]) for a, b in ((8, 24), (24, 32), (32, 40), (40, 88)))
    ones = [p for p, bit in enumerate(upper) if bit]
    if len(ones) != K or upper[-1] or not all(0 <= int(bits) < 0x7F800000 for bits in levels.view("<u4")):
        return None
    indices = [64 * (p - k) + sum(lower[6 * k + b] << b for b in range(6)) for k, p in enumerate(ones)]
    if sorted(set(indices)) != indices:
        return None
    values = [-levels[h] if s else levels[h] for h, s in zip(high, negative, strict=True)]
    return indices, np.array(values, np.float32)


def chunk_of(data: bytes) -> np.ndarray:
    """One chunk -> (4096,) fp32."""
    out = np.zeros(4096, np.float32)
    found = sent(data)
    if found is None:
        out.view(np.uint32)[:] = 0x7FC00000
    else:
        out[found[0]] = found[1]
    return out


def _bits(data: bytes) -> list[int]:
    return [byte >> b & 1 for byte in data for b in range(8)]
