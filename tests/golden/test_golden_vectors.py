"""Recorded bytes: they may change only on purpose, with the protocol version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from numpy_decoder import decode as decode_in_numpy

from decentra import build
from decentra.codec.base import Codec, encode
from decentra.codec.int8 import Int8
from decentra.errors import SetupError
from decentra.ledger import chain
from decentra.ledger.golden import GOLDEN, check_machine, golden_digest, inputs
from decentra.types import CHUNK_ELEMENTS

SCALE_BYTES = {"fp32": 0, "bf16": 0, "int8": 64, "int4": 128, "fp4": 128, "topk": 8}
RECORDED = {name: tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text()) for name in SCALE_BYTES}
CASES = [(name, case) for name, cases in RECORDED.items() for case in cases]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_this_machine_reproduces_the_golden_digest(threads: int) -> None:
    check_machine(build.codecs())
    assert golden_digest({name: type(codec)(compiled=False) for name, codec in build.codecs().items()}) == GOLDEN


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


def ties(codec: str) -> torch.Tensor:
    """(4096,) fp32 that lie halfway between two values of the codec, by a scale of one."""
    ramp = torch.arange(CHUNK_ELEMENTS)
    if codec == "int4":
        return torch.where(ramp % 128 == 0, 7.0, (ramp % 29) / 2 - 7)
    if codec == "fp4":
        middles = torch.tensor([2.0**-7, *(1.5 * 2.0**-n for n in range(1, 7))])
        return torch.where(ramp % 128 == 0, 1.0, middles[ramp % 7] * (1 - 2 * (ramp % 2)))
    if codec == "bf16":
        return ((ramp << 16) + 0x3F008000).to(torch.int32).view(torch.float32)
    return torch.where(ramp % 256 == 0, 127.0, ramp % 253 - 126.5)


def chunk_of(codec: str, case: str) -> torch.Tensor:
    """(4096,) fp32 of each recorded case."""
    ramp = torch.arange(CHUNK_ELEMENTS, dtype=torch.float32)
    return {
        "zeros": torch.zeros(CHUNK_ELEMENTS),
        "ramp": ramp - 2048,
        "single": torch.where(ramp == 1234, -3.0, -0.0),
        "ties": ties(codec),
        "hash": inputs(3, CHUNK_ELEMENTS),
        "huge": torch.where(ramp % 2 == 0, torch.finfo(torch.float32).max, -1e38),
        "denormal": (ramp % 300) * 2.0**-149,
    }[case]


def record(codec: Codec, case: str) -> dict[str, str]:
    """What the file of a codec says of a case."""
    packed = encode(codec, chunk_of(codec.name, case))
    out = torch.empty(1, CHUNK_ELEMENTS)
    codec.decode(packed, out)
    data, start = packed.numpy().tobytes(), SCALE_BYTES[codec.name]
    return {
        **({"scales": data[:start].hex()} if start else {}),
        "first": data[start : start + 64].hex(),
        "last": data[-64:].hex(),
        "bytes": chain.bytes_block(data).hex(),
        "decoded": chain.bytes_block(out.numpy().tobytes()).hex(),
    }


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_wire_bytes_are_the_recorded_ones(name: str, case: str, threads: int) -> None:
    codec = build.codecs()[name]
    assert record(codec, case) == record(type(codec)(compiled=False), case) == RECORDED[name][case]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_decoder_written_from_the_documentation_reads_the_recorded_bytes(name: str, case: str) -> None:
    data = encode(build.codecs()[name], chunk_of(name, case)).numpy().tobytes()
    assert chain.bytes_block(data).hex() == RECORDED[name][case]["bytes"]
    assert chain.bytes_block(decode_in_numpy(name, data).tobytes()).hex() == RECORDED[name][case]["decoded"]


def test_every_codec_has_recorded_bytes() -> None:
    assert set(RECORDED) == set(build.codecs())
    assert len({tuple(cases) for cases in RECORDED.values()}) == 1
