"""Transport over gRPC: TLS both ways, control and bulk on their own connections, an optional slow link in front.

A peer is authenticated by key: its server certificate is pinned from its directory record, its client certificate
is issued by the run's authority and carries its identity. Who cannot be dialled holds streams open to all that can.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from decentra.errors import PeerFault, PeerTimeout, PeerUnreachable, SetupError
from decentra.seams import TlsMaterial
from decentra.transport.answering import Answering, Counters
from decentra.transport.base import MAX_CALL_BYTES, Contact, Handler
from decentra.transport.grpc_border import server_options
from decentra.transport.grpc_keeper import StreamKeeper
from decentra.transport.grpc_link import PeerLink
from decentra.transport.grpc_reverse import ReverseDesk, ReverseLink
from decentra.transport.grpc_service import SwarmService
from decentra.transport.shaper import Shaper
from decentra.types import PeerId

MAX_CONTACTS = 4096


class GrpcTransport:
    """`Transport` of one node over gRPC. Made by `start`; `port` is the one it listens on, 0 where it does not."""

    def __init__(self, peer: PeerId, handler: Handler | None, tls: TlsMaterial, shaper: Shaper | None = None) -> None:
        self.peer = peer
        self.port = 0
        self._tls = tls
        self._shaper = shaper
        self._counters = Counters()
        self._answering = Answering(handler, shaper, self._counters)
        self._desk = ReverseDesk()
        self._service = SwarmService(self._answering, self._desk, tls.peer_of_certificate)
        self._server: Any = None
        self._links: dict[PeerId, PeerLink | ReverseLink] = {}
        self._dialable = True
        self._keepers: dict[PeerId, list[StreamKeeper]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def start(
        cls,
        peer: PeerId,
        handler: Handler | None,
        tls: TlsMaterial,
        *,
        host: str,
        port: int,
        shaper: Shaper | None = None,
        dialable: bool = True,
    ) -> GrpcTransport:
        """Listen on host:port (port 0: any free one), unless it cannot be dialled. Raises SetupError if the port is taken."""
        transport = cls(peer, handler, tls, shaper)
        transport.dialable = dialable
        if dialable:
            await transport._listen(host, port)
        return transport

    @property
    def handler(self) -> Handler | None:
        """What this node answers; while None, callers are refused by name."""
        return self._answering.handler

    @handler.setter
    def handler(self, handler: Handler) -> None:
        self._answering.handler = handler

    @property
    def dialable(self) -> bool:
        """Whether others can dial this node; while not, it holds streams open to all contacts that can be dialled."""
        return self._dialable

    @dialable.setter
    def dialable(self, dialable: bool) -> None:
        self._dialable = dialable
        for peer in list(self._links):
            self._keep_streams(peer)

    async def call(self, peer: PeerId, request: bytes, timeout_s: float) -> bytes:
        """See `Transport.call`."""
        if len(request) > MAX_CALL_BYTES:
            raise PeerFault(peer, f"a request of {len(request)} bytes is over the limit of {MAX_CALL_BYTES}")
        link = self._link(peer)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(request)
                reply = await link.call(request)
                if len(reply) > MAX_CALL_BYTES:
                    raise PeerFault(peer, f"its reply of {len(reply)} bytes is over the limit of {MAX_CALL_BYTES}")
                self._counters.down += len(reply)
                if self._shaper is not None:
                    await self._shaper.receive_control(len(reply))
                return reply
        except TimeoutError:
            link.rotate_if_silent()
            raise PeerTimeout(peer, f"no reply within {timeout_s:g} s") from None

    async def pull(self, peer: PeerId, request: bytes, idle_timeout_s: float) -> AsyncIterator[bytes]:
        """See `Transport.pull`."""
        link = self._link(peer)
        frames = self._arriving(link, request)
        if self._shaper is not None:
            frames = self._shaper.receive_frames(frames)
        async with aclosing(frames):  # type: ignore[type-var]
            while True:
                try:
                    async with asyncio.timeout(idle_timeout_s):
                        frame = await anext(frames)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    link.rotate_if_silent()
                    raise PeerTimeout(peer, f"no frame for {idle_timeout_s:g} s") from None
                yield frame

    def connect(self, contact: Contact) -> None:
        """See `Transport.connect`. A contact that does not hold makes each use of it a PeerFault."""
        former = self._links.get(contact.peer)
        if former is not None and former.contact == contact:
            return  # directory records are read again and again: working connections stay
        if former is None and len(self._links) >= MAX_CONTACTS:
            return  # whoever shows a record is remembered here: a crowd may not take all memory
        self._links[contact.peer] = PeerLink(contact, self._tls) if contact.endpoints else ReverseLink(contact, self._desk)
        self._keep_streams(contact.peer)
        if former is not None:
            self._close_aside(former)

    def counters(self) -> tuple[int, int]:
        """(bytes up, bytes down) so far."""
        return self._counters.up, self._counters.down

    async def close(self) -> None:
        """Stop serving and drop all connections; requests in flight end, theirs and ours, with PeerUnreachable."""
        self._closed = True
        links, self._links = list(self._links.values()), {}
        keepers, self._keepers = [keeper for pair in self._keepers.values() for keeper in pair], {}
        self._desk.close()
        await asyncio.gather(*(keeper.close() for keeper in keepers))
        await asyncio.gather(*(link.close() for link in links), *self._closing)
        if self._server is not None:
            await self._server.stop(grace=0)

    async def _listen(self, host: str, port: int) -> None:
        self._server = grpc.aio.server(options=server_options())
        self._server.add_generic_rpc_handlers((self._service,))
        credentials = grpc.ssl_server_credentials(
            [(self._tls.server_key, self._tls.server_certificate)], self._tls.authority_certificate, require_client_auth=True
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise SetupError(
                f"cannot listen on {address}: the port is taken, or the address is not this machine's; "
                "choose another port, or 0 for any free one"
            ) from error
        await self._server.start()

    def _keep_streams(self, peer: PeerId) -> None:
        """Hold streams to a contact, or let go of them, as things now are."""
        for keeper in self._keepers.pop(peer, []):
            self._close_aside(keeper)
        link = self._links[peer]
        if not self._dialable and isinstance(link, PeerLink) and peer != self.peer:
            self._keepers[peer] = [StreamKeeper(link, self._answering, bulk) for bulk in (False, True)]

    def _close_aside(self, what: PeerLink | ReverseLink | StreamKeeper) -> None:
        closing = asyncio.get_running_loop().create_task(what.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _link(self, peer: PeerId) -> PeerLink | ReverseLink:
        if self._closed:
            raise PeerUnreachable(peer, "this node's transport is closed")
        link = self._links.get(peer)
        if link is None:
            raise PeerUnreachable(peer, "no contact is known for it")
        return link

    async def _arriving(self, link: PeerLink | ReverseLink, request: bytes) -> AsyncIterator[bytes]:
        await self._send(request)
        frames = link.frames(request)
        async with aclosing(frames):  # type: ignore[type-var]
            async for frame in frames:
                self._counters.down += len(frame)
                yield frame

    async def _send(self, request: bytes) -> None:
        self._counters.up += len(request)
        if self._shaper is not None:
            await self._shaper.send_control(len(request))
