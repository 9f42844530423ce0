"""What must hold of every dense codec on any finite chunk, and of every decoder on any bytes: 200 cases each, 2,000 under soak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hostile_chunks import TINY, chunks_of, kinds, payload_of, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_decoder import decode as decode_in_numpy

from decentra.codec.base import Codec
from decentra.codec.cast import Bf16, Fp32
from decentra.codec.fp4 import Fp4
from decentra.codec.int4 import Int4
from decentra.codec.int8 import Int8
from decentra.outer.feedback import compensate, remainder
from decentra.types import CHUNK_ELEMENTS

CLASSES = {"fp32": Fp32, "bf16": Bf16, "int8": Int8, "int4": Int4, "fp4": Fp4}
SCALE_BYTES = {"fp32": 0, "bf16": 0, "int8": 64, "int4": 128, "fp4": 128}
MOST_BF16 = float.fromhex("0x1.fep+127")

every_codec = pytest.mark.parametrize("name", CLASSES)
ordinary = settings(max_examples=200, deadline=None)
many = settings(max_examples=2_000, deadline=None)


def encoded(codec: Codec, chunks: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(chunks), codec.chunk_bytes, dtype=torch.uint8)
    codec.encode(chunks, out)
    return out


def decoded(codec: Codec, packed: torch.Tensor) -> torch.Tensor:
    out = torch.full((len(packed), CHUNK_ELEMENTS), 7.0)
    codec.decode(packed, out)
    return out


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def scales_of(name: str, packed: torch.Tensor) -> np.ndarray:
    """(n, groups, 1) fp64."""
    raw = np.ascontiguousarray(packed.numpy()[:, : SCALE_BYTES[name]])
    return raw.view("<f4").astype(np.float64)[..., None]


# -- how much may be lost -----------------------------------------------------------------------------------------------


def loss_bound(name: str, values: np.ndarray, packed: torch.Tensor) -> np.ndarray | float:
    """(n, groups, elements) fp64: the most that each element may be off."""
    if name == "fp32":
        return 0.0
    if name == "bf16":
        return np.maximum(np.abs(values) * 2.0**-8 + 2.0**-134, np.abs(values) - MOST_BF16)
    scale, largest = scales_of(name, packed), np.abs(values).max(axis=2, keepdims=True)
    if name == "fp4":
        return np.maximum(np.abs(values) / 3, scale / 128) * (1 + 2.0**-22) + TINY
    # Beside half a step: a rounded scale is off by half an ulp, a denormal one by half the smallest, as often as the largest q.
    return scale / 2 + largest * 2.0**-22 + {"int8": 127, "int4": 7}[name] * TINY


def check_round_trip(name: str, kinds: list[str], seed: int) -> None:
    compiled, plain = CLASSES[name](), CLASSES[name](compiled=False)
    chunks = chunks_of(kinds, seed)
    packed = encoded(compiled, chunks)
    assert torch.equal(packed, encoded(plain, chunks)), "the kernel and torch encode differently"
    found = decoded(compiled, packed)
    assert bool(torch.isfinite(found).all())
    assert same_bits(found, decoded(plain, packed)), "the kernel and torch decode differently"
    assert found.numpy().tobytes() == decode_in_numpy(name, packed.numpy().tobytes()).tobytes(), "the written format says otherwise"
    grouped = (len(chunks), max(1, SCALE_BYTES[name] // 4), -1)
    values, read = (each.numpy().astype(np.float64).reshape(grouped) for each in (chunks, found))
    assert (np.abs(read - values) <= loss_bound(name, values, packed)).all()


@every_codec
@ordinary
@given(kinds, seeds)
def test_what_comes_back_is_near_and_the_same_from_kernel_torch_and_numpy(name: str, kinds: list[str], seed: int) -> None:
    check_round_trip(name, kinds, seed)


@pytest.mark.soak
@every_codec
@many
@given(kinds, seeds)
def test_what_comes_back_is_near_and_the_same_two_thousand_times(name: str, kinds: list[str], seed: int) -> None:
    check_round_trip(name, kinds, seed)


# -- what was decoded once is not lost again ----------------------------------------------------------------------------


def check_repeats(name: str, kinds: list[str], seed: int) -> None:
    """fp32, bf16 and, above the denormals, fp4 give back what they gave; int8 and int4 the same q, the scale to an ulp."""
    codec = CLASSES[name]()
    packed = encoded(codec, chunks_of(kinds, seed))
    found = decoded(codec, packed)
    again = encoded(codec, found)
    if name in ("fp32", "bf16"):
        assert torch.equal(again, packed)
        return
    scales, scales_again = scales_of(name, packed)[0], scales_of(name, again)[0]
    codes, codes_again = (each[:, SCALE_BYTES[name] :].numpy().reshape(len(scales), -1) for each in (packed, again))
    normal = scales[:, 0] > 2.0**-119
    assert np.array_equal(codes[normal], codes_again[normal])
    ulps = np.abs(scales.astype(np.float32).view(np.int32) - scales_again.astype(np.float32).view(np.int32))[normal]
    assert (ulps <= (0 if name == "fp4" else 1)).all()


@every_codec
@ordinary
@given(kinds, seeds)
def test_encoding_what_was_decoded_loses_nothing_more(name: str, kinds: list[str], seed: int) -> None:
    check_repeats(name, kinds, seed)


@pytest.mark.soak
@every_codec
@many
@given(kinds, seeds)
def test_encoding_what_was_decoded_loses_nothing_more_two_thousand_times(name: str, kinds: list[str], seed: int) -> None:
    check_repeats(name, kinds, seed)


# -- any bytes ----------------------------------------------------------------------------------------------------------


def check_any_bytes(name: str, seed: int, factor: float) -> None:
    compiled, plain = CLASSES[name](), CLASSES[name](compiled=False)
    packed = payload_of(seed, compiled.chunk_bytes, SCALE_BYTES[name])
    found = decoded(compiled, packed)
    assert same_bits(found, decoded(plain, packed))
    assert found.numpy().tobytes() == decode_in_numpy(name, packed.numpy().tobytes()).tobytes()

    def added(codec: Codec) -> torch.Tensor:
        total = chunks_of(["wide", "normal"], seed, len(packed))
        codec.add(packed, factor, total, torch.empty_like(total))
        return total

    one, other = added(compiled), added(plain)
    assert torch.equal(one.isnan(), other.isnan()) and same_bits(one.nan_to_num(0.0), other.nan_to_num(0.0))


@every_codec
@ordinary
@given(seeds, st.floats(-2, 2, width=32))
def test_any_bytes_decode_and_add_alike(name: str, seed: int, factor: float) -> None:
    check_any_bytes(name, seed, factor)


@pytest.mark.soak
@every_codec
@many
@given(seeds, st.floats(-2, 2, width=32))
def test_any_bytes_decode_and_add_alike_two_thousand_times(name: str, seed: int, factor: float) -> None:
    check_any_bytes(name, seed, factor)


# -- error feedback -----------------------------------------------------------------------------------------------------


def rounded_once(found: torch.Tensor, exact: np.ndarray) -> bool:
    """Whether fp32 `found` is `exact` (fp64) to one rounding; sums of fp32 are exact below the normal numbers."""
    return bool((np.abs(found.numpy().astype(np.float64) - exact) <= np.abs(exact) * 2.0**-24 * (1 + 2.0**-20)).all())


def check_mass(name: str, kinds: list[str], seed: int) -> None:
    codec, residual = CLASSES[name](), torch.zeros(1, CHUNK_ELEMENTS)
    for sync in range(3):
        delta = chunks_of(kinds, seed + sync) / 4
        before = delta.numpy().astype(np.float64) + residual.numpy()
        compensate(delta, residual, 1.0)
        assert rounded_once(delta, before)
        read = decoded(codec, encoded(codec, delta))
        residual = remainder(delta, read)
        assert rounded_once(residual, delta.numpy().astype(np.float64) - read.numpy())


@every_codec
@ordinary
@given(kinds, seeds)
def test_error_feedback_keeps_all_mass_to_a_rounding(name: str, kinds: list[str], seed: int) -> None:
    check_mass(name, kinds, seed)


@pytest.mark.soak
@every_codec
@many
@given(kinds, seeds)
def test_error_feedback_keeps_all_mass_to_a_rounding_two_thousand_times(name: str, kinds: list[str], seed: int) -> None:
    check_mass(name, kinds, seed)
