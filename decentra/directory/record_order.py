"""Which of two records of a peer is newer, as far as a directory must know: it reads, it does not verify."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from decentra.directory.base import MAX_RECORD_BYTES
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2

RecordReader = Callable[[bytes], tuple[PeerId, int]]
"""(peer, sequence) of a signed record; ValueError: drop it. A reader that verifies keeps forged records out."""

MAX_RECORDS = 4096


def read_unverified(record: bytes) -> tuple[PeerId, int]:
    """(peer, sequence) that a serialised `Signed` record claims. Raises ValueError if it is none."""
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(f"a record of {len(record)} bytes is over the limit of {MAX_RECORD_BYTES}")
    try:
        claimed = swarm_pb2.Record.FromString(swarm_pb2.Signed.FromString(record).payload)
    except DecodeError as error:
        raise ValueError("the bytes are not a signed record") from error
    if not claimed.peer:
        raise ValueError("the record names no peer")
    return claimed.peer, claimed.sequence


class NewestRecords:
    """The record of the highest sequence of every peer, at most MAX_RECORDS peers."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._newest: dict[PeerId, tuple[int, bytes]] = {}

    def learn(self, record: bytes) -> bool:
        """Keep a record if it reads and is newer than what is known; whether it was kept."""
        try:
            peer, sequence = self._reader(record)
        except ValueError:
            return False
        known = self._newest.get(peer)
        if (known is not None and known[0] >= sequence) or (known is None and len(self._newest) >= MAX_RECORDS):
            return False
        self._newest[peer] = (sequence, record)
        return True

    def records(self) -> dict[PeerId, bytes]:
        """The records by peer."""
        return {peer: record for peer, (_, record) in self._newest.items()}
