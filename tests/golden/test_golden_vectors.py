"""Recorded bytes: they may change only on purpose, with the protocol version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from decentra import build
from decentra.codec.base import encode
from decentra.codec.int8 import Int8
from decentra.errors import SetupError
from decentra.ledger import chain
from decentra.ledger.golden import GOLDEN, check_machine, golden_digest, inputs
from decentra.types import CHUNK_ELEMENTS

RECORDED = tomllib.loads((Path(__file__).parent / "int8.toml").read_text())


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_this_machine_reproduces_the_golden_digest(threads: int) -> None:
    assert golden_digest(build.codecs()) == GOLDEN
    check_machine(build.codecs())


def test_a_machine_that_differs_in_one_bit_is_refused() -> None:
    class Drifted(Int8):
        def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
            super().decode(packed, out)
            out.view(torch.int32)[0, 0] ^= 1

    with pytest.raises(SetupError, match="the golden vectors come out differently on this machine"):
        check_machine({**build.codecs(), "int8": Drifted()})


def test_golden_inputs_hold_denormals_and_nothing_infinite() -> None:
    values = inputs(0, 3 * CHUNK_ELEMENTS)
    assert bool(torch.isfinite(values).all())
    tiny = torch.finfo(torch.float32).tiny
    assert int(((values != 0) & (values.abs() < tiny)).sum()) > 10


def chunk_of(name: str) -> torch.Tensor:
    """(4096,) fp32 of each recorded case."""
    ramp = torch.arange(CHUNK_ELEMENTS, dtype=torch.float32)
    return {
        "zeros": torch.zeros(CHUNK_ELEMENTS),
        "ramp": ramp - 2048,
        "ties": torch.where(ramp % 256 == 0, 127.0, ramp % 253 - 126.5),
        "hash": inputs(3, CHUNK_ELEMENTS),
        "huge": torch.where(ramp % 2 == 0, torch.finfo(torch.float32).max, -1e38),
        "denormal": (ramp % 300) * 2.0**-149,
    }[name]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_wire_bytes_of_int8_are_the_recorded_ones(name: str, threads: int) -> None:
    packed = encode(Int8(), chunk_of(name))
    out = torch.empty(1, CHUNK_ELEMENTS)
    Int8().decode(packed, out)
    data = packed.numpy().tobytes()
    found = {
        "scales": data[:64].hex(),
        "first": data[64:128].hex(),
        "last": data[-64:].hex(),
        "bytes": chain.bytes_block(data).hex(),
        "decoded": chain.bytes_block(out.numpy().tobytes()).hex(),
    }
    assert found == RECORDED[name]
