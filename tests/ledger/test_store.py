"""The store by itself: votes, offers, blobs, pruning, reopening."""

from __future__ import annotations

import pytest
import torch

from decentra.errors import StateError
from decentra.ledger.apply import initial_state
from decentra.ledger.chain import bytes_block
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import Member, OuterTensors, from_header
from decentra.ledger.store import Snapshot, Store, Vote, object_digest
from decentra.outer.fragments import fragments
from decentra.types import CHUNK_ELEMENTS, FILE_BLOCK_BYTES

PARTS = fragments(2)


def opened(files: MemoryFiles | None = None, incarnation: int = 7) -> Store:
    return Store.open(files if files is not None else MemoryFiles(), lambda: incarnation)


def tensors(seed: int) -> OuterTensors:
    generator = torch.Generator().manual_seed(seed)
    return OuterTensors(*(torch.randn(2 * CHUNK_ELEMENTS, generator=generator) for _ in range(2)))


def snapshot(r: int, of: OuterTensors) -> Snapshot:
    state = initial_state(Member("p" * 32, 1, True, 4), of, PARTS, 100)
    return Snapshot(r, state.header(), b"\1" * 32, b"\2" * 32)


def test_a_vote_and_its_incarnation_outlive_a_restart() -> None:
    files = MemoryFiles()
    vote = Vote(3, promised=2, accepted_ballot=2, accepted_entry=b"\0entry\xff", proposed=1)
    opened(files).save_vote(vote)
    again = opened(files, incarnation=8)
    assert (again.vote, again.incarnation) == (vote, 7)


def test_an_empty_vote_store_is_a_new_incarnation_and_a_damaged_one_is_an_error() -> None:
    files = MemoryFiles()
    assert opened(files).incarnation == 7
    files.remove("vote.json")
    assert opened(files, incarnation=8).incarnation == 8
    files.write("vote.json", (files.read("vote.json") or b"")[:-3])
    with pytest.raises(StateError, match="delete it to come back as a newcomer"):
        opened(files)


def test_the_sync_of_the_last_offer_is_known_after_a_restart() -> None:
    files = MemoryFiles()
    store = opened(files)
    assert store.last_offer_sync() == -1
    store.save_offer(4, b"signed")
    assert opened(files).last_offer_sync() == 4


def test_a_log_that_begins_late_gives_entries_from_there_on() -> None:
    store = opened()
    assert store.entries(0, 5) == [] and store.oldest_entry() == 0
    for r in (5, 6, 7, 8):
        store.append(r, b"entry %d" % r)
    assert [r for r, _ in store.entries(6, 2)] == [6, 7] and store.oldest_entry() == 5
    assert store.entries(4, 5) == [] == store.entries(9, 5)
    again = opened(store.files)
    assert again.entries(5, 10) == store.entries(5, 10)
    store.restart_log()
    assert store.entries(6, 1) == [] == opened(store.files).entries(6, 1)


def test_a_blob_put_in_blocks_is_the_blob_and_one_about_to_be_asked_for_is_served_from_memory_for_its_entry() -> None:
    store = opened()
    data = bytes(range(256)) * (2 * FILE_BLOCK_BYTES // 256) + b"tail"
    blocks = [data[i : i + FILE_BLOCK_BYTES] for i in range(0, len(data), FILE_BLOCK_BYTES)]
    name = store.put_blocks(blocks, [bytes_block(block) for block in blocks], 3)
    assert name == object_digest(data) and store.blob(name) == data
    other = store.put_blob(memoryview(data)[1:], 4, serve=True)
    store.files.remove(f"blobs/{other.hex()}.4")
    served = store.served(other)
    assert b"".join(store.block(served, b) for b in range(3)) == data[1:]
    store.put_blob(b"of the next entry", 5, serve=True)
    with pytest.raises(KeyError):
        store.block(store.served(other), 0)


def test_blobs_are_found_by_digest_after_a_restart_and_kept_once() -> None:
    store = opened()
    data = bytes(range(256)) * 10
    name = store.put_blob(data, 3)
    assert name == object_digest(data) == store.put_blob(data, 9)
    again = opened(store.files)
    assert again.has(name) and again.blob(name) == data and len(again.files.names("blobs")) == 1
    with pytest.raises(KeyError):
        again.blob(b"\0" * 32)


def test_files_are_served_in_blocks_that_hash_to_their_name() -> None:
    store = opened()
    data = b"ab" * (FILE_BLOCK_BYTES // 2) + b"tail"
    name = store.put_file("train.bin", data)
    served = store.served(name)
    assert [store.block(served, b) for b in range(2)] == [data[:FILE_BLOCK_BYTES], data[FILE_BLOCK_BYTES:]]
    assert (len(served.block_digests), served.block_bytes) == (2, FILE_BLOCK_BYTES)
    assert opened(store.files).register_file("train.bin") == name
    with pytest.raises(KeyError):
        store.register_file("nothing.bin")


def test_a_snapshot_comes_back_bit_for_bit_and_its_tensors_are_served() -> None:
    store, of = opened(), tensors(0)
    taken = snapshot(8, of)
    store.save_snapshot(taken, of, PARTS)
    again, into = opened(store.files), OuterTensors(torch.zeros(2 * CHUNK_ELEMENTS), torch.zeros(2 * CHUNK_ELEMENTS))
    assert again.snapshots() == [8] and again.snapshot(8) == taken
    assert again.load_tensors(8, into, PARTS) == from_header(taken.header)
    assert torch.equal(into.anchor, of.anchor) and torch.equal(into.momentum, of.momentum)
    for root in from_header(taken.header).roots[0]:
        assert again.served(bytes.fromhex(root)).block_digests


def test_a_snapshot_without_its_link_is_not_one() -> None:
    store, of = opened(), tensors(0)
    for r in (8, 16):
        store.save_snapshot(snapshot(r, of), of, PARTS)
    store.files.remove("snapshots/16/link.json")
    assert opened(store.files).snapshots() == [8]


def test_pruning_keeps_the_last_snapshots_and_every_blob_since_the_older() -> None:
    store = opened()
    blobs = {r: store.put_blob(b"blob of %d" % r, r) for r in range(12)}
    kept_file = store.put_file("tokenizer.model", b"model")
    for r in (0, 4, 8):
        store.save_snapshot(snapshot(r, tensors(r)), tensors(r), PARTS)
    store.prune(2)
    for found in (store, opened(store.files)):
        assert found.snapshots() == [4, 8]
        assert [r for r, name in blobs.items() if found.has(name)] == list(range(4, 12))
    assert store.has(kept_file)
    opened().prune(2)


def test_a_blob_that_a_later_entry_names_again_outlives_the_pruning_of_the_earlier() -> None:
    store = opened()
    name = store.put_blob(b"the same bytes", 1)
    assert store.put_blob(b"the same bytes", 6) == name
    for r in (0, 4, 8):
        store.save_snapshot(snapshot(r, tensors(r)), tensors(r), PARTS)
    store.prune(2)
    assert store.has(name) and store.blob(name) == b"the same bytes"
    assert opened(store.files).blob(name) == b"the same bytes"
