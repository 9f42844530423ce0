"""Recorded bytes of topk: they may change only on purpose, with the protocol version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from test_golden_vectors import chunk_of

from decentra.codec.base import encode, packed_rows
from decentra.codec.topk import TopK
from decentra.ledger import chain
from decentra.types import CHUNK_ELEMENTS

RECORDED = tomllib.loads((Path(__file__).parent / "topk.toml").read_text())
CODECS = [TopK(), TopK(compiled=False)]


def decoded_digest(codec: TopK, data: bytes) -> str:
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed_rows(bytearray(data), codec), out)
    return chain.bytes_block(out.numpy().tobytes()).hex()


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "plain"])
@pytest.mark.parametrize("name", sorted(RECORDED["encoded"]))
def test_the_wire_bytes_are_the_recorded_ones(name: str, codec: TopK) -> None:
    data = encode(codec, chunk_of(name)).numpy().tobytes()
    assert {"bytes": data.hex(), "decoded": decoded_digest(codec, data)} == RECORDED["encoded"][name]


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "plain"])
@pytest.mark.parametrize("name", sorted(RECORDED["malformed"]))
def test_recorded_bytes_that_no_encoder_writes_are_nan(name: str, codec: TopK) -> None:
    nan = torch.full((CHUNK_ELEMENTS,), 0x7FC00000, dtype=torch.int32)
    assert decoded_digest(codec, bytes.fromhex(RECORDED["malformed"][name])) == chain.bytes_block(nan.numpy().tobytes()).hex()
