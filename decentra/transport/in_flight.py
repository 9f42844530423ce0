"""How many requests of one peer a node works on at a time: what one peer holds open does not pile up here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from decentra.errors import RefusedError
from decentra.types import PeerId


@dataclass(slots=True)
class _Lane:
    running: asyncio.Semaphore
    inside: int = 0


@dataclass(slots=True)
class InFlight:
    """`at_once` requests a peer are worked on, `waiting` more wait their turn, others are refused by name."""

    what: str
    at_once: int
    waiting: int
    _lanes: dict[PeerId, _Lane] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, peer: PeerId) -> AsyncIterator[None]:
        """Wait for one's turn and hold it. Raises RefusedError where too many wait already."""
        lane = self._lanes.setdefault(peer, _Lane(asyncio.Semaphore(self.at_once)))
        if lane.inside >= self.at_once + self.waiting:
            raise RefusedError(f"{lane.inside} {self.what} of {peer[:8]} are open here already; end some first")
        lane.inside += 1
        try:
            async with lane.running:
                yield
        finally:
            lane.inside -= 1
            if not lane.inside:
                self._lanes.pop(peer, None)

    def open(self, peer: PeerId) -> int:
        """Requests of a peer that are worked on or wait."""
        return self._lanes[peer].inside if peer in self._lanes else 0
