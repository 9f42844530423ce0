"""int8: what it may lose, and the bytes of a chunk."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.codec.base import encode
from decentra.codec.int8 import GROUP_ELEMENTS, NUM_GROUPS, SCALE_BYTES, Int8
from decentra.types import CHUNK_ELEMENTS


def coded(flat: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scales (n, 16) fp32, quanta (n, 16, 256) int8, decoded (n, 16, 256) fp32) by the documented layout."""
    packed = encode(Int8(), flat)
    out = torch.empty(packed.shape[0], CHUNK_ELEMENTS)
    Int8().decode(packed, out)
    raw = packed.numpy()
    scales = np.ascontiguousarray(raw[:, :SCALE_BYTES]).view("<f4")
    quanta = np.ascontiguousarray(raw[:, SCALE_BYTES:]).view(np.int8)
    return scales, quanta.reshape(-1, NUM_GROUPS, GROUP_ELEMENTS), out.numpy().reshape(-1, NUM_GROUPS, GROUP_ELEMENTS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-44, 37), st.integers(0, 12))
def test_no_element_is_off_by_more_than_half_a_scale(seed: int, exponent: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(CHUNK_ELEMENTS) * 10.0**exponent * 10.0 ** -rng.uniform(0, spread, CHUNK_ELEMENTS)
    values = np.clip(values, -3e38, 3e38).astype(np.float32)
    scales, quanta, found = coded(torch.from_numpy(values))
    groups = values.astype(np.float64).reshape(1, NUM_GROUPS, GROUP_ELEMENTS)
    largest = np.abs(groups).max(axis=2)
    # A rounded scale is off by half an ulp, 127 times over at the largest element.
    slack = largest * 2.0**-23 + 127 * np.finfo(np.float32).smallest_subnormal / 2 * (scales < 1e-36)
    bound = (scales.astype(np.float64) / 2 + slack)[..., None]
    assert (np.abs(found - groups) <= bound).all()
    assert (np.abs(quanta.astype(int)) <= 127).all()


def test_a_group_that_is_all_equal_comes_back_within_an_ulp() -> None:
    for value in (1.0, -1.0, 3.0, 0.1, 1e30, -1e-30):
        _, quanta, found = coded(torch.full((CHUNK_ELEMENTS,), value))
        assert set(np.unique(quanta)) == {127 if value > 0 else -127}
        assert np.allclose(found, np.float32(value), rtol=3e-7, atol=0)


def test_halves_are_rounded_to_even() -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[:7] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    scales, quanta, _ = coded(flat)
    assert scales[0, 0] == 1.0 and list(quanta[0, 0, :7]) == [127, 0, 2, 2, 0, -2, -2]


def test_a_scale_that_rounds_to_zero_means_zeros_and_denormals_are_kept_above_it() -> None:
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    scales, quanta, found = coded(torch.full((CHUNK_ELEMENTS,), 50 * smallest))
    assert not scales.any() and not quanta.any() and not found.any()
    scales, _, found = coded(torch.full((CHUNK_ELEMENTS,), 1270 * smallest))
    assert (scales == np.float32(10 * smallest)).all() and (found == np.float32(1270 * smallest)).all()


def test_groups_do_not_share_a_scale() -> None:
    flat = torch.ones(CHUNK_ELEMENTS)
    flat[GROUP_ELEMENTS] = 1e6
    scales, _, found = coded(flat)
    assert scales[0, 0] == scales[0, 2] != scales[0, 1]
    assert not found[0, 1, 1:].any() and np.allclose(found[0, 0], 1.0)
