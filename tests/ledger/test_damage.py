"""A full disk at any write, and a flipped byte in any file: a clear sentence, and nothing that is silently wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from decentra.errors import SetupError, StateError
from decentra.ledger import chain
from decentra.ledger.apply import initial_state
from decentra.ledger.files import DiskFiles, MemoryFiles
from decentra.ledger.sealed import seal, unseal
from decentra.ledger.state import Member, OuterTensors, State, from_header
from decentra.ledger.store import Snapshot, Store, Vote, object_digest
from decentra.outer.fragments import Fragment
from decentra.types import CHUNK_ELEMENTS

PARTS = (Fragment(0, 0, 2),)
ENTRIES = 24


@pytest.fixture(autouse=True)
def early_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decentra.ledger.log.MIN_WASTE_BYTES", 1)


class SmallDisk(MemoryFiles):
    """Room for `room` writes; then the disk is full."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def _take(self, name: str) -> None:
        if self.room == 0:
            raise SetupError(f"cannot write {name}: the disk is full; free some space")
        self.room -= 1

    def write(self, name: str, *data: bytes | memoryview) -> None:
        self._take(name)
        super().write(name, *data)

    def append(self, name: str, data: bytes) -> None:
        self._take(name)
        super().append(name, data)


def tensors(r: int) -> OuterTensors:
    return OuterTensors(*(torch.full((2 * CHUNK_ELEMENTS,), r + part) for part in (0.0, 0.5)))


def snapshot(r: int) -> Snapshot:
    return Snapshot(r, initial_state(Member("p" * 32, 1, True, 4), tensors(r), PARTS, 100).header(), b"\1" * 32, b"\2" * 32)


def certified(r: int) -> bytes:
    return b"entry %d" % r * 20


def blob(r: int) -> bytes:
    return b"blob %d" % r * 50


def steps(store: Store, first_r: int = 0) -> Iterator[Callable[[], object]]:
    """Everything a node writes, in its order; going on from any of them."""
    spool, block = store.spool, bytes(chain.CHUNK_BYTES)
    root = chain.tree([chain.tensor_block(block)])
    for r in range(first_r, ENTRIES):
        yield lambda r=r: store.put_blob(blob(r), r)
        yield lambda r=r: store.save_vote(Vote(r, 0, 0, certified(r)))
        yield lambda r=r: store.append(r, certified(r))
        if r % 4 == 0:
            yield lambda r=r: store.save_offer(r, b"signed %d" % r)
            yield lambda r=r: store.keep_contacts([b"contact %d" % r])
            yield lambda r=r: store.save_snapshot(snapshot(r), tensors(r), PARTS)
            yield lambda: store.prune(2)
            yield lambda r=r: spool.begin(r, b"target")
            yield lambda r=r: spool.put_digests(r, root, [root])
            yield lambda r=r: spool.put_block(r, root, 0, block)
    yield spool.drop


def check(store: Store, last_r: int) -> None:
    """What is there is whole, and it is what was written."""
    held = store.entries(store.oldest_entry(), 10**6)
    assert all(data == certified(r) for r, data in held) and (not held or held[-1][0] >= last_r)
    kept = store.snapshots()
    for r in kept:
        into = tensors(-1)
        assert store.snapshot(r) == snapshot(r) and isinstance(store.load_tensors(r, into, PARTS), State)
        assert torch.equal(into.anchor, tensors(r).anchor) and torch.equal(into.momentum, tensors(r).momentum)
        for root in from_header(store.snapshot(r).header).roots[0]:
            assert store.served(bytes.fromhex(root)).block_digests
    for r, _ in held:
        if not kept or r >= kept[0]:
            assert store.blob(object_digest(blob(r))) == blob(r)
    assert store.vote.r >= last_r


def writes_of_a_run() -> int:
    disk = SmallDisk(10**6)
    for step in steps(Store.open(disk, lambda: 7)):
        step()
    return 10**6 - disk.room


def test_a_disk_that_is_full_at_any_write_says_so_and_loses_nothing_and_the_run_goes_on_when_there_is_room() -> None:
    for room in range(1, writes_of_a_run()):
        disk = SmallDisk(room)
        store = Store.open(disk, lambda: 7)
        last_r = -1
        with pytest.raises(SetupError, match="the disk is full; free some space"):
            for step in steps(store):
                step()
                last_r = max((r for r, _ in store._log), default=-1)
        disk.room = 10**6
        for found in (store, Store.open(disk, lambda: 8)):
            check(found, last_r)
        assert found.incarnation == 7
        for step in steps(found, last_r + 1):
            step()
        check(Store.open(disk), ENTRIES - 1)


def test_a_disk_without_any_room_is_said_at_once() -> None:
    with pytest.raises(SetupError, match=r"cannot write vote\.json: the disk is full"):
        Store.open(SmallDisk(0), lambda: 7)


def finished() -> MemoryFiles:
    files = MemoryFiles()
    store = Store.open(files, lambda: 7)
    for step in list(steps(store))[:-1]:
        step()
    return files


def read_all(files: MemoryFiles) -> object:
    """Open and use everything; what was read, where no damage was noticed."""
    store = Store.open(files, lambda: 8)
    kept = {r: (store.snapshot(r), store.load_tensors(r, tensors(-1), PARTS)) for r in store.snapshots()}
    blobs = [store.blob(object_digest(blob(r))) for r in range(min(kept), ENTRIES)]
    return list(store._log), store.vote, store.incarnation, store.last_offer_sync(), kept, blobs


@pytest.mark.parametrize("share", [0.0, 0.13, 0.37, 0.5, 0.71, 0.93, 1.0])
def test_a_flipped_byte_in_any_file_is_noticed_and_the_sentence_says_what_to_do(share: float) -> None:
    whole = read_all(finished())
    for name in sorted(finished()._files):
        for bit in (0x01, 0x20, 0x80):
            files = finished()
            data = bytearray(files.read(name) or b"")
            data[round(share * (len(data) - 1))] ^= bit
            files.write(name, bytes(data))
            if name.startswith(("incoming/", "contacts")):
                assert read_all(files) == whole, "what can be fetched again does no harm"
                continue
            with pytest.raises(StateError, match=r"join again|come back as a newcomer"):
                read_all(files)


def test_contacts_that_the_disk_changed_are_none() -> None:
    files = finished()
    assert Store.open(files).contacts() == [b"contact 20"]
    data = bytearray(files.read("contacts.json") or b"")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        files.write("contacts.json", bytes(changed))
        assert Store.open(files).contacts() == []


def test_any_flipped_bit_of_a_sealed_file_is_noticed() -> None:
    data = {"promised": 3, "accepted_entry": "00ff", "list": ["a", "b"], "none": None}
    raw = seal(data)
    assert unseal(raw) == data
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(ValueError):
                unseal(bytes(changed))
    with pytest.raises(ValueError, match="checksum"):
        unseal(b'{"promised": 3}')


def test_a_damaged_object_is_not_given_away() -> None:
    files = MemoryFiles()
    store = Store.open(files, lambda: 7)
    name = store.put_blob(blob(1), 1)
    files.write(files.names("blobs")[0], blob(2))
    with pytest.raises(StateError, match=r"blobs/\w+\.1 is damaged on disk; move the state directory away and join again"):
        store.served(name)


def test_an_object_that_is_pruned_while_it_is_served_is_missing_not_wrong() -> None:
    store = Store.open(MemoryFiles(), lambda: 7)
    served = store.served(store.put_blob(blob(0), 0))
    for r in (4, 8):
        store.save_snapshot(snapshot(r), tensors(r), PARTS)
    store.prune(2)
    with pytest.raises(KeyError):
        store.block(served, 0)


def test_threads_that_put_and_serve_the_same_objects_do_not_disturb_each_other(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    store = Store.open(files, lambda: 7)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for r in range(30):
                name = store.put_blob(blob(r), r)
                assert store.block(store.served(name), 0) == blob(r) == store.blob(name)
                store.keep_contacts([b"contact %d" % r])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(files.names("blobs")) == 30 and not list(tmp_path.rglob("*.tmp"))
    files.close()


def test_what_a_crash_left_half_written_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir(parents=True)
    (tmp_path / "blobs" / "abc.1.7.tmp").write_bytes(b"half")
    files = DiskFiles(tmp_path)
    assert not list(tmp_path.rglob("*.tmp")) and Store.open(files, lambda: 7).incarnation == 7
    files.close()
