"""Directory within one process, for simulations: what one node announces, all others read."""

from __future__ import annotations

from decentra.directory.record_order import NewestRecords, RecordReader, read_unverified
from decentra.types import PeerId


class MemoryBoard:
    """What the nodes of one process share. One board a run."""

    def __init__(self, reader: RecordReader = read_unverified) -> None:
        self.newest = NewestRecords(reader)


class MemoryDirectory:
    """`Directory` of one node on a board."""

    def __init__(self, board: MemoryBoard) -> None:
        self._board = board

    async def announce(self, record: bytes) -> None:
        """See `Directory.announce`."""
        self._board.newest.learn(record)

    async def records(self) -> dict[PeerId, bytes]:
        """See `Directory.records`."""
        return self._board.newest.records()

    def learn(self, record: bytes) -> bool:
        """See `Directory.learn`."""
        return self._board.newest.learn(record)

    def addresses(self) -> tuple[str, ...]:
        """None: a board has no address outside its process."""
        return ()

    async def close(self) -> None:
        """Nothing to leave: records of dead peers stay, as they do for a while in any directory."""
