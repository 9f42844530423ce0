"""The directory seam: how peers of a run find each other. Records are opaque signed bytes (wire.messages)."""

from __future__ import annotations

from typing import Protocol

from decentra.types import PeerId

MAX_RECORD_BYTES = 8192
"""Largest signed record; a larger one is dropped before it is read."""


class Directory(Protocol):
    """Signed records by peer id. Contract: tests/contracts/test_directory.py.

    The directory does not verify: its readers do (signature, then the higher sequence number wins).
    """

    async def announce(self, record: bytes) -> None:
        """Publish this node's own signed record, replacing its former one."""
        ...

    async def records(self) -> dict[PeerId, bytes]:
        """The newest record known of every peer of the run; {} when nobody can be reached."""
        ...

    def learn(self, record: bytes) -> bool:
        """Take in a record that reached this node some other way; whether it was new."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Addresses by which another node can enter this directory (for join strings)."""
        ...

    async def close(self) -> None:
        """Leave the directory."""
        ...
