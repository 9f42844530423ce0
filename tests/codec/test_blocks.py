"""Blocks tile the chunks of a payload."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from decentra import build
from decentra.codec.base import block_slice, encode, num_blocks
from decentra.rounds.contribution import cut
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS


@given(st.integers(0, 1000))
def test_blocks_tile_and_only_the_last_is_short(num_chunks: int) -> None:
    slices = [block_slice(b, 1, num_chunks) for b in range(num_blocks(num_chunks))]
    assert [row for s in slices for row in range(s.start, s.stop)] == list(range(num_chunks))
    assert all(s.stop - s.start == BLOCK_CHUNKS for s in slices[:-1]) and all(s.stop > s.start for s in slices)


def test_a_block_of_a_payload_is_the_payload_of_that_block() -> None:
    chunks = 2 * BLOCK_CHUNKS + 3
    flat = torch.randn(chunks * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(0))
    for codec in build.codecs().values():
        blocks, _, _ = cut(encode(codec, flat))
        assert len(blocks) == num_blocks(chunks) == 3
        for number, block in enumerate(blocks):
            rows = block_slice(number, 1, chunks)
            part = flat[rows.start * CHUNK_ELEMENTS : rows.stop * CHUNK_ELEMENTS]
            assert block == encode(codec, part).numpy().tobytes()
