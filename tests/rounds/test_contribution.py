"""A contribution made block by block is the one made whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra import build
from decentra.codec.base import NotFiniteError, encode
from decentra.ledger import chain
from decentra.outer.feedback import compensate
from decentra.rounds.contribution import cut, encode_contribution
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

INT8 = build.codecs()["int8"]


@pytest.mark.parametrize("rows", [1, BLOCK_CHUNKS, 2 * BLOCK_CHUNKS + 3])
def test_blocks_one_after_another_are_the_whole(rows):
    anchor, local = torch.randn(2, rows * CHUNK_ELEMENTS)
    made = encode_contribution(INT8, anchor, local)
    assert torch.equal(made.packed, encode(INT8, anchor - local)) and made.residual is None
    assert made.norm == pytest.approx(float((anchor - local).double().norm()), rel=1e-5)
    assert b"".join(made.blocks) == made.packed.numpy().tobytes() and made.blocks_digest == chain.tree(made.block_digests)
    assert b"".join(made.blocks) == made.packed.numpy().tobytes()


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_what_decodes_and_what_is_left_are_what_came_in(decay):
    rows = BLOCK_CHUNKS + 2
    anchor, local, before = torch.randn(3, rows * CHUNK_ELEMENTS)
    made = encode_contribution(INT8, anchor, local, before, decay)
    whole = (anchor - local) + (before if decay == 1.0 else before * decay)
    decoded = torch.empty(rows, CHUNK_ELEMENTS)
    INT8.decode(encode(INT8, whole), decoded)
    assert torch.equal(made.packed, encode(INT8, whole)) and torch.equal(made.residual, whole - decoded.view(-1))


def lost_to_rounding(case):
    """residual + decoded = pseudo-gradient + decay * former residual, to one rounding: half an ulp of the residual."""
    seed, codec, decay, exponent, spread = case
    rng = np.random.default_rng(seed)
    scale = 10.0 ** (exponent - rng.uniform(0, spread, (3, 2 * CHUNK_ELEMENTS)))
    anchor, local, before = torch.from_numpy((rng.standard_normal(scale.shape) * scale).astype(np.float32))
    compensated = anchor - local
    compensate(compensated, before, decay)
    made = encode_contribution(codec, anchor, local, before, decay)
    decoded = torch.empty(2, CHUNK_ELEMENTS)
    codec.decode(made.packed, decoded)
    off = (made.residual.double() + decoded.view(-1).double() - compensated.double()).abs().numpy()
    assert (off <= np.spacing(made.residual.abs().numpy()) / 2).all()
    if codec.name == "topk":
        unsent = decoded.view(-1) == 0
        assert torch.equal(made.residual[unsent], compensated[unsent])


cases = st.tuples(
    st.integers(0, 2**32 - 1),
    st.sampled_from([build.codecs()[name] for name in ("int8", "topk")]),
    st.sampled_from([1.0, 0.95, 0.5]),
    st.integers(-40, 35),
    st.integers(0, 12),
)


@settings(max_examples=200, deadline=None)
@given(cases)
def test_nothing_is_lost_but_to_one_rounding(case):
    lost_to_rounding(case)


@pytest.mark.soak
@settings(max_examples=2_000, deadline=None)
@given(cases)
def test_nothing_is_lost_but_to_one_rounding_two_thousand_times(case):
    lost_to_rounding(case)


def test_a_chunk_that_is_not_finite_is_named_by_its_place_in_the_fragment():
    anchor, local = torch.zeros(2, (BLOCK_CHUNKS + 2) * CHUNK_ELEMENTS)
    local[(BLOCK_CHUNKS + 1) * CHUNK_ELEMENTS] = float("nan")
    with pytest.raises(NotFiniteError) as refusal:
        encode_contribution(INT8, anchor, local)
    assert refusal.value.chunk == BLOCK_CHUNKS + 1


def test_cutting_copies_nothing():
    packed = torch.zeros(BLOCK_CHUNKS + 1, INT8.chunk_bytes, dtype=torch.uint8)
    blocks, digests, _ = cut(packed)
    packed[0, 0] = 7
    assert blocks[0][0] == 7 and len(blocks) == len(digests) == 2
