"""A snapshot on its way in: blocks that arrived stand on disk until it is whole, so that a cut or a restart costs none.

Layout: incoming/R/target (what names the snapshot), incoming/R/ROOT/digests (of all blocks of a tensor), incoming/R/ROOT/N
(block N). Nothing here is believed: the digests must hash to ROOT and each block to its digest when it is read back.
"""

from __future__ import annotations

from collections.abc import Sequence

from decentra.ledger import chain
from decentra.ledger.files import Files
from decentra.types import Digest

FOLDER = "incoming"
_DIGEST_BYTES = 32


class Spool:
    """One snapshot at a time. All verbs block; callers move them off the event loop. Raises SetupError on a full disk."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def target(self) -> tuple[int, bytes] | None:
        """(r, the bytes given to `begin`) of the snapshot that is on its way; None where none is."""
        for name in self._files.names(FOLDER):
            _, r, *rest = name.split("/")
            if rest == ["target"] and r.isdigit():
                return int(r), self._files.read(name) or b""
        return None

    def begin(self, r: int, target: bytes) -> None:
        """Make room for the blocks of S_r; what came of the same one before stays, of any other it goes."""
        if self.target() == (r, target):
            return
        self.drop()
        self._files.write(f"{FOLDER}/{r}/target", target)

    def drop(self) -> None:
        """Forget all: it was taken over, or nobody offers it any more."""
        for name in sorted(self._files.names(FOLDER), key=lambda name: not name.endswith("/target")):
            self._files.remove(name)

    def put_digests(self, r: int, root: Digest, digests: Sequence[Digest]) -> None:
        """Keep the digests of all blocks of a tensor."""
        self._files.write(_name(r, root, "digests"), b"".join(digests))

    def digests(self, r: int, root: Digest) -> tuple[Digest, ...]:
        """The digests kept; () where there are none or the disk changed them."""
        listed = self._files.read(_name(r, root, "digests")) or b""
        digests = tuple(listed[i : i + _DIGEST_BYTES] for i in range(0, len(listed), _DIGEST_BYTES))
        return digests if digests and chain.tree(digests) == root else ()

    def put_block(self, r: int, root: Digest, number: int, data: bytes | memoryview) -> None:
        """Keep a block."""
        self._files.write(_name(r, root, str(number)), data)

    def blocks(self, r: int, root: Digest) -> list[int]:
        """Numbers of the blocks kept."""
        names = (name.rsplit("/", 1)[1] for name in self._files.names(f"{FOLDER}/{r}/{root.hex()}"))
        return sorted(int(name) for name in names if name.isdigit())

    def block(self, r: int, root: Digest, number: int, wanted: Digest) -> bytes | None:
        """A block; None, and forgotten, where the disk changed it."""
        name = _name(r, root, str(number))
        data = self._files.read(name)
        if data is not None and chain.tensor_block(data) == wanted:
            return data
        self._files.remove(name)
        return None


def _name(r: int, root: Digest, what: str) -> str:
    return f"{FOLDER}/{r}/{root.hex()}/{what}"
