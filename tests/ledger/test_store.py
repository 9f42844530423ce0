"""The store by itself: votes, offers, blobs, pruning, reopening."""

from __future__ import annotations

import pytest
import torch

from decentra.errors import StateError
from decentra.ledger.apply import initial_state
from decentra.ledger.chain import bytes_block, tree
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import Member, OuterTensors, from_header
from decentra.ledger.store import Snapshot, Store, Vote, object_digest
from decentra.outer.fragments import Fragment
from decentra.types import CHUNK_ELEMENTS, FILE_BLOCK_BYTES

PARTS = (Fragment(0, 0, 2),)


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


def test_votes_and_offers_of_one_lineage_leave_those_of_another_alone() -> None:
    store = opened()
    first, second = Vote(9, promised=3, accepted_ballot=3, accepted_entry=b"x"), Vote(4, promised=1, lineage="ab")
    store.save_vote(first)
    store.save_offer(8, b"signed")
    assert store.vote_in("ab") == Vote(0, lineage="ab") and store.last_offer_sync("ab") == -1
    store.save_vote(second)
    store.save_offer(3, b"signed", "ab")
    for kept in (store, opened(store.files)):
        assert (kept.vote_in(""), kept.vote_in("ab"), kept.vote, kept.incarnation) == (first, second, second, 7)
        assert (kept.last_offer_sync(), kept.last_offer_sync("ab"), kept.last_offer_sync("cd")) == (8, 3, -1)
    store.save_vote(first)
    assert opened(store.files).vote == first and opened(store.files).vote_in("ab") == second


def test_a_ledger_set_aside_is_a_state_directory_of_its_own() -> None:
    store, held = opened(), tensors(1)
    store.files.write("manifest.bin", b"manifest")
    store.save_snapshot(snapshot(4, held), held, PARTS)
    store.append(4, b"entry")
    blob, shard = store.put_blob(b"blob", 4), store.put_file("data.bin", b"text")
    folder = store.set_aside("first-5")
    assert folder == "aside/first-5" and (store.snapshots(), store.entries(4, 1)) == ([], [])
    assert not store.has(blob) and store.has(shard) and opened(store.files).snapshots() == []
    moved = MemoryFiles()
    for name in store.files.names(folder):
        moved.write(name.removeprefix(f"{folder}/"), store.files.read(name) or b"")
    again = Store.open(moved)
    assert again.snapshots() == [4] and again.entries(4, 1) == [(4, b"entry")] and again.blob(blob) == b"blob"
    assert moved.read("manifest.bin") == b"manifest" and moved.read("vote.json") is None
    assert store.set_aside("first-5") == "aside/first-5-2"


@pytest.mark.parametrize("moves", range(7))
def test_a_crash_while_a_ledger_is_set_aside_leaves_a_store_that_opens_to_whole_snapshots_only(moves: int) -> None:
    class Dying(MemoryFiles):
        left = moves

        def move(self, name: str, target: str) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            super().move(name, target)

    store, held = opened(files := Dying()), tensors(1)
    for r in (2, 4):
        store.save_snapshot(snapshot(r, held), held, PARTS)
    store.append(4, b"entry")
    with pytest.raises(KeyboardInterrupt):
        store.set_aside("first-5")
    again, found = opened(files), tensors(2)
    assert again.entries(4, 1) == ([] if moves else [(4, b"entry")]), "the log goes first: no entry stands without its snapshot"
    for r in again.snapshots():
        again.load_tensors(r, found, PARTS)
    assert len(again.snapshots()) == max(0, 2 - max(0, moves - 1))


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
    part = memoryview(data)[1:]
    digests = store.serve_blob(part, 4)
    other = tree(digests)
    assert other == object_digest(part) and not store.has(other)
    for kept in (False, True):
        if kept:
            assert store.put_blocks([part[i : i + FILE_BLOCK_BYTES] for i in range(0, len(part), FILE_BLOCK_BYTES)], digests, 4) == other
            assert store.blob(other) == part
            store.files.remove(f"blobs/{other.hex()}.4")
        served = store.served(other)
        assert b"".join(store.block(served, b) for b in range(3)) == part
    store.serve_blob(memoryview(b"of the next entry"), 5)
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
