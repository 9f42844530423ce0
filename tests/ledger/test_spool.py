"""Blocks on their way in: kept for one snapshot, believed only by their digests."""

from __future__ import annotations

import pytest

from decentra.ledger import chain
from decentra.ledger.files import DiskFiles, MemoryFiles
from decentra.ledger.spool import Spool

BLOCKS = [bytes([number]) * chain.CHUNK_BYTES for number in range(3)]
DIGESTS = tuple(chain.tensor_block(block) for block in BLOCKS)
ROOT = chain.tree(DIGESTS)


def begun(files: MemoryFiles | DiskFiles | None = None) -> Spool:
    spool = Spool(files if files is not None else MemoryFiles())
    spool.begin(8, b"snapshot 8")
    spool.put_digests(8, ROOT, DIGESTS)
    for number in (0, 2):
        spool.put_block(8, ROOT, number, BLOCKS[number])
    return spool


def test_what_came_is_there_after_a_restart_and_for_the_same_snapshot_only() -> None:
    files = MemoryFiles()
    begun(files)
    again = Spool(files)
    assert again.target() == (8, b"snapshot 8") and again.digests(8, ROOT) == DIGESTS and again.blocks(8, ROOT) == [0, 2]
    assert again.block(8, ROOT, 2, DIGESTS[2]) == BLOCKS[2]
    again.begin(8, b"snapshot 8")
    assert again.blocks(8, ROOT) == [0, 2]
    again.begin(16, b"snapshot 16")
    assert again.target() == (16, b"snapshot 16") and again.blocks(8, ROOT) == [] and files.names("incoming") == ["incoming/16/target"]


def test_dropped_it_leaves_nothing(tmp_path: object) -> None:
    files = MemoryFiles()
    spool = begun(files)
    spool.drop()
    assert spool.target() is None and files.names("incoming") == []


def test_dropped_on_disk_it_leaves_no_folder_either(tmp_path) -> None:  # type: ignore[no-untyped-def]
    files = DiskFiles(tmp_path)
    begun(files).drop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]
    files.close()


@pytest.mark.parametrize("at", [0, 1, 5000, chain.CHUNK_BYTES - 1])
def test_a_block_that_the_disk_changed_is_forgotten(at: int) -> None:
    files = MemoryFiles()
    spool = begun(files)
    name = f"incoming/8/{ROOT.hex()}/2"
    changed = bytearray(BLOCKS[2])
    changed[at] ^= 1
    files.write(name, bytes(changed))
    assert spool.block(8, ROOT, 2, DIGESTS[2]) is None and spool.blocks(8, ROOT) == [0]


def test_digests_that_the_disk_changed_are_none() -> None:
    files = MemoryFiles()
    spool = begun(files)
    name = f"incoming/8/{ROOT.hex()}/digests"
    for at in range(0, 96, 7):
        changed = bytearray(b"".join(DIGESTS))
        changed[at] ^= 1
        files.write(name, bytes(changed))
        assert spool.digests(8, ROOT) == ()
    files.remove(name)
    assert spool.digests(8, ROOT) == ()
