"""Compiled kernels give the bits of the torch path, which every machine has, whatever instructions they were compiled to."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hostile_chunks import KINDS, chunks_of, payload_of

from decentra import config
from decentra.codec import kernels
from decentra.codec.base import NotFiniteError
from decentra.codec.cast import Bf16, Fp32
from decentra.codec.fp4 import Fp4
from decentra.codec.int4 import Int4
from decentra.codec.int8 import Int8
from decentra.codec.topk import TopK
from decentra.types import CHUNK_ELEMENTS

CLASSES = {"fp32": Fp32, "bf16": Bf16, "int8": Int8, "int4": Int4, "fp4": Fp4, "topk": TopK}
SOURCES = Path(kernels.__file__).parent
COMPILER = shutil.which("gcc") or shutil.which("cc")
FLAGS = ("-shared", "-fPIC", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

every_codec = pytest.mark.parametrize("name", CLASSES)


def encoded(codec, chunks):
    out = torch.empty(len(chunks), codec.chunk_bytes, dtype=torch.uint8)
    codec.encode(chunks, out)
    return out


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Compiler flags that this machine can run, by name: its plainest, FMA at hand, AVX-512, and no vectors at all."""
    plain = {"scalar": ("-fno-tree-vectorize",), "default": ()}
    words = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    if "avx2" in words:
        plain["x86-64-v3"] = ("-march=x86-64-v3",)
    if "avx512vl" in words:
        plain["x86-64-v4"] = ("-march=x86-64-v4", "-mprefer-vector-width=512")
    return plain if COMPILER else {}


def test_the_installation_built_them_where_there_is_a_compiler() -> None:
    assert kernels.available() or COMPILER is None
    assert set(kernels.CODECS) <= set(config.CODECS)


@pytest.mark.parametrize("instructions", instruction_sets())
def test_every_instruction_set_gives_the_bits_of_torch(instructions: str, tmp_path: Path) -> None:
    built = tmp_path / "kernels.so"
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run([COMPILER, *FLAGS, "-DCLONES=", *instruction_sets()[instructions], *sources, "-o", built], check=True)
    library = ctypes.CDLL(str(built))
    for name, codec_class in CLASSES.items():
        compiled, plain = kernels.Kernels(library, name), codec_class(compiled=False)
        for seed in range(4):
            chunks = chunks_of(sorted(KINDS), seed, 2)
            packed, wanted = torch.empty(2, plain.chunk_bytes, dtype=torch.uint8), encoded(plain, chunks)
            compiled.encode(chunks, packed)
            assert torch.equal(packed, wanted), name
            packed = payload_of(seed, plain.chunk_bytes, 128 if name.endswith("4") else 64) if seed % 2 else wanted
            out, wanted = torch.empty(2, 2, CHUNK_ELEMENTS)
            compiled.decode(packed, out)
            plain.decode(packed, wanted)
            assert torch.equal(out.view(torch.int32), wanted.view(torch.int32)), name
            total, wanted = chunks_of(["normal", "wide"], seed, 2), chunks_of(["normal", "wide"], seed, 2)
            compiled.add(packed, 0.3, total)
            plain.add(packed, 0.3, wanted, out)
            assert torch.equal(total.isnan(), wanted.isnan()) and torch.equal(total.nan_to_num(), wanted.nan_to_num()), name


@every_codec
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, CHUNK_ELEMENTS, 2 * CHUNK_ELEMENTS + 4095])
def test_both_name_the_first_chunk_that_is_not_finite(name: str, bad: float, at: int) -> None:
    values = torch.ones(3 * CHUNK_ELEMENTS)
    values[at] = values[-1] = bad
    for codec in (CLASSES[name](), CLASSES[name](compiled=False)):
        with pytest.raises(NotFiniteError) as refusal:
            encoded(codec, values.view(3, CHUNK_ELEMENTS))
        assert refusal.value.chunk == at // CHUNK_ELEMENTS


@every_codec
def test_what_is_not_contiguous_goes_the_plain_way(name: str) -> None:
    compiled, plain = CLASSES[name](), CLASSES[name](compiled=False)
    values = torch.randn(4, 2 * CHUNK_ELEMENTS)[:, :CHUNK_ELEMENTS]
    packed = encoded(plain, values.contiguous())
    assert torch.equal(encoded(compiled, values), packed)
    out, wanted = torch.zeros(4, 2 * CHUNK_ELEMENTS)[:, :CHUNK_ELEMENTS], torch.empty(4, CHUNK_ELEMENTS)
    compiled.decode(packed, out)
    plain.decode(packed, wanted)
    assert torch.equal(out, wanted)


@every_codec
def test_packed_bytes_may_stand_at_any_address(name: str) -> None:
    codec, values = CLASSES[name](), torch.randn(2, CHUNK_ELEMENTS)
    packed = encoded(codec, values)
    moved = torch.frombuffer(bytearray(3) + bytearray(packed.numpy().tobytes()), dtype=torch.uint8, offset=3).view(2, -1)
    found, wanted, total = torch.empty(2, CHUNK_ELEMENTS), torch.empty(2, CHUNK_ELEMENTS), torch.zeros(2, CHUNK_ELEMENTS)
    codec.decode(moved, found)
    codec.decode(packed, wanted)
    codec.add(moved, 1.0, total, torch.empty_like(total))
    assert torch.equal(found, wanted) and torch.equal(total, wanted)
    codec.encode(values, moved)
    assert torch.equal(moved, packed)


@every_codec
def test_no_chunks_are_no_work(name: str) -> None:
    for codec in (CLASSES[name](), CLASSES[name](compiled=False)):
        packed = encoded(codec, torch.empty(0, CHUNK_ELEMENTS))
        assert packed.shape == (0, codec.chunk_bytes)
        codec.decode(packed, torch.empty(0, CHUNK_ELEMENTS))
        codec.add(packed, 0.5, torch.empty(0, CHUNK_ELEMENTS), torch.empty(0, CHUNK_ELEMENTS))
