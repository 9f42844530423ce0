"""The dialling side of the gRPC transport towards one peer: its endpoints, and two channels to the one in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from decentra.errors import PeerError, PeerFault, PeerUnreachable
from decentra.seams import TlsMaterial
from decentra.transport.base import Contact
from decentra.transport.grpc_border import (
    ANSWER_METHOD,
    CALL_METHOD,
    NUMBER_KEY,
    PULL_METHOD,
    REVERSE_METHOD,
    channel_options,
    fault_of,
    never_sent,
)


class PeerLink:
    """Channels to one contact, its server certificate pinned. Made without waiting; dials at first use."""

    def __init__(self, contact: Contact, tls: TlsMaterial) -> None:
        self.contact = contact
        self._tls = tls
        self._fault = self._contact_fault()
        self._channels: dict[tuple[int, bool], Any] = {}
        self._preferred = 0
        self._closed = False

    async def call(self, request: bytes) -> bytes:
        """One unary request. Raises PeerUnreachable, PeerTimeout, PeerFault."""
        self._check()
        refusal: PeerError | None = None
        for endpoint, index in self._endpoints():
            try:
                reply: bytes = await self._own(self._channel(index, bulk=False).unary_unary(CALL_METHOD)(request))
                return reply
            except grpc.aio.AioRpcError as error:
                refusal = self._next(refusal, endpoint, error)
        assert refusal is not None
        raise refusal

    async def frames(self, request: bytes) -> AsyncIterator[bytes]:
        """The frames of a pull; closing this iterator cancels it at the sender."""
        async with aclosing(self._stream(PULL_METHOD, request, bulk=True)) as frames:
            async for frame in frames:
                yield frame

    async def _stream(self, method: str, request: bytes, bulk: bool) -> AsyncGenerator[bytes, None]:
        self._check()
        refusal: PeerError | None = None
        for endpoint, index in self._endpoints():
            stream = self._channel(index, bulk).unary_stream(method)(request)
            try:
                while isinstance(frame := await self._own(stream.read()), bytes):
                    yield frame
                return
            except grpc.aio.AioRpcError as error:
                refusal = self._next(refusal, endpoint, error)
            finally:
                stream.cancel()
        assert refusal is not None
        raise refusal

    async def requests(self, bulk: bool) -> AsyncGenerator[bytes, None]:
        """Open a reverse stream and give what the peer asks over it; ends, or raises PeerError, when the stream does."""
        async with aclosing(self._stream(REVERSE_METHOD, bytes([bulk]), bulk)) as requests:
            async for request in requests:
                yield request

    def answer(self, number: int, bulk: bool) -> Any:
        """gRPC's stream_unary call, to the endpoint in use, that takes the answer to a reverse request."""
        self._check()
        return self._channel(self._preferred, bulk).stream_unary(ANSWER_METHOD)(metadata=((NUMBER_KEY, str(number)),))

    def rotate_if_silent(self) -> None:
        """After a timeout: begin with the next endpoint from now on, unless this one is connected and only slow."""
        channels = [self._channels.get((self._preferred, bulk)) for bulk in (False, True)]
        if not any(channel is not None and channel.get_state() is grpc.ChannelConnectivity.READY for channel in channels):
            self._rotate()

    def _rotate(self) -> None:
        self._preferred = (self._preferred + 1) % max(1, len(self.contact.endpoints))

    async def close(self) -> None:
        """Drop both channels; requests in flight end with PeerUnreachable."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))

    def _next(self, former: PeerError | None, endpoint: str, error: grpc.aio.AioRpcError) -> PeerError:
        """The error to remember when another endpoint may be tried; raises it when the request had left."""
        fault = fault_of(self.contact.peer, endpoint, error)
        if not never_sent(error):
            raise fault from error
        self._rotate()
        return former if isinstance(former, PeerFault) else fault

    async def _own(self, work: Any) -> Any:
        """Await an RPC; a closed channel cancels it, which must not look like the cancellation of this task."""
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise PeerUnreachable(self.contact.peer, "its contact was replaced, or this node is closing") from None
            raise

    def _check(self) -> None:
        if self._closed:
            raise PeerUnreachable(self.contact.peer, "its contact was replaced, or this node is closing")
        if self._fault:
            raise PeerFault(self.contact.peer, self._fault)
        if not self.contact.endpoints:
            raise PeerUnreachable(self.contact.peer, "it cannot be dialled")

    def _contact_fault(self) -> str:
        if not self.contact.endpoints:
            return ""
        try:
            owner = self._tls.peer_of_certificate(self.contact.certificate)
        except ValueError as error:
            return f"its record carries a certificate that does not hold: {error}"
        return "" if owner == self.contact.peer else f"its record carries the certificate of {owner[:8]}"

    def _endpoints(self) -> list[tuple[str, int]]:
        count, first = len(self.contact.endpoints), self._preferred
        order = [(first + step) % count for step in range(count)]
        return [(self.contact.endpoints[index], index) for index in order]

    def _channel(self, index: int, bulk: bool) -> Any:
        channel = self._channels.get((index, bulk))
        if channel is None:
            credentials = grpc.ssl_channel_credentials(
                self.contact.certificate, self._tls.client_key, self._tls.client_certificate
            )
            endpoint = self.contact.endpoints[index]
            channel = grpc.aio.secure_channel(endpoint, credentials, options=channel_options(bulk))
            self._channels[index, bulk] = channel
        return channel
