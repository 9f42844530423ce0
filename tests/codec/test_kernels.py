"""Compiled kernels give the bits of the torch path, which every machine has."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.codec import kernels
from decentra.codec.base import NotFiniteError
from decentra.codec.int8 import Int8
from decentra.types import CHUNK_ELEMENTS

COMPILED, PLAIN = Int8(), Int8(compiled=False)


def both(work):
    return work(COMPILED), work(PLAIN)


def encoded(codec, chunks):
    out = torch.empty(len(chunks), codec.chunk_bytes, dtype=torch.uint8)
    codec.encode(chunks, out)
    return out


def decoded(codec, packed):
    out = torch.empty(len(packed), CHUNK_ELEMENTS)
    codec.decode(packed, out)
    return out.view(torch.int32)


def any_bits(seed, chunks):
    """(chunks, 4096) fp32 of random bits, made finite: all exponents, denormals, both zeros."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, (chunks, CHUNK_ELEMENTS), dtype=np.uint32)
    bits[rng.random(bits.shape) < 0.02] &= 0x80000000
    values = bits.view(np.float32)
    values[~np.isfinite(values)] = np.finfo(np.float32).max
    return torch.from_numpy(values)


def test_the_installation_built_them_where_there_is_a_compiler():
    import shutil

    assert kernels.available() or shutil.which("cc") is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(-45, 0))
def test_encode_agrees_on_any_bits(seed, chunks, exponent):
    values = any_bits(seed, chunks) * float(10.0**exponent)
    compiled, plain = both(lambda codec: encoded(codec, values))
    assert torch.equal(compiled, plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_encode_agrees_on_ties(seed):
    rng = np.random.default_rng(seed)
    halves = torch.from_numpy(rng.integers(-254, 255, (2, CHUNK_ELEMENTS)).astype(np.float32) / 2)
    halves[:, ::256] = 127.0
    compiled, plain = both(lambda codec: encoded(codec, halves * 0.25))
    assert torch.equal(compiled, plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_decode_agrees_on_any_bytes_with_finite_scales(seed, chunks):
    rng = np.random.default_rng(seed)
    packed = torch.from_numpy(rng.integers(0, 256, (chunks, COMPILED.chunk_bytes), dtype=np.uint8))
    packed[:, :64] = any_bits(seed, 1)[:, : 16 * chunks].reshape(chunks, 16).contiguous().view(torch.uint8).view(chunks, 64)
    compiled, plain = both(lambda codec: decoded(codec, packed))
    assert torch.equal(compiled, plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0, 1, width=32))
def test_add_agrees_on_any_bytes_with_finite_scales(seed, chunks, factor):
    rng = np.random.default_rng(seed)
    packed = torch.from_numpy(rng.integers(0, 256, (chunks, COMPILED.chunk_bytes), dtype=np.uint8))
    packed[:, :64] = (any_bits(seed, 1)[:, : 16 * chunks].reshape(chunks, 16) * 1e-3).contiguous().view(torch.uint8).view(chunks, 64)
    before = torch.from_numpy(rng.standard_normal((chunks, CHUNK_ELEMENTS)).astype(np.float32))

    def added(codec):
        total = before.clone()
        codec.add(packed, factor, total, torch.empty_like(total))
        return total.view(torch.int32)

    compiled, plain = both(added)
    assert torch.equal(compiled, plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, CHUNK_ELEMENTS, 2 * CHUNK_ELEMENTS + 4095])
def test_both_name_the_first_chunk_that_is_not_finite(bad, at):
    values = torch.ones(3 * CHUNK_ELEMENTS)
    values[at] = bad
    for codec in (COMPILED, PLAIN):
        with pytest.raises(NotFiniteError) as refusal:
            encoded(codec, values.view(3, CHUNK_ELEMENTS))
        assert refusal.value.chunk == at // CHUNK_ELEMENTS


def test_what_is_not_contiguous_goes_the_plain_way():
    values = torch.randn(4, 2 * CHUNK_ELEMENTS)[:, :CHUNK_ELEMENTS]
    assert torch.equal(encoded(COMPILED, values), encoded(PLAIN, values.contiguous()))


def test_no_chunks_are_no_work():
    assert encoded(COMPILED, torch.empty(0, CHUNK_ELEMENTS)).shape == (0, COMPILED.chunk_bytes)
