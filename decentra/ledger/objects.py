"""Objects by digest: blobs of entries, files of the run, tensors of snapshots. What is served is read block by block.

Layout: blobs/HEX.R (R: the last entry that may name it), files/NAME, snapshots/R/{anchor-F,momentum-F}.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from decentra.errors import StateError
from decentra.ledger import chain
from decentra.ledger.files import Files
from decentra.types import BLOCK_CHUNKS, FILE_BLOCK_BYTES, Digest

MAX_REMEMBERED = 64
"""Objects whose block digests are kept in memory."""

FILE_R = -1
"""The `r` of a file: it belongs to no entry."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that can be served. r: the entry or snapshot it belongs to, FILE_R of a file. data: where memory has it too."""

    path: str
    r: int
    is_tensor: bool
    block_digests: tuple[Digest, ...] = ()
    block_bytes: int = FILE_BLOCK_BYTES
    data: bytes | memoryview | None = None


class Objects:
    """Verbs may run in several threads at once. Raises SetupError on a full disk."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._known: dict[Digest, StoredObject] = {}
        self._served: dict[Digest, StoredObject] = {}
        for name in files.names("blobs"):
            digest, r = name.split("/")[1].split(".")
            self._keep_blob(bytes.fromhex(digest), name, int(r))

    def put_blob(self, data: bytes | memoryview, r: int) -> Digest:
        """Keep a blob that entry r may name; returns its digest. The same bytes again count as of the later entry."""
        return self.put_blocks(list(chain.split_blocks(data, FILE_BLOCK_BYTES)), block_digests(data), r)

    def serve_blob(self, data: memoryview, r: int) -> tuple[Digest, ...]:
        """Give a blob of entry r away from memory, before it is kept and after, until one of another entry is served so.

        `data` must not change any more. Returns the digests of its blocks.
        """
        digests = block_digests(data)
        name_digest = chain.tree(digests)
        self._remember(name_digest, StoredObject(_blob_path(name_digest, r), r, False, digests, FILE_BLOCK_BYTES, data))
        return digests

    def put_blocks(self, blocks: Sequence[bytes | memoryview], digests: Sequence[Digest], r: int) -> Digest:
        """The same of a blob's blocks (each of FILE_BLOCK_BYTES, the last maybe shorter), whose digests are known to be these."""
        name_digest = chain.tree(digests)
        known = self._known.get(name_digest)
        if known is None or 0 <= known.r < r:
            name = _blob_path(name_digest, r)
            self._files.write(name, *blocks)
            self._keep_blob(name_digest, name, r)
        return name_digest

    def _keep_blob(self, name_digest: Digest, name: str, r: int) -> None:
        with self._lock:
            known = self._known.get(name_digest)
            if known is not None and known.path == name:
                return
            superseded = known is not None and known.r > r
            if not superseded:
                self._known[name_digest] = StoredObject(name, r, False)
                if (served := self._served.get(name_digest)) is not None and served.data is None:
                    self._served.pop(name_digest)
        if known is not None:
            self._files.remove(name if superseded else known.path)

    def names(self) -> list[Digest]:
        """Digests of all objects held, in order."""
        return sorted(self._known)

    def has(self, name: Digest) -> bool:
        """Whether an object is held."""
        return name in self._known

    def blob(self, name: Digest) -> bytes:
        """The bytes of a blob. Raises KeyError where it is not held, StateError where the disk changed it."""
        data = self._files.read(self._known[name].path)
        if data is None or object_digest(data) != name:
            raise StateError(f"blob {name.hex()[:12]} is damaged on disk; move the state directory away and join again")
        return data

    def register(self, name: Digest, path: str, r: int, is_tensor: bool) -> None:
        """Make what is already in place servable."""
        with self._lock:
            self._known[name] = StoredObject(path, r, is_tensor)
            self._served.pop(name, None)

    def served(self, name: Digest) -> StoredObject:
        """An object with its block digests; the last few are remembered. Raises KeyError, StateError where it is damaged."""
        found = self._served.get(name)
        if found is not None:
            return found
        known = self._known[name]
        block_bytes = BLOCK_CHUNKS * chain.CHUNK_BYTES if known.is_tensor else FILE_BLOCK_BYTES
        found = StoredObject(known.path, known.r, known.is_tensor, self._block_digests(known, block_bytes), block_bytes)
        if chain.tree(found.block_digests) != name:
            raise StateError(f"{known.path} is damaged on disk; move the state directory away and join again")
        self._remember(name, found)
        return found

    def _remember(self, name: Digest, stored: StoredObject) -> None:
        with self._lock:
            if stored.data is not None:
                old = [(other, each) for other, each in self._served.items() if each.data is not None and each.r != stored.r]
                self._served.update((other, replace(each, data=None)) for other, each in old)
            while len(self._served) >= MAX_REMEMBERED:
                self._served.pop(next(iter(self._served)))
            self._served[name] = stored

    def _block_digests(self, known: StoredObject, block_bytes: int) -> tuple[Digest, ...]:
        kind = chain.tensor_block if known.is_tensor else chain.bytes_block
        digests: list[Digest] = []
        while data := self._files.read(known.path, len(digests) * block_bytes, block_bytes):
            digests.append(kind(data))
        if data is None:
            raise KeyError(known.path)
        return tuple(digests)

    def block(self, served: StoredObject, number: int) -> bytes:
        """The bytes of one block. Raises KeyError where the object is gone meanwhile."""
        if served.data is not None:
            return bytes(served.data[number * served.block_bytes : (number + 1) * served.block_bytes])
        data = self._files.read(served.path, number * served.block_bytes, served.block_bytes)
        if data is None:
            raise KeyError(served.path)
        return data

    def drop(self, before_r: int, snapshots: Collection[int]) -> None:
        """Forget blobs of entries before `before_r` and tensors of snapshots that are not among `snapshots`."""
        gone = []
        with self._lock:
            for name, known in list(self._known.items()):
                if known.r not in snapshots if known.is_tensor else 0 <= known.r < before_r:
                    self._known.pop(name)
                    self._served.pop(name, None)
                    gone.append(known)
        for known in gone:
            if not known.is_tensor:
                self._files.remove(known.path)

    def forget(self) -> None:
        """Drop all but files from memory: their place on disk is another now."""
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if known.r == FILE_R}
            self._served = {name: found for name, found in self._served.items() if found.r == FILE_R}


def _blob_path(name_digest: Digest, r: int) -> str:
    return f"blobs/{name_digest.hex()}.{r}"


def object_digest(data: bytes | bytearray | memoryview) -> Digest:
    """Digest of a file or blob: the tree over its 1 MiB blocks."""
    return chain.tree(block_digests(data))


def block_digests(data: bytes | bytearray | memoryview) -> tuple[Digest, ...]:
    """Digests of the 1 MiB blocks of a file or blob."""
    return tuple(chain.bytes_block(block) for block in chain.split_blocks(data, FILE_BLOCK_BYTES))
