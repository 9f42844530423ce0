"""Whether others can dial a node: it asks members to dial it back at the endpoints of its own record, and they say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from decentra.errors import PeerError, RefusedError
from decentra.rounds.ports import Ports, call
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

MAX_AT_ONCE = 4
MAX_ENDPOINTS = 4
AGREEING = 2
"""Members that must say the same; fewer count where no more can be asked."""

Dial = Callable[[str, bytes], Awaitable[bool]]
"""(endpoint, PEM certificate) -> whether a new connection to it is answered with that certificate; in bounded time."""


class DialBack:
    """Dials callers back, a few at a time and each at its own record's endpoints only: nobody scans through this node."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._running: set[PeerId] = set()

    async def probe(self, record: swarm_pb2.Record) -> rounds_pb2.Probed:
        """Dial the endpoints of a record whose sender is known to have signed it. Raises RefusedError while busy."""
        if record.peer in self._running or len(self._running) >= MAX_AT_ONCE:
            raise RefusedError(f"{len(self._running)} peers are being dialled back already; ask again, or another")
        self._running.add(record.peer)
        try:
            for endpoint in record.endpoints[:MAX_ENDPOINTS]:
                if not await self._dial(endpoint, record.server_certificate):
                    # No more than that: what else may answer there is not the asker's to learn.
                    return rounds_pb2.Probed(reason=f"no node with its certificate answers at {endpoint}")
        finally:
            self._running.discard(record.peer)
        return rounds_pb2.Probed(reached=bool(record.endpoints), reason="" if record.endpoints else "its record names no endpoint")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What members found. dialable: None where nobody could be asked; why: a member's reason where they could not dial."""

    dialable: bool | None
    why: str = ""


async def prove(ports: Ports, run_id: bytes, record: bytes, peers: Sequence[PeerId]) -> Verdict:
    """Have peers dial this node back at the endpoints of `record`, its own, until AGREEING of them say the same."""
    request = rounds_pb2.Request(probe=rounds_pb2.Probe(record=record))
    answers: list[tuple[PeerId, rounds_pb2.Probed]] = []

    async def ask(peer: PeerId) -> None:
        try:
            reply = await call(ports.transport, run_id, peer, request)
        except PeerError:
            return
        answers.append((peer, reply.probed))

    for first in range(0, len(peers), AGREEING):
        await asyncio.gather(*(ask(peer) for peer in peers[first : first + AGREEING]))
        reached = sum(answer.reached for _, answer in answers)
        if max(reached, len(answers) - reached) >= AGREEING:
            break
    if not answers:
        return Verdict(None)
    if 2 * reached > len(answers):
        return Verdict(True)
    return next(Verdict(False, f"{peer[:8]} says that {answer.reason}") for peer, answer in answers if not answer.reached)
