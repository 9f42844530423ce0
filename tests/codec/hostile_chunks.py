"""Chunks that are hard on a codec: what encodes one must bear any finite fp32, what decodes one any bytes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from decentra.types import CHUNK_ELEMENTS

RUN = 128
"""Elements of one kind in a row; the group of int4 and fp4, half a group of int8."""

TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)


def _power(rng: np.random.Generator) -> float:
    return float(2.0 ** rng.integers(-126, 117))


def _single(rng: np.random.Generator) -> np.ndarray:
    values = np.zeros(RUN)
    values[rng.integers(RUN)] = rng.standard_normal() * _power(rng)
    return values


def _ties(rng: np.random.Generator, most: int) -> np.ndarray:
    """Halves between the integers, a largest one that makes the scale a power of two."""
    halves = rng.integers(-2 * most, 2 * most + 1, RUN) / 2
    halves[0] = most
    return halves * _power(rng)


def _middles(rng: np.random.Generator) -> np.ndarray:
    """Between two levels of fp4; one is the largest level itself."""
    middles = rng.choice([2.0**-7, *(1.5 * 2.0**-n for n in range(1, 7))], RUN) * rng.choice([-1, 1], RUN)
    middles[0] = 1.0
    return middles * _power(rng)


def _any_bits(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2**32, RUN, dtype=np.uint32).view(np.float32)


def _halfway_words(rng: np.random.Generator) -> np.ndarray:
    """Halfway between two bf16."""
    return (rng.integers(0, 2**16, RUN).astype(np.uint32) << 16 | np.uint32(0x8000)).view(np.float32)


KINDS = {
    "zero": lambda rng: np.zeros(RUN),
    "negative zero": lambda rng: np.full(RUN, -0.0),
    "equal": lambda rng: np.full(RUN, rng.standard_normal() * _power(rng)),
    "single": _single,
    "few denormals": lambda rng: rng.integers(-20, 21, RUN) * TINY,
    "denormal": lambda rng: rng.integers(-(2**23), 2**23, RUN) * TINY,
    "huge": lambda rng: rng.choice([HUGE, -HUGE, HUGE / 2, 1.0], RUN),
    "nearly huge": lambda rng: rng.uniform(-HUGE, HUGE, RUN),
    "ties of int8": lambda rng: _ties(rng, 127),
    "ties of int4": lambda rng: _ties(rng, 7),
    "ties of fp4": _middles,
    "ties of bf16": _halfway_words,
    "any bits": _any_bits,
    "wide": lambda rng: rng.standard_normal(RUN) * 10.0 ** rng.uniform(-45, 37, RUN),
    "normal": lambda rng: rng.standard_normal(RUN) * 1e-3,
}

kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8)
seeds = st.integers(0, 2**32 - 1)


def chunks_of(kinds: list[str], seed: int, num_chunks: int = 1) -> torch.Tensor:
    """(num_chunks, 4096) fp32, finite: runs of the kinds, in turn."""
    rng = np.random.default_rng(seed)
    runs = [KINDS[kinds[n % len(kinds)]](rng).astype(np.float32) for n in range(num_chunks * CHUNK_ELEMENTS // RUN)]
    values = np.concatenate(runs)
    values[~np.isfinite(values)] = HUGE
    return torch.from_numpy(values).view(num_chunks, CHUNK_ELEMENTS)


def payload_of(seed: int, chunk_bytes: int, scale_bytes: int, num_chunks: int = 2) -> torch.Tensor:
    """(num_chunks, chunk_bytes) uint8, any bytes; half of the scales are finite, of all magnitudes, others infinite, NaN or any."""
    rng = np.random.default_rng(seed)
    payload = rng.integers(0, 256, (num_chunks, chunk_bytes), dtype=np.uint8)
    count = num_chunks * scale_bytes // 4
    scales = np.where(rng.random(count) < 0.5, chunks_of(["any bits"], seed, num_chunks).numpy().reshape(-1)[:count], np.float32(1))
    special = rng.choice(np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345, 0x80000000, 0x7F7FFFFF], np.uint32), count)
    scales = np.where(rng.random(count) < 0.2, special.view(np.float32), scales)
    payload[:, :scale_bytes] = scales.view(np.uint8).reshape(num_chunks, scale_bytes)
    return torch.from_numpy(payload)
