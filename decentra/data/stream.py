"""Which text a global sample id means. Ids count on for ever; each epoch passes over the samples in a new order.

The order is a seeded bijection in integer arithmetic only, so every machine agrees on it without a stored list:
a Feistel network on the smallest even number of bits that holds the samples, walked until it lands inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from decentra.data.shards import Shard
from decentra.types import Intervals

NUM_FEISTEL_ROUNDS = 4
GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Source:
    """Training samples by global id: a shard and the seed of its order."""

    shard: Shard
    seed: int

    def batch(self, ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """ids: (B,) int64 global sample ids. Returns inputs and targets, each (B, context) int64."""
        return self.shard.batch(permuted(ids, self.shard.num_samples, self.seed))


def permuted(ids: NDArray[np.int64], num_samples: int, seed: int) -> NDArray[np.int64]:
    """Index of each global id within its epoch, id // num_samples. ids: (N,) int64, not negative. Returns (N,) int64."""
    assert num_samples >= 1, "a shard without samples has no order"
    half_bits = max(1, ((num_samples - 1).bit_length() + 1) // 2)
    wide = np.asarray(ids, dtype=np.int64).astype(np.uint64)
    size = np.uint64(num_samples)
    epochs = wide // size
    keys = _mix(_mix(epochs) ^ np.uint64(_mix_one(seed)))
    index = _feistel(wide - epochs * size, keys, half_bits)
    while (outside := index >= size).any():
        index[outside] = _feistel(index[outside], keys[outside], half_bits)
    return index.astype(np.int64)


def take(lease: Intervals, count: int) -> NDArray[np.int64]:
    """The first `count` ids of ordered half-open intervals, fewer if they hold fewer. Returns (n,) int64."""
    parts: list[NDArray[np.int64]] = []
    for start, stop in lease:
        if count <= 0:
            break
        part = np.arange(start, min(stop, start + count), dtype=np.int64)
        count -= len(part)
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    """A bijection of [0, 2 ** (2 half_bits)) for each key. values, keys: (N,) uint64."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for number in range(NUM_FEISTEL_ROUNDS):
        salted = keys + np.uint64((number + 1) * GOLDEN & 0xFFFFFFFFFFFFFFFF)
        left, right = right, left ^ (_mix(salted ^ right) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), wrapping. values: (N,) uint64."""
    values = values + np.uint64(GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix_one(seed: int) -> int:
    return int(_mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0])
