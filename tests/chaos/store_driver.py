"""A process that only drives the store, without torch: entries, blobs, votes, snapshots, blocks that come in, as fast as it can.

The log is rewritten every few snapshots, and each snapshot comes in block by block beside it.

`python store_driver.py DIR` goes on from what DIR holds and prints r after each entry that is durable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from decentra.ledger import chain, log
from decentra.ledger.files import DiskFiles
from decentra.ledger.state import Member, OuterTensors, State
from decentra.ledger.store import Snapshot, Store, Vote
from decentra.outer.fragments import Fragment
from decentra.types import CHUNK_ELEMENTS

FRAGMENT = Fragment(0, 0, 3)
SNAPSHOT_EVERY = 3


class Flat:
    """As much of a tensor as the store asks for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __getitem__(self, where: slice) -> Flat:
        return Flat(self.array[where])

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def numpy(self) -> np.ndarray:
        return self.array


def blob(r: int) -> bytes:
    return chain.digest("test/blob", str(r).encode()) * 2000


def certified(r: int) -> bytes:
    return chain.digest("test/entry", str(r).encode()) * 20


def tensors(r: int) -> OuterTensors:
    elements = FRAGMENT.num_chunks * CHUNK_ELEMENTS
    return OuterTensors(*(Flat(np.full(elements, r + part, dtype=np.float32)) for part in (0.0, 0.5)))  # type: ignore[arg-type]


def state(r: int) -> State:
    at = tensors(r)
    roots = (chain.tensor_root(at.anchor.numpy()).hex(), chain.tensor_root(at.momentum.numpy()).hex())
    return State(r, r, "", r, 1, (Member("a", 1, True, 1),), {}, 0, (), (), (roots,))


def snapshot(r: int) -> Snapshot:
    return Snapshot(r, state(r).header(), chain.digest("test/hash", str(r).encode()), chain.entry_digest(certified(r - 1)))


def block(r: int, number: int) -> bytes:
    return chain.digest("test/block", f"{r}/{number}".encode()) * (chain.CHUNK_BYTES // 32)


def block_digests(r: int) -> tuple[bytes, ...]:
    return tuple(chain.tensor_block(block(r, number)) for number in range(3))


def target(r: int) -> bytes:
    return b"target %d" % r


def come_in(store: Store, r: int) -> None:
    """A snapshot is fetched; every other one is taken over in the end."""
    spool, root = store.spool, chain.tree(block_digests(r))
    spool.begin(r, target(r))
    spool.put_digests(r, root, block_digests(r))
    for number in range(3):
        spool.put_block(r, root, number, block(r, number))
    if r % 2:
        spool.drop()


def keep_snapshot(store: Store, r: int) -> None:
    store.save_snapshot(snapshot(r), tensors(r), (FRAGMENT,))
    store.prune(2)
    come_in(store, r)


def main(folder: Path) -> None:
    store = Store.open(DiskFiles(folder), lambda: 1)
    r = max([0, *store.snapshots(), *(held + 1 for held, _ in store.entries(store.oldest_entry(), 10**9))])
    if r and r % SNAPSHOT_EVERY == 0:
        keep_snapshot(store, r)  # the kill may have come before it
    while True:
        name = store.put_blob(blob(r), r)
        store.save_vote(Vote(r, 0, 0, certified(r)))
        store.append(r, certified(r))
        assert store.has(name)
        print(r, flush=True)
        r += 1
        if r % SNAPSHOT_EVERY == 0:
            keep_snapshot(store, r)


if __name__ == "__main__":
    log.MIN_WASTE_BYTES = 1  # the log is rewritten often
    main(Path(sys.argv[1]))
