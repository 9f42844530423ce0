"""topk: which elements are sent, as what, what they may lose, and what becomes of bytes that no encoder writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_decoder import decode as decode_in_numpy
from numpy_decoder_topk import sent

from decentra.codec import kernels
from decentra.codec.base import NotFiniteError, encode
from decentra.codec.topk import K, TopK
from decentra.types import CHUNK_ELEMENTS

COMPILED, PLAIN = TopK(), TopK(compiled=False)
NAN_BITS = 0x7FC00000
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["bits", "normal", "ties", "few", "one", "zeros", "equal", "denormal", "huge", "clustered"])


def chunk_of(kind: str, seed: int) -> np.ndarray:
    """(4096,) fp32, finite."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(CHUNK_ELEMENTS)
    if kind == "bits":
        values = rng.integers(0, 2**32, CHUNK_ELEMENTS, dtype=np.uint32).view(np.float32)
        return np.where(np.isfinite(values), values, np.finfo(np.float32).max)
    if kind == "clustered":
        normal[: int(rng.integers(1, 200))] *= 1000
    scale = {"denormal": 20 * 2.0**-149, "huge": 1e38}.get(kind, 1.0)
    made = {
        "ties": rng.integers(-4, 5, CHUNK_ELEMENTS),
        "few": normal * (rng.random(CHUNK_ELEMENTS) < rng.uniform(0, 0.03)),
        "one": np.where(np.arange(CHUNK_ELEMENTS) == rng.integers(CHUNK_ELEMENTS), -7.0, 0.0),
        "zeros": np.where(rng.random(CHUNK_ELEMENTS) < 0.5, -0.0, 0.0),
        "equal": np.full(CHUNK_ELEMENTS, normal[0]),
    }.get(kind, normal)
    return np.clip(made * scale, -3.4e38, 3.4e38).astype(np.float32)


def coded(chunks: np.ndarray, codec: TopK = COMPILED) -> torch.Tensor:
    return encode(codec, torch.from_numpy(chunks.reshape(-1)))


def decoded(packed: torch.Tensor, codec: TopK = COMPILED) -> np.ndarray:
    out = torch.full((len(packed), CHUNK_ELEMENTS), 5.0)
    codec.decode(packed, out)
    return out.numpy()


def added(packed: torch.Tensor, total: np.ndarray, factor: float, codec: TopK = COMPILED) -> np.ndarray:
    out = torch.from_numpy(total.copy())
    codec.add(packed, factor, out, torch.empty_like(out))
    return out.numpy()


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return bool((left.view(np.uint32) == right.view(np.uint32)).all())


def opened(packed: torch.Tensor) -> tuple[list[int], np.ndarray]:
    found = sent(packed.numpy().tobytes())
    assert found is not None
    return found


# -- which and what -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(kinds, seeds)
def test_the_64_of_largest_magnitude_are_sent_and_of_equals_the_first(kind: str, seed: int) -> None:
    values = chunk_of(kind, seed)
    order = sorted(range(CHUNK_ELEMENTS), key=lambda i: (-abs(float(values[i])), i))
    assert opened(coded(values)[0])[0] == sorted(order[:K])


@settings(max_examples=100, deadline=None)
@given(kinds, seeds)
def test_no_two_levels_lose_less_and_signs_are_kept(kind: str, seed: int) -> None:
    values = chunk_of(kind, seed).astype(np.float64)
    indices, found = opened(coded(values.astype(np.float32))[0])
    magnitudes = np.sort(np.abs(values[indices]))
    splits = [(magnitudes[:n], magnitudes[n:]) for n in range(1, K)]
    best = min(sum(((half - half.mean()) ** 2).sum() for half in split) for split in splits)
    slack = 1e-6 * (magnitudes**2).sum() + K * 2.0**-149 * magnitudes.max() + K * 2.0**-298
    assert ((values[indices] - found) ** 2).sum() <= best + slack
    assert ((values[indices] < 0) == np.signbit(found)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=4), seeds, st.floats(-2, 2, width=32))
def test_kernels_torch_and_the_decoder_of_the_document_agree_to_the_bit(names: list[str], seed: int, factor: float) -> None:
    chunks = np.stack([chunk_of(kind, seed + n) for n, kind in enumerate(names)])
    packed = coded(chunks)
    assert torch.equal(packed, coded(chunks, PLAIN))
    assert same(decoded(packed), decoded(packed, PLAIN)) and same(decoded(packed), decode_in_numpy("topk", packed.numpy().tobytes()))
    total = np.stack([chunk_of("ties", seed + n) * np.float32(0.1) for n in range(len(names))])
    assert same(added(packed, total, factor), added(packed, total, factor, PLAIN))


def test_at_most_64_values_that_are_all_alike_come_back_whole() -> None:
    values = np.zeros(CHUNK_ELEMENTS, np.float32)
    values[[5, 900, 4095]] = 3.5, -3.5, 3.5
    assert same(decoded(coded(values))[0], values)
    assert opened(coded(values)[0])[0] == [*range(62), 900, 4095]  # zeros fill it up, the first of them


@pytest.mark.parametrize(
    ("name", "bound"), [("normal", 0.004), ("laplace", 0.012), ("student 3", 0.07), ("mixed scales", 0.004)]
)
def test_the_error_of_what_is_sent_is_below_that_of_two_levels_for_a_whole_tensor(name: str, bound: float) -> None:
    """Relative squared error over the sent elements of 200 chunks; whole-tensor levels lose 0.42, 1.29, 15 and 21 %."""
    rng, shape = np.random.default_rng(0), (200, CHUNK_ELEMENTS)
    made = {"laplace": rng.laplace(size=shape), "student 3": rng.standard_t(3, size=shape)}.get(name, rng.standard_normal(shape))
    if name == "mixed scales":
        made *= np.exp(rng.standard_normal((len(made), 1)))
    values = made.astype(np.float32)
    found = decoded(coded(values))
    where = found != 0
    assert where.sum() == K * len(values)
    assert ((values - found)[where].astype(np.float64) ** 2).sum() <= bound * (values[where].astype(np.float64) ** 2).sum()


# -- adding -------------------------------------------------------------------------------------------------------------


def test_what_was_not_sent_stays_as_it_is_even_minus_zero() -> None:
    packed, total = coded(chunk_of("normal", 1)), np.full((1, CHUNK_ELEMENTS), -0.0, np.float32)
    for codec in (COMPILED, PLAIN):
        found, where = added(packed, total, 0.5, codec)[0], opened(packed[0])[0]
        others = np.delete(found, where)
        assert (np.signbit(others) & (others == 0)).all() and (found[where] != 0).all()


# -- bytes that no encoder writes -----------------------------------------------------------------------------------------


def malformed(how: str) -> torch.Tensor:
    packed = coded(np.stack([chunk_of("normal", n) for n in range(3)]))
    bad = packed[1].numpy()
    indices = opened(packed[1])[0]
    pair = next(k for k in range(K - 1) if indices[k] >> 6 == indices[k + 1] >> 6)
    lower = np.unpackbits(bad[40:], bitorder="little").reshape(K, 6)
    if how == "one index too few":
        bad[np.flatnonzero(bad[8:24])[0] + 8] &= bad[np.flatnonzero(bad[8:24])[0] + 8] - 1
    elif how == "one index too many":
        bad[8 + int(np.flatnonzero(bad[8:24] != 255)[0])] = 255
    elif how == "an index beyond the chunk":
        bad[8:24] = np.packbits(np.arange(128) >= 64, bitorder="little")
    elif how == "an index twice":
        lower[pair + 1] = lower[pair]
    elif how == "indices out of order":
        lower[[pair, pair + 1]] = lower[[pair + 1, pair]]
    else:
        level = {"nan": np.nan, "infinite": np.inf, "negative": -1.0, "-0": -0.0}[how.split()[0]]
        bad[4:8] = np.frombuffer(np.float32(level).tobytes(), np.uint8)
    if how.startswith("ind") or how == "an index twice":
        bad[40:] = np.packbits(lower.reshape(-1), bitorder="little")
    return packed


@pytest.mark.parametrize(
    "how",
    [
        "one index too few", "one index too many", "an index beyond the chunk", "an index twice", "indices out of order",
        "nan level", "infinite level", "negative level", "-0 level",
    ],
)  # fmt: skip
def test_a_malformed_chunk_is_nan_throughout_and_its_neighbours_are_not(how: str) -> None:
    packed = malformed(how)
    total = np.ones((3, CHUNK_ELEMENTS), np.float32)
    for codec in (COMPILED, PLAIN):
        for found in (decoded(packed, codec), added(packed, total, 0.25, codec)):
            assert (found[1].view(np.uint32) == NAN_BITS).all() and np.isfinite(found[[0, 2]]).all()
    assert same(decoded(packed), decode_in_numpy("topk", packed.numpy().tobytes()))


@settings(max_examples=100, deadline=None)
@given(kinds, seeds, st.lists(st.integers(0, 88 * 8 - 1), max_size=4), st.booleans())
def test_any_bytes_decode_alike_to_64_finite_values_or_to_nan(kind: str, seed: int, flips: list[int], noise: bool) -> None:
    packed = coded(np.stack([chunk_of(kind, seed), chunk_of("normal", seed)]))
    for bit in flips:
        packed[0, bit // 8] ^= 1 << bit % 8
    if noise:
        packed[1] = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, 88, dtype=np.uint8))
    found = decoded(packed)
    assert same(found, decoded(packed, PLAIN)) and same(found, decode_in_numpy("topk", packed.numpy().tobytes()))
    total = np.ones_like(found)
    assert same(added(packed, total, 0.3), added(packed, total, 0.3, PLAIN))
    for row in found:
        assert (row.view(np.uint32) == NAN_BITS).all() or (np.isfinite(row).all() and (row != 0).sum() <= K)


# -- input that cannot be sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 4095, 2 * CHUNK_ELEMENTS + 17])
@pytest.mark.parametrize("codec", [COMPILED, PLAIN], ids=["compiled", "plain"])
def test_the_first_chunk_that_is_not_finite_is_named(bad: float, at: int, codec: TopK) -> None:
    values = np.ones((3, CHUNK_ELEMENTS), np.float32)
    values.reshape(-1)[at] = bad
    with pytest.raises(NotFiniteError) as refusal:
        coded(values, codec)
    assert refusal.value.chunk == at // CHUNK_ELEMENTS


def test_what_is_not_contiguous_goes_the_plain_way() -> None:
    wide = torch.randn(3, 2 * CHUNK_ELEMENTS)
    out, total = torch.empty(3, 88, dtype=torch.uint8), torch.randn(3, 2 * CHUNK_ELEMENTS)
    COMPILED.encode(wide[:, :CHUNK_ELEMENTS], out)
    assert torch.equal(out, coded(wide[:, :CHUNK_ELEMENTS].contiguous().numpy()))
    before = total.clone()
    COMPILED.add(out, 0.5, total[:, :CHUNK_ELEMENTS], torch.empty(0))
    assert same(total[:, :CHUNK_ELEMENTS].numpy(), added(out, before[:, :CHUNK_ELEMENTS].contiguous().numpy(), 0.5))
    assert torch.equal(total[:, CHUNK_ELEMENTS:], before[:, CHUNK_ELEMENTS:])


def test_the_kernels_are_there_wherever_any_are() -> None:
    assert (kernels.of("topk") is not None) == kernels.available()


@pytest.mark.parametrize("device", DEVICES)
def test_any_device_decodes_and_adds_alike(device: str) -> None:
    packed = torch.cat([malformed("an index twice"), coded(np.stack([chunk_of("huge", 1), chunk_of("few", 2)]))])
    total = torch.randn(len(packed), CHUNK_ELEMENTS)
    out, there = torch.empty(total.shape, device=device), total.clone().to(device)
    PLAIN.decode(packed.to(device), out)
    PLAIN.add(packed.to(device), 0.3, there, torch.empty_like(there))
    assert same(out.cpu().numpy(), decoded(packed)) and same(there.cpu().numpy(), added(packed, total.numpy(), 0.3))
