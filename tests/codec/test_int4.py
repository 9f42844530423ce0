"""int4: its steps, its scale, and codes that no encoder writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decentra.codec.base import encode
from decentra.codec.int4 import Int4
from decentra.codec.nibbles import GROUP_ELEMENTS, SCALE_BYTES, unpack
from decentra.types import CHUNK_ELEMENTS

TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)

both = pytest.mark.parametrize("codec", [Int4(), Int4(compiled=False)], ids=["kernel", "torch"])


def coded(codec: Int4, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(scales (groups,), q (groups, 128) int32, decoded (groups, 128)) of one chunk."""
    packed = encode(codec, flat)
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed, out)
    scale, codes = unpack(packed)
    return scale[0], (codes[0] ^ 8) - 8, out.view(-1, GROUP_ELEMENTS)


@both
def test_halves_are_rounded_to_even(codec: Int4) -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[:9] = torch.tensor([7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 6.5, -6.5])
    scale, q, found = coded(codec, flat)
    assert scale[0] == 1.0 and q[0, :9].tolist() == [7, 0, 2, 2, 0, -2, -2, 6, -6]
    assert found[0, :9].tolist() == [7, 0, 2, 2, 0, -2, -2, 6, -6]


@both
@pytest.mark.parametrize("value", [1.0, -1.0, 3.0, 0.1, 1e30, -1e-30])
def test_a_group_that_is_all_equal_comes_back_within_an_ulp(codec: Int4, value: float) -> None:
    _, q, found = coded(codec, torch.full((CHUNK_ELEMENTS,), value))
    assert set(q.unique().tolist()) == {7 if value > 0 else -7}
    assert torch.allclose(found, torch.tensor(value), rtol=3e-7, atol=0)


@both
def test_one_element_that_is_not_zero_leaves_the_other_groups_alone(codec: Int4) -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[3 * GROUP_ELEMENTS + 5] = -2.0
    scale, q, found = coded(codec, flat)
    assert scale.nonzero().tolist() == [[3]] and q.nonzero().tolist() == [[3, 5]] and q[3, 5] == -7
    assert found[3, 5] == pytest.approx(-2.0, rel=3e-7) and int((found != 0).sum()) == 1


@both
def test_the_largest_values_decode_to_what_is_finite(codec: Int4) -> None:
    flat = torch.full((CHUNK_ELEMENTS,), HUGE)
    flat[::2] = -HUGE
    _, q, found = coded(codec, flat)
    assert q.abs().min() == 7 and bool(torch.isfinite(found).all()) and found.abs().min() > 0.999 * HUGE


@both
def test_a_scale_that_rounds_to_zero_means_zeros_and_denormals_are_kept_above_it(codec: Int4) -> None:
    scale, q, found = coded(codec, torch.full((CHUNK_ELEMENTS,), 3 * TINY))
    assert not scale.any() and not q.any() and not found.any()
    scale, _, found = coded(codec, torch.full((CHUNK_ELEMENTS,), 70 * TINY))
    assert bool((scale == 10 * TINY).all()) and bool((found == 70 * TINY).all())


@both
def test_minus_eight_decodes_by_the_same_rule(codec: Int4) -> None:
    packed = torch.full((1, codec.chunk_bytes), 0x88, dtype=torch.uint8)
    packed[:, :SCALE_BYTES] = torch.full((32,), 0.5).view(torch.uint8)
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed, out)
    assert bool((out == -4.0).all())
