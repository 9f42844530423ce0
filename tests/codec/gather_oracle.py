"""The oracle of gathering: contributions added up one peer after another, in numpy, where each says something.

What a coordinate gets is divided by the weight of the whole round, not by that of the peers that sent it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Decoder = Callable[[bytes], tuple[list[int], np.ndarray]]
"""One encoded chunk -> the indices it speaks of and their fp32 values."""


def gathered_mean(contributions: Sequence[bytes], weights: Sequence[int], chunk_bytes: int, decoder: Decoder) -> np.ndarray:
    """contributions: encoded, in entry order; weights: tokens -> (n * 4096,) fp32."""
    num_chunks = len(contributions[0]) // chunk_bytes
    total = np.zeros((num_chunks, 4096), np.float32)
    for number, (data, weight) in enumerate(zip(contributions, weights, strict=True)):
        share = np.float32(weight / sum(weights))
        for chunk in range(num_chunks):
            indices, values = decoder(data[chunk * chunk_bytes : (chunk + 1) * chunk_bytes])
            for index, value in zip(indices, values, strict=True):
                term = share * value
                total[chunk, index] = term if number == 0 else total[chunk, index] + term
    return total.reshape(-1)
