"""Merges: which share is kept, which share is expected, and where a contribution alone leads."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from decentra import build
from decentra.codec.base import encode
from decentra.config import CODECS, CodecConfig, OuterConfig, RunConfig
from decentra.ledger.state import Member, State
from decentra.outer.layout import Layout
from decentra.rounds.merge import expected_share, provisional_point, share_kept
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

STATE = State(
    r=9, sync=4, lineage="", tokens=0, tokens_last_sync=0, members=(Member("alice", 3, True, 4), Member("bob", 1, True, 4)),
    leases={}, fresh_sample=0, pool=(), parts=(), roots=(("", ""),),
)  # fmt: skip


def share(bob: Member, tokens: int = 64) -> float:
    return expected_share(dataclasses.replace(STATE, members=(STATE.members[0], bob)), "alice", tokens, 32, 4)


def test_what_was_counted_keeps_its_share_and_what_was_left_out_keeps_nothing() -> None:
    mix, eager = OuterConfig(alpha=0.3), OuterConfig(merge="eager")
    assert [share_kept(outer, counted) for outer in (mix, eager) for counted in (True, False)] == [0.3, 0.0, 1.0, 0.0]


def test_a_share_is_of_what_the_others_last_claimed_or_a_slot() -> None:
    bob = STATE.members[1]
    assert share(bob) == float(torch.tensor(64 / (64 + 4 * 32), dtype=torch.float64).to(torch.float32)) != 64 / (64 + 4 * 32)
    assert share(dataclasses.replace(bob, last_claim_samples=6)) == 0.25
    assert share(dataclasses.replace(bob, first_sync=5)) == 1.0, "it is not waited for yet"
    assert share(dataclasses.replace(bob, unheard_syncs=1)) == 1.0, "nobody has heard it"
    assert share(bob, tokens=3 * 128) == 0.75


@pytest.mark.parametrize("optimizer", ["nesterov", "sgd"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_provisional_point_is_where_the_decoded_contribution_alone_moves_the_anchor(codec: str, optimizer: str) -> None:
    chunks = BLOCK_CHUNKS + 3
    layout = Layout.of([("w", (chunks, CHUNK_ELEMENTS))])
    machine = build.machine(RunConfig(outer=OuterConfig(optimizer=optimizer), codec=CodecConfig(up=codec)), layout)
    anchor, momentum, gradient = torch.randn(3, chunks * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(0))
    packed, kept, out = encode(machine.codecs[codec], gradient), (anchor.clone(), momentum.clone()), torch.empty_like(anchor)
    provisional_point(machine, packed, 0.375, anchor, momentum, out)
    assert torch.equal(anchor, kept[0]) and torch.equal(momentum, kept[1])
    decoded = torch.empty(chunks, CHUNK_ELEMENTS)
    machine.codecs[codec].decode(packed, decoded)
    machine.outer.apply(anchor, momentum, decoded.view(-1) * 0.375)
    assert torch.equal(out.view(torch.int32), anchor.view(torch.int32))
