"""fp32 loses nothing."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.codec.base import encode
from decentra.codec.cast import Fp32
from decentra.types import CHUNK_ELEMENTS


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_every_finite_bit_pattern_comes_back_exactly(seed: int, num_chunks: int) -> None:
    patterns = np.random.default_rng(seed).integers(0, 2**32, num_chunks * CHUNK_ELEMENTS, dtype=np.uint32)
    patterns[(patterns >> 23) & 0xFF == 0xFF] &= np.uint32(0x807FFFFF)
    flat = torch.from_numpy(patterns.view(np.float32))
    packed = encode(Fp32(), flat)
    assert packed.numpy().tobytes() == patterns.astype("<u4").tobytes()
    out = torch.empty(num_chunks, CHUNK_ELEMENTS)
    Fp32().decode(packed, out)
    assert np.array_equal(out.numpy().view(np.uint32).reshape(-1), patterns)
