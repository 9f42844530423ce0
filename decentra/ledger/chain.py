"""Digests: BLAKE3, domain-separated, and the chain h_{r+1} = H(h_r, digest of E_r, digest of the header of S_{r+1}).

A header names the tree digest of every tensor, so h_r covers the whole of S_r: anchor, optimizer state, view, leases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from blake3 import blake3

from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, Digest

CHUNK_BYTES = 4 * CHUNK_ELEMENTS
TREE_ARITY = 64


def digest(domain: str, *parts: bytes) -> Digest:
    """BLAKE3 over the domain and the parts, each behind its length."""
    hasher = blake3()
    for part in (domain.encode(), *parts):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def tree(leaves: Sequence[Digest]) -> Digest:
    """Tree digest of arity 64 over leaf digests; one leaf is its own root."""
    if not leaves:
        return digest("decentra/empty")
    level = list(leaves)
    while len(level) > 1:
        level = [digest("decentra/node", *level[i : i + TREE_ARITY]) for i in range(0, len(level), TREE_ARITY)]
    return level[0]


def bytes_block(data: bytes | memoryview) -> Digest:
    """Digest of one block of a file, blob or contribution."""
    hasher = blake3(b"decentra/block\x00")
    hasher.update(data)
    return hasher.digest()


def tensor_block(data: bytes | memoryview) -> Digest:
    """Digest of one block (at most 64 chunks) of an fp32 tensor: a node over its chunks' leaves."""
    view = memoryview(data)
    leaves = [blake3(view[i : i + CHUNK_BYTES]).digest() for i in range(0, len(view), CHUNK_BYTES)]
    return digest("decentra/leaves", *leaves)


def split_blocks(data: bytes | bytearray | memoryview, block_bytes: int) -> Iterable[memoryview]:
    """The blocks of a byte string, the last maybe short."""
    view = memoryview(data)
    return (view[i : i + block_bytes] for i in range(0, len(view), block_bytes))


def tensor_root(array: np.ndarray) -> Digest:
    """Tree digest of a whole-chunk fp32 vector (little-endian)."""
    data = np.ascontiguousarray(array, dtype="<f4").data.cast("B")
    return tree([tensor_block(block) for block in split_blocks(data, BLOCK_CHUNKS * CHUNK_BYTES)])


def next_hash(previous: Digest, entry_digest: Digest, header_digest: Digest) -> Digest:
    """h_{r+1}."""
    return digest("decentra/state", previous, entry_digest, header_digest)


def entry_digest(entry: bytes) -> Digest:
    """Digest of an entry's bytes: what votes sign and the chain takes in."""
    return digest("decentra/entry", entry)


def header_digest(header: bytes) -> Digest:
    """Digest of a state header's canonical bytes."""
    return digest("decentra/header", header)
