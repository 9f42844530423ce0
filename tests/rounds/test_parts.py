"""Blocks of contributions: what is held, what is still missing, and what they are when put together."""

from __future__ import annotations

import torch

from decentra import build
from decentra.codec.base import encode, packed_rows
from decentra.ledger.chain import bytes_block, tree
from decentra.ledger.state import Part
from decentra.rounds.contribution import cut
from decentra.rounds.offers import Offer
from decentra.rounds.parts import HeldContribution, PartStore
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

OFFER = Offer(b"s", b"root", 4, 0, "alice", 3, 3, 100, 2, (), "int8", 3 * BLOCK_CHUNKS, b"d", "")


def store_with(blocks: dict[int, bytes | memoryview]) -> PartStore:
    return PartStore({OFFER.root: HeldContribution(OFFER, (), blocks)})


def test_a_part_is_held_when_all_its_blocks_are() -> None:
    store = store_with({0: b"", 1: b"", 3: b""})
    assert store.holds(b"root", [Part(0, 2, "x"), Part(3, 1, "x")]) and store.holds(b"root", [])
    assert not store.holds(b"root", [Part(0, 3, "x")]) and not store.holds(b"other", [Part(0, 1, "x")])


def test_what_is_missing_is_one_run_of_blocks() -> None:
    store = store_with({0: b"", 2: b"", 5: b""})
    assert store.missing(OFFER, Part(0, 6, "x")) == range(1, 5)
    assert store.missing(OFFER, Part(3, 2, "x")) == range(3, 5)
    assert store.missing(OFFER, Part(2, 1, "x")) is None
    assert PartStore().missing(OFFER, Part(2, 3, "x")) == range(2, 5)
    store.clear()
    assert store.missing(OFFER, Part(0, 1, "x")) == range(0, 1)


def test_blocks_put_together_are_the_rows_that_were_cut() -> None:
    codec = build.codecs()["int8"]
    rows = 2 * BLOCK_CHUNKS + 5
    packed = encode(codec, torch.randn(rows * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(0)))
    blocks, digests, root = cut(packed)
    store = store_with(dict(enumerate(blocks)))
    held = [packed_rows(block, codec) for block in store.blocks({b"root": "alice"}, Part(0, 3, "x"))["alice"]]
    assert torch.equal(torch.cat(held), packed) and [len(rows) for rows in held] == [BLOCK_CHUNKS, BLOCK_CHUNKS, 5]
    (middle,) = store.blocks({b"root": "alice"}, Part(1, 1, "x"))["alice"]
    assert torch.equal(packed_rows(middle, codec), packed[BLOCK_CHUNKS : 2 * BLOCK_CHUNKS])
    assert digests == tuple(map(bytes_block, blocks)) and root == tree(digests)
