"""fp4: its levels, which is nearest, and the code of minus zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decentra.codec.base import encode
from decentra.codec.fp4 import LEVELS, MIDDLES, Fp4
from decentra.codec.nibbles import GROUP_ELEMENTS, SCALE_BYTES, unpack
from decentra.types import CHUNK_ELEMENTS

TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)

both = pytest.mark.parametrize("codec", [Fp4(), Fp4(compiled=False)], ids=["kernel", "torch"])


def coded(codec: Fp4, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(scales (groups,), codes (groups, 128) int32, decoded (groups, 128)) of one chunk."""
    packed = encode(codec, flat)
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed, out)
    scale, codes = unpack(packed)
    return scale[0], codes[0], out.view(-1, GROUP_ELEMENTS)


@both
def test_each_level_comes_back_exactly_with_its_sign(codec: Fp4) -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[:8] = torch.tensor(LEVELS) * 3.0
    flat[8:16] = torch.tensor(LEVELS) * -3.0
    scale, codes, found = coded(codec, flat)
    assert scale[0] == 3.0 and codes[0, :16].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15]
    assert torch.equal(found.view(-1), flat)


@both
def test_of_two_equally_near_levels_the_larger_is_taken_and_the_nearest_otherwise(codec: Fp4) -> None:
    middles = np.array(MIDDLES, np.float32)
    below = np.nextafter(middles, np.float32(0))
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[0] = 1.0
    flat[1:8], flat[8:15] = torch.from_numpy(middles), torch.from_numpy(-below)
    _, codes, _ = coded(codec, flat)
    assert codes[0, 1:8].tolist() == [1, 2, 3, 4, 5, 6, 7] and codes[0, 8:15].tolist() == [0, 9, 10, 11, 12, 13, 14]


@both
def test_every_element_takes_a_level_that_no_other_is_nearer_than(codec: Fp4) -> None:
    flat = torch.randn(CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(0))
    scale, _, found = coded(codec, flat)
    values = flat.view(-1, GROUP_ELEMENTS).double()
    levels = torch.tensor([*LEVELS, *(-level for level in LEVELS)], dtype=torch.float64) * scale.double().view(-1, 1, 1)
    nearest = (values.unsqueeze(2) - levels).abs().amin(dim=2)
    assert bool(((found.double() - values).abs() <= nearest * (1 + 1e-6)).all())


@both
@pytest.mark.parametrize("value", [1.0, -0.1, 1e30, HUGE, -HUGE, TINY, -7 * TINY])
def test_the_largest_of_a_group_comes_back_exactly(codec: Fp4, value: float) -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[777] = value
    scale, codes, found = coded(codec, flat)
    assert scale.nonzero().tolist() == [[6]] and int((codes != 0).sum()) == 1
    assert torch.equal(found.view(-1), flat)


@both
def test_minus_zero_is_written_as_zero_and_read_as_minus_zero(codec: Fp4) -> None:
    flat = torch.full((CHUNK_ELEMENTS,), -0.0)
    flat[0] = 1.0
    assert not coded(codec, flat)[1][0, 1:].any()
    packed = torch.full((1, codec.chunk_bytes), 0x88, dtype=torch.uint8)
    packed[:, :SCALE_BYTES] = torch.full((32,), 0.5).view(torch.uint8)
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed, out)
    assert bool((out == 0).all()) and bool(torch.signbit(out).all())
