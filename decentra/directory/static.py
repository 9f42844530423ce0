"""Directory without a DHT: nodes hand each other their records over the gRPC endpoints that they know.

The records a node holds answer those who ask it, so any member is an entrance; what travels is up to `exchange`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from decentra.directory.record_order import NewestRecords, RecordReader, read_unverified
from decentra.errors import DecentraError
from decentra.types import PeerId

logger = logging.getLogger(__name__)

Exchange = Callable[[str, bytes], Awaitable[Sequence[bytes]]]
"""Show one's own record (b"": none yet) to the node at "host:port" and get the records it knows.

Raises DecentraError or OSError if that node cannot be asked.
"""


class StaticDirectory:
    """`Directory` over a fixed list of endpoints; `own_endpoints` are how others can enter through this node."""

    def __init__(
        self,
        endpoints: Sequence[str],
        exchange: Exchange,
        *,
        own_endpoints: Sequence[str] = (),
        reader: RecordReader = read_unverified,
        timeout_s: float = 10.0,
    ) -> None:
        self._endpoints = tuple(endpoint for endpoint in dict.fromkeys(endpoints) if endpoint not in own_endpoints)
        self._own_endpoints = tuple(own_endpoints)
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._own_record = b""
        self._newest = NewestRecords(reader)
        self._silent: set[str] = set()

    async def announce(self, record: bytes) -> None:
        """See `Directory.announce`. Endpoints that do not answer now learn the record at a later `records`."""
        self._own_record = record
        self._newest.learn(record)
        await self._ask_all()

    async def records(self) -> dict[PeerId, bytes]:
        """See `Directory.records`: asks every endpoint, each for at most `timeout_s`."""
        await self._ask_all()
        return self._newest.records()

    def records_nowait(self) -> dict[PeerId, bytes]:
        """What is known without asking anybody: the answer to another node's exchange."""
        return self._newest.records()

    def learn(self, record: bytes) -> bool:
        """Take in a record received from others; whether it was new."""
        return self._newest.learn(record)

    def learn_all(self, records: Iterable[bytes]) -> None:
        """Take in records received from others."""
        for record in records:
            self._newest.learn(record)

    def addresses(self) -> tuple[str, ...]:
        """gRPC endpoints: this node's own first, then those it entered by."""
        return self._own_endpoints + self._endpoints

    async def close(self) -> None:
        """Nothing to leave: nobody keeps a connection for it."""

    async def _ask_all(self) -> None:
        await asyncio.gather(*(self._ask(endpoint) for endpoint in self._endpoints))

    async def _ask(self, endpoint: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                self.learn_all(await self._exchange(endpoint, self._own_record))
            self._silent.discard(endpoint)
        except (DecentraError, OSError, TimeoutError) as error:
            # TimeoutError says nothing by itself. Said once per silence, not once per question.
            level = logging.DEBUG if endpoint in self._silent else logging.WARNING
            logger.log(level, "no records from %s: %s", endpoint, error or f"no answer within {self._timeout_s:g} s")
            self._silent.add(endpoint)
