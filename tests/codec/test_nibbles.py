"""Where four-bit codes stand in the bytes of a chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decentra.codec.base import encode
from decentra.codec.fp4 import Fp4
from decentra.codec.int4 import Int4
from decentra.codec.nibbles import CHUNK_BYTES, GROUP_ELEMENTS, NUM_GROUPS, SCALE_BYTES, pack, unpack
from decentra.types import CHUNK_ELEMENTS


def test_the_first_half_of_a_group_stands_in_the_low_bits_and_the_second_in_the_high() -> None:
    codes = torch.arange(CHUNK_ELEMENTS, dtype=torch.int32).view(1, NUM_GROUPS, GROUP_ELEMENTS) * 7 % 16
    scale, out = torch.arange(NUM_GROUPS, dtype=torch.float32).view(1, -1), torch.empty(1, CHUNK_BYTES, dtype=torch.uint8)
    pack(scale, codes, out)
    data = out.numpy().tobytes()
    assert np.frombuffer(data[:SCALE_BYTES], "<f4").tolist() == list(range(32))
    for element, code in enumerate(codes.view(-1).tolist()):
        byte = data[SCALE_BYTES + element // 128 * 64 + element % 64]
        assert code == (byte >> 4 if element % 128 >= 64 else byte & 15)
    found_scale, found = unpack(out)
    assert torch.equal(found_scale, scale) and torch.equal(found, codes)


@pytest.mark.parametrize("codec", [Int4(), Fp4()], ids=["int4", "fp4"])
@pytest.mark.parametrize("element", [0, 63, 64, 127, 128, 4095])
def test_an_element_moves_the_four_bits_that_are_its_own(codec: Int4 | Fp4, element: int) -> None:
    flat = torch.zeros(CHUNK_ELEMENTS)
    flat[element] = 1.0
    data = encode(codec, flat).numpy().tobytes()
    moved = [at for at in range(SCALE_BYTES, CHUNK_BYTES) if data[at]]
    assert moved == [SCALE_BYTES + element // 128 * 64 + element % 64]
    assert data[moved[0]] == (0x70 if element % 128 >= 64 else 0x07)
