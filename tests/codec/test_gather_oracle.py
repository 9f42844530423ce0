"""What replicas make of a gathered entry of top-k contributions is the oracle's sum, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gather_oracle import gathered_mean
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_decoder_topk import sent

from decentra import build
from decentra.codec.base import Codec, encode
from decentra.codec.topk import TopK
from decentra.config import CodecConfig, RunConfig
from decentra.ledger.apply import averaged
from decentra.ledger.entry import Entry, Sum, Term
from decentra.ledger.objects import object_digest
from decentra.outer.average import coefficient_bits
from decentra.outer.layout import Layout
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

CONFIG = RunConfig(codec=CodecConfig(up="topk", aggregate="gather", feedback=0.95))


def decoder(data: bytes) -> tuple[list[int], np.ndarray]:
    found = sent(data)
    assert found is not None
    return found


def applied(codec: Codec, contributions: list[bytes], weights: list[int], num_chunks: int) -> np.ndarray:
    """The averaged pseudo-gradient that every replica takes from an entry over these contributions."""
    machine = build.machine(CONFIG, Layout.of([("w", (num_chunks * CHUNK_ELEMENTS,))]))
    machine.codecs["topk"] = codec  # type: ignore[index]
    store = {object_digest(data): data for data in contributions}
    terms = tuple(Term(object_digest(d), coefficient_bits(w, sum(weights))) for d, w in zip(contributions, weights, strict=True))
    sums = (Sum(0, -(-num_chunks // BLOCK_CHUNKS), "topk", terms),)
    entry = Entry(b"", "", 0, b"", 0, 0, (), sums, (), (), (), {}, {}, ())
    return torch.cat([block.clone() for _, block in averaged(machine, machine.fragments[0], entry, store.__getitem__)]).numpy()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 2**40), min_size=1, max_size=5), st.floats(-44, 30), st.booleans())
def test_compiled_and_plain_replicas_make_what_the_oracle_makes(seed: int, weights: list[int], exponent: float, tiny: bool) -> None:
    rng, num_chunks = np.random.default_rng(seed), 2
    contributions = []
    for _ in weights:
        values = rng.standard_normal((num_chunks, CHUNK_ELEMENTS)) * 10.0**exponent
        values[:, rng.integers(0, CHUNK_ELEMENTS, 200)] *= 1e-8 if tiny else 100  # peers partly agree on what is large
        contributions.append(encode(TopK(), torch.from_numpy(values.astype(np.float32).reshape(-1))).numpy().tobytes())
    wanted = gathered_mean(contributions, weights, TopK.chunk_bytes, decoder)
    for codec in (TopK(), TopK(compiled=False)):
        assert applied(codec, contributions, weights, num_chunks).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("num_chunks", [1, BLOCK_CHUNKS, 2 * BLOCK_CHUNKS + 3])
def test_so_they_do_over_several_blocks(num_chunks: int) -> None:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(num_chunks * CHUNK_ELEMENTS, generator=generator) for _ in range(3)]
    contributions = [encode(TopK(), each).numpy().tobytes() for each in made]
    wanted = gathered_mean(contributions, [3, 1, 2], TopK.chunk_bytes, decoder)
    assert applied(TopK(), contributions, [3, 1, 2], num_chunks).tobytes() == wanted.tobytes()


def test_a_coordinate_that_one_of_four_sent_gets_a_quarter_of_it() -> None:
    alone, others = torch.zeros(CHUNK_ELEMENTS), torch.zeros(CHUNK_ELEMENTS)
    alone[4000], others[:64] = 8.0, 1.0
    contributions = [encode(TopK(), each).numpy().tobytes() for each in (others, alone, others, others)]
    found = applied(TopK(), contributions, [5, 5, 5, 5], 1)
    assert found[4000] == 2.0 and found[0] == 0.75
