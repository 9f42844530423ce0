"""SIGKILL at random instants never leaves a state directory that fails to open, or that opens to what was not committed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import store_driver as driver

from decentra.ledger import chain
from decentra.ledger.files import DiskFiles
from decentra.ledger.store import Store

DRIVER = Path(__file__).with_name("store_driver.py")


def kill_once(folder: Path, after_s: float) -> int:
    """Drive the store, kill it `after_s` after its first durable entry; the last entry it called durable."""
    process = subprocess.Popen([sys.executable, str(DRIVER), str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after_s)
    process.kill()
    rest = process.stdout.read().splitlines()
    process.wait()
    complete = [line for line in (first, *rest) if line.strip()]
    return int(complete[-1])


def check(folder: Path, durable: int) -> None:
    files = DiskFiles(folder)
    try:
        store = Store.open(files, lambda: 2)
        held = store.entries(store.oldest_entry(), 10**9)
        kept = store.snapshots()
        first, end = (held[0][0], held[-1][0] + 1) if held else (kept[0], kept[0])
        assert [r for r, _ in held] == list(range(first, end)) and end > durable
        assert all(data == driver.certified(r) for r, data in held)
        assert store.incarnation == 1
        assert store.vote.r >= end - 1 and store.vote.accepted_entry == driver.certified(store.vote.r)
        for r in kept:
            filled = driver.tensors(0)
            store.load_tensors(r, filled, (driver.FRAGMENT,))
            assert store.snapshot(r) == driver.snapshot(r)
            assert (filled.anchor.numpy() == driver.tensors(r).anchor.numpy()).all()
        assert first <= (kept[0] if kept else 0)
        for r in range(kept[0] if kept else 0, end):
            assert store.blob(store.put_blob(driver.blob(r), r)) == driver.blob(r)
        _check_spool(store)
    finally:
        files.close()


def _check_spool(store: Store) -> None:
    """What came in is what was sent."""
    found = store.spool.target()
    if found is None:
        return
    r, digests = found[0], driver.block_digests(found[0])
    root = chain.tree(digests)
    assert found[1] == driver.target(r) and store.spool.digests(r, root) in ((), digests)
    for number in store.spool.blocks(r, root):
        assert store.spool.block(r, root, number, digests[number]) == driver.block(r, number)


def kill_often(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        check(folder, kill_once(folder, rng.uniform(0.0, 0.25)))


def test_fifteen_kills_leave_a_store_that_opens_to_what_was_committed(tmp_path: Path) -> None:
    kill_often(tmp_path, 15, seed=1)
    files = DiskFiles(tmp_path)
    assert Store.open(files).oldest_entry() > 0, "the log was rewritten on the way"
    files.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_hundred_kills_leave_a_store_that_opens_to_what_was_committed(tmp_path: Path) -> None:
    for block in range(10):
        kill_often(tmp_path / str(block), 20, seed=2 + block)
