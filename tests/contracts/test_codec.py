"""The contract of `Codec`, asked of every codec that can travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra import build
from decentra.codec.base import Codec, NotFiniteError, encode, packed_rows
from decentra.ledger.apply import packed_tensor
from decentra.outer.layout import Layout
from decentra.types import CHUNK_ELEMENTS

CODECS = dict(build.codecs())
CODECS.update({f"{name} in torch": type(codec)(compiled=False) for name, codec in build.codecs().items()})
TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)

KINDS = ["zero", "denormal", "equal", "huge", "normal", "mixed", "negative zero"]

chunk_kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=sorted(CODECS))
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]


def chunks_of(kinds: list[str], seed: int) -> torch.Tensor:
    """(len(kinds) * 4096,) fp32: one chunk of each kind."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((len(kinds), CHUNK_ELEMENTS)).astype(np.float32)
    for row, kind in zip(normal, kinds, strict=True):
        if kind == "mixed":
            row *= np.float32(10) ** rng.integers(-38, 38, CHUNK_ELEMENTS).astype(np.float32)
        else:
            row *= {"zero": 0, "equal": 0, "negative zero": 0, "denormal": 50 * TINY, "huge": HUGE / 8, "normal": 1}[kind]
        if kind == "equal":
            row += np.float32(rng.standard_normal())
        if kind == "negative zero":
            row[:] = -0.0
        if kind == "huge":
            row[0], row[-1] = HUGE, -HUGE
    return torch.from_numpy(normal.reshape(-1))


def decoded(codec: Codec, packed: torch.Tensor) -> torch.Tensor:
    out = torch.full((packed.shape[0], CHUNK_ELEMENTS), float("nan"))
    codec.decode(packed, out)
    return out


def sent(codec: Codec, packed: torch.Tensor) -> torch.Tensor:
    """(n, 4096) bool: of which elements a payload speaks; topk leaves the others as they are."""
    if codec.name != "topk":
        return torch.ones(len(packed), CHUNK_ELEMENTS, dtype=torch.bool)
    marked = packed.clone()
    marked[:, :8] = torch.ones(2).view(torch.uint8)  # both levels
    return decoded(codec, marked) != 0


def bits(values: torch.Tensor) -> bytes:
    return values.numpy().tobytes()


def test_it_travels_under_the_name_it_says(codec: Codec) -> None:
    assert type(CODECS[codec.name]) is type(codec) and 0 < codec.chunk_bytes <= 4 * CHUNK_ELEMENTS


def each_codec(check) -> None:
    for codec in CODECS.values():
        check(codec)


@settings(max_examples=40, deadline=None)
@given(chunk_kinds, seeds)
def test_a_chunk_is_encoded_and_decoded_by_itself_wherever_it_is_cut(kinds: list[str], seed: int) -> None:
    def check(codec: Codec) -> None:
        flat = chunks_of(kinds, seed)
        packed = encode(codec, flat)
        assert packed.shape == (len(kinds), codec.chunk_bytes) and packed.dtype == torch.uint8
        whole = decoded(codec, packed)
        for index, row in enumerate(flat.view(-1, CHUNK_ELEMENTS)):
            alone = encode(codec, row.clone())
            assert bits(alone) == bits(packed[index])
            assert bits(decoded(codec, alone)) == bits(whole[index])

    each_codec(check)


@settings(max_examples=40, deadline=None)
@given(chunk_kinds, seeds)
def test_decoding_repeats_fills_all_is_finite_and_leaves_its_input_alone(kinds: list[str], seed: int) -> None:
    def check(codec: Codec) -> None:
        flat = chunks_of(kinds, seed)
        before = bits(flat)
        packed = encode(codec, flat)
        kept = packed.clone()
        once = decoded(codec, packed)
        assert bool(torch.isfinite(once).all())
        assert bits(once) == bits(decoded(codec, packed))
        assert torch.equal(packed, kept) and bits(flat) == before

    each_codec(check)


@settings(max_examples=40, deadline=None)
@given(chunk_kinds, seeds, st.floats(-2, 2, width=32))
def test_adding_has_the_bits_of_decoding_multiplying_and_then_adding(kinds: list[str], seed: int, factor: float) -> None:
    def check(codec: Codec) -> None:
        packed, total = encode(codec, chunks_of(kinds, seed)), chunks_of(kinds[::-1], seed + 1).view(len(kinds), -1)
        wanted = torch.where(sent(codec, packed), total + decoded(codec, packed) * factor, total)
        codec.add(packed, factor, total, torch.empty_like(total))
        assert bits(total) == bits(wanted)

    each_codec(check)


@settings(max_examples=20, deadline=None)
@given(chunk_kinds, seeds)
def test_one_and_two_threads_make_the_same_bytes(kinds: list[str], seed: int) -> None:
    threads = torch.get_num_threads()

    def check(codec: Codec) -> None:
        flat, found = chunks_of(kinds * 8, seed), []
        for count in (1, 2):
            torch.set_num_threads(count)
            packed = encode(codec, flat)
            found.append((bits(packed), bits(decoded(codec, packed))))
        assert found[0] == found[1]

    try:
        each_codec(check)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["zero", "negative zero"])
def test_zeros_come_back_as_zeros(codec: Codec, kind: str) -> None:
    assert not decoded(codec, encode(codec, chunks_of([kind] * 2, 0))).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_what_is_not_finite_is_refused_with_the_chunk_named(codec: Codec, bad: float, chunk: int) -> None:
    flat = chunks_of(["normal"] * 5, 0)
    flat[chunk * CHUNK_ELEMENTS + 77] = bad
    flat[-1] = bad if chunk < 4 else flat[-1]
    with pytest.raises(NotFiniteError, match=f"chunk {chunk} holds NaN or infinity") as caught:
        encode(codec, flat)
    assert caught.value.chunk == chunk


def test_no_chunks_are_no_bytes(codec: Codec) -> None:
    packed = encode(codec, torch.empty(0))
    assert packed.shape == (0, codec.chunk_bytes)
    assert decoded(codec, packed).shape == (0, CHUNK_ELEMENTS)


def test_a_part_of_a_larger_buffer_is_filled_in_place(codec: Codec) -> None:
    flat = chunks_of(["normal"] * 3, 1)
    packed = torch.zeros(5, codec.chunk_bytes, dtype=torch.uint8)
    codec.encode(flat.view(3, -1), packed[1:4])
    assert torch.equal(packed[1:4], encode(codec, flat)) and not packed[0].any() and not packed[4].any()
    out = torch.zeros(5, CHUNK_ELEMENTS)
    codec.decode(packed[1:4], out[1:4])
    assert torch.equal(out[1:4], decoded(codec, packed[1:4])) and not out[0].any() and not out[4].any()


@pytest.mark.parametrize("elements", [0, 1, 4095, 4096, 4097, 2**31 + 1])
def test_the_size_of_a_payload_follows_from_the_number_of_elements(codec: Codec, elements: int) -> None:
    chunks = Layout.of([("w", (elements,))]).num_chunks
    assert chunks == (elements + 4095) // 4096
    for claimed in (chunks * codec.chunk_bytes - 1, chunks * codec.chunk_bytes + 1, 2**40):
        if claimed >= 0:
            with pytest.raises(ValueError, match=f"{claimed} bytes are not {chunks} chunks of {codec.name}"):
                packed_tensor(Claims(claimed), codec, chunks)


class Claims(bytes):
    """Bytes that say they are many; who would read or copy them finds none."""

    def __new__(cls, claimed: int) -> Claims:
        made = super().__new__(cls)
        made.claimed = claimed
        return made

    def __len__(self) -> int:
        return self.claimed


def test_a_payload_that_is_cut_or_too_long_is_refused(codec: Codec) -> None:
    data = encode(codec, chunks_of(["normal"] * 2, 0)).numpy().tobytes()
    assert torch.equal(packed_tensor(data, codec, 2), packed_rows(data, codec))
    for wrong in (b"", data[:-1], data + b"\0", data[: codec.chunk_bytes], data + data):
        with pytest.raises(ValueError, match=f"{len(wrong)} bytes are not 2 chunks of {codec.name}"):
            packed_tensor(wrong, codec, 2)
    assert packed_tensor(b"", codec, 0).shape == (0, codec.chunk_bytes)
