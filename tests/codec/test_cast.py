"""fp32 loses nothing, bf16 all but eight significant bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.codec.base import encode
from decentra.codec.cast import Bf16, Fp32
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


both = pytest.mark.parametrize("codec", [Bf16(), Bf16(compiled=False)], ids=["kernel", "torch"])


def word_of(codec: Bf16, bits: int) -> int:
    """The bf16 that the fp32 of these bits becomes."""
    flat = torch.from_numpy(np.full(CHUNK_ELEMENTS, bits, np.uint32).view(np.float32))
    return int(encode(codec, flat).numpy().view("<u2")[0, 9])


@both
def test_bf16_rounds_to_nearest_even(codec: Bf16) -> None:
    cases = {0x3F807FFF: 0x3F80, 0x3F808000: 0x3F80, 0x3F808001: 0x3F81, 0x3F818000: 0x3F82, 0x3FFF8000: 0x4000}
    assert {bits: word_of(codec, bits) for bits in cases} == cases
    assert {bits: word_of(codec, bits | 1 << 31) for bits in cases} == {bits: word | 1 << 15 for bits, word in cases.items()}


@both
def test_bf16_keeps_denormals_and_the_sign_of_zero(codec: Bf16) -> None:
    cases = {0x00000000: 0, 0x80000000: 0x8000, 0x00008000: 0, 0x00008001: 1, 0x80018000: 0x8002, 0x007FFFFF: 0x0080}
    assert {bits: word_of(codec, bits) for bits in cases} == cases


@both
def test_what_would_round_to_infinity_becomes_the_largest_bf16(codec: Bf16) -> None:
    cases = {0x7F7F7FFF: 0x7F7F, 0x7F7F8000: 0x7F7F, 0x7F7FFFFF: 0x7F7F, 0xFF7FFFFF: 0xFF7F}
    assert {bits: word_of(codec, bits) for bits in cases} == cases


@both
def test_every_bf16_decodes_to_its_bits_and_what_is_finite_comes_back(codec: Bf16) -> None:
    words = np.arange(2**16, dtype="<u2")
    packed = torch.from_numpy(words.view(np.uint8).copy()).view(-1, codec.chunk_bytes)
    out = torch.empty(len(packed), CHUNK_ELEMENTS)
    codec.decode(packed, out)
    assert np.array_equal(out.numpy().view(np.uint32).reshape(-1), words.astype(np.uint32) << 16)
    finite = torch.where(torch.isfinite(out), out, 1.0)
    again = torch.empty_like(packed)
    codec.encode(finite, again)
    decoded = torch.empty_like(finite)
    codec.decode(again, decoded)
    assert torch.equal(decoded.view(torch.int32), finite.view(torch.int32))


def test_bf16_agrees_with_torchs_own_where_that_stays_finite() -> None:
    values = torch.randn(CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(0))
    assert encode(Bf16(), values).numpy().tobytes() == values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
