"""Asking a peer that cannot be dialled: it holds two streams open to this node, one for calls and one for pulls.

A request goes to the peer over its stream, under a number; the peer brings the answer in a gRPC call of its own, which
names that number. So each answer has a stream of HTTP/2 to itself: its flow control bounds what is buffered, to end it
is to cancel, and control and bulk keep to their own connections.

A request on the wire: u64 number, then its bytes. An answer: messages of one kind byte and a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from decentra.errors import PeerFault, PeerUnreachable
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Contact
from decentra.transport.grpc_border import NUMBER_KEY
from decentra.types import PeerId

NUMBER = struct.Struct("<Q")
DATA, END, REFUSED = b"\x00", b"\x01", b"\x02"
"""First byte of a message of an answer: a reply or a frame; the pull is complete; a refusal, in UTF-8."""

QUEUED_REQUESTS = 4
"""Requests that wait for one stream; further askers wait for room, each within its own time."""


@dataclass(eq=False, slots=True)
class _Asked:
    """A request under way. answer: gRPC's context of the call that brings the answer; over: its asker has gone."""

    answer: asyncio.Future[Any]
    over: asyncio.Event = field(default_factory=asyncio.Event)


class _Stream:
    """One reverse stream of a peer, and the requests sent or to be sent over it."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.asked: dict[int, _Asked] = {}
        self.queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(QUEUED_REQUESTS)

    def end(self) -> None:
        """Fail what has no answer yet, and have the stream's holder return; answers that have begun go on."""
        for asked in self.asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(PeerUnreachable(self.peer, "the connection it held to this node broke"))
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class ReverseDesk:
    """The streams that peers hold open to this node."""

    def __init__(self) -> None:
        self._streams: dict[tuple[PeerId, bool], _Stream] = {}
        self._numbers = itertools.count(1)

    async def hold(self, peer: PeerId, bulk: bool, context: Any) -> None:
        """Serve one reverse stream: write the requests for this peer until it, or a newer one of the same peer, ends it."""
        former = self._streams.get((peer, bulk))
        stream = self._streams[peer, bulk] = _Stream(peer)
        if former is not None:
            former.end()
        try:
            while (item := await stream.queue.get()) is not None:
                number, request = item
                if number in stream.asked:
                    await context.write(NUMBER.pack(number) + request)
        finally:
            if self._streams.get((peer, bulk)) is stream:
                del self._streams[peer, bulk]
                stream.end()

    async def take(self, peer: PeerId, context: Any) -> None:
        """Serve one answer: give it to its asker, and return when that has what it wants."""
        raw = next((value for key, value in context.invocation_metadata() or () if key == NUMBER_KEY), "")
        number = int(raw) if isinstance(raw, str) and raw.isdecimal() and len(raw) < 20 else 0
        streams = [self._streams[key] for key in ((peer, False), (peer, True)) if key in self._streams]
        asked = next((stream.asked[number] for stream in streams if number in stream.asked), None)
        if asked is None or asked.answer.done():
            await context.abort(grpc.StatusCode.NOT_FOUND, "nobody waits for this answer")
            return
        asked.answer.set_result(context)
        await asked.over.wait()

    @contextlib.asynccontextmanager
    async def ask(self, peer: PeerId, bulk: bool, request: bytes) -> AsyncIterator[Any]:
        """gRPC's context to read the answer from; leaving ends it at the peer. Raises PeerUnreachable."""
        stream = self._streams.get((peer, bulk))
        if stream is None:
            raise PeerUnreachable(peer, "it cannot be dialled, and it holds no connection to this node")
        number = next(self._numbers)
        asked = stream.asked[number] = _Asked(asyncio.get_running_loop().create_future())
        try:
            await stream.queue.put((number, request))
            yield await asked.answer
        finally:
            del stream.asked[number]
            asked.over.set()
            if not asked.answer.cancel() and not asked.answer.cancelled():
                asked.answer.exception()  # seen: whoever asked may have been cancelled meanwhile

    def close(self) -> None:
        """End all streams; what waits for an answer ends with PeerUnreachable."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.end()


class ReverseLink:
    """Towards one contact without endpoints, as `PeerLink` is towards one that can be dialled."""

    def __init__(self, contact: Contact, desk: ReverseDesk) -> None:
        self.contact = contact
        self._desk = desk

    async def call(self, request: bytes) -> bytes:
        """One request and its reply. Raises PeerUnreachable, PeerFault."""
        async with self._desk.ask(self.contact.peer, False, request) as answer:
            body = await self._body(answer, MAX_CALL_BYTES)
            if body is None:
                raise PeerFault(self.contact.peer, "it ended its answer before the reply")
            return body

    async def frames(self, request: bytes) -> AsyncGenerator[bytes, None]:
        """The frames of a pull; closing this iterator cancels it at the sender."""
        async with self._desk.ask(self.contact.peer, True, request) as answer:
            while (body := await self._body(answer, FRAME_BYTES)) is not None:
                yield body

    def rotate_if_silent(self) -> None:
        """There is no other way to it."""

    async def close(self) -> None:
        """The streams are the peer's; requests under way end by themselves."""

    async def _body(self, answer: Any, limit_bytes: int) -> bytes | None:
        """The next reply or frame; None at the end of the frames."""
        peer = self.contact.peer
        try:
            message = await answer.read()
        except Exception:  # of gRPC's many: the call that brought the answer is over, or this server has stopped
            message = b""
        if not isinstance(message, bytes) or not message:
            raise PeerUnreachable(peer, "the connection it held to this node broke")
        kind, size = message[:1], len(message) - 1
        if kind == REFUSED:
            raise PeerFault(peer, message[1:].decode(errors="replace"))
        if kind == END:
            return None
        if size > limit_bytes:
            raise PeerFault(peer, f"its message of {size} bytes is over the limit of {limit_bytes}")
        return message[1:]
