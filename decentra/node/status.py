"""Looking at a swarm from outside, with nothing but its join string: the status of every peer that answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf.message import DecodeError

from decentra.config import NodeConfig
from decentra.errors import PeerError, SetupError
from decentra.node.wiring import Door, NodeTransport, Wiring
from decentra.transport.base import Contact
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

ASK_TIMEOUT_S = 10.0


class Watcher:
    """An onlooker: an identity for the hour, no state, never a member. Use as an async context."""

    def __init__(self, door: Door, wiring: Wiring) -> None:
        self._door, self._wiring = door, wiring
        self._folder = tempfile.TemporaryDirectory(prefix="decentra-watch-")
        self._transport: NodeTransport | None = None
        self._contacts: dict[PeerId, Contact] = {}

    async def __aenter__(self) -> Watcher:
        self._credentials = self._wiring.credentials(Path(self._folder.name))
        self._transport = await self._wiring.transport(Path(self._folder.name), self._door, NodeConfig(dht=False))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._transport is not None:
            await self._transport.close()
        self._folder.cleanup()

    async def peers(self) -> list[PeerId]:
        """Peers known to whoever answers at the door. Raises SetupError where nobody does."""
        assert self._transport is not None
        doormen = await self._wiring.dial(self._transport, self._door.entrances)
        doormen += [peer for peer in self._contacts if peer not in doormen]
        asked = rounds_pb2.Request(run_id=self._door.run_id, records=rounds_pb2.Records())
        places = ", ".join(endpoint for endpoint, _ in self._door.entrances)
        last = f"nobody answers at {places or 'any endpoint: the string has none'}"
        for peer in doormen:
            try:
                reply = rounds_pb2.Reply.FromString(await self._transport.call(peer, asked.SerializeToString(), ASK_TIMEOUT_S))
            except (PeerError, DecodeError) as error:
                last = str(error)
                continue
            for signed in reply.records.records:
                with contextlib.suppress(ValueError):  # what a peer hands on may be anything
                    self._learn(signed)
            return list(self._contacts)
        run = self._door.run_id.hex()[:8]
        raise SetupError(f"cannot see run {run}: {last}; is a node of the join string still running, and reachable from here?")

    def _learn(self, signed: bytes) -> None:
        assert self._transport is not None
        peer, payload = self._credentials.verifier.open(b"decentra/record", signed)
        record = swarm_pb2.Record.FromString(payload)
        if record.peer == peer and record.run_id == self._door.run_id:
            self._contacts[peer] = Contact(peer, tuple(record.endpoints), record.server_certificate)
            self._transport.connect(self._contacts[peer])

    async def statuses(self) -> list[dict[str, Any]]:
        """Status of every peer that answers, by peer id."""
        answers = await asyncio.gather(*(self.status(peer) for peer in sorted(self._contacts)))
        return [answer for answer in answers if answer is not None]

    async def dial(self, door: Door) -> list[PeerId]:
        """Peers that answer at the first entrance of a door; their status can be asked for."""
        assert self._transport is not None
        return await self._wiring.dial(self._transport, door.entrances[:1])

    async def status(self, peer: PeerId) -> dict[str, Any] | None:
        """A peer's status, from itself or, where it cannot be dialled, by way of one that can; None where nobody tells it."""
        if peer not in self._contacts or self._contacts[peer].endpoints:
            return await self._ask(peer, "")
        for other in sorted(self._contacts):
            if self._contacts[other].endpoints and (found := await self._ask(other, peer)) is not None:
                return found
        return None

    async def _ask(self, peer: PeerId, about: str) -> dict[str, Any] | None:
        assert self._transport is not None
        request = rounds_pb2.Request(run_id=self._door.run_id, status=rounds_pb2.StatusQuery(peer=about))
        try:
            reply = rounds_pb2.Reply.FromString(await self._transport.call(peer, request.SerializeToString(), ASK_TIMEOUT_S))
            status: dict[str, Any] = json.loads(reply.status.json)
        except (PeerError, DecodeError, ValueError):
            return None
        return status
