"""The serving side of the gRPC transport: two raw-byte methods, callers known by their client certificate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from decentra.errors import RefusedError
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Handler
from decentra.transport.grpc_border import CALL_METHOD, PULL_METHOD
from decentra.transport.in_flight import InFlight
from decentra.transport.shaper import Shaper
from decentra.types import PeerId

logger = logging.getLogger(__name__)

MAX_KNOWN_CALLERS = 1024

CALLS_A_PEER = (32, 256)
PULLS_A_PEER = (16, 256)
"""Of one peer: (worked on at once, waiting their turn). An open pull costs a frame or two."""

STALL_S = 60.0
"""A puller that takes no frame for so long has gone, or wants to hold memory here."""

MAX_REASON_CHARS = 1000
"""Details travel as a header, and gRPC drops the call where headers are too large."""


class Counters:
    """Payload bytes of one node so far."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0


class SwarmService(grpc.GenericRpcHandler):  # type: ignore[misc,type-arg]
    """Answers Call and Pull with a `Handler`; bytes stay bytes. `handler` None refuses everybody."""

    def __init__(
        self, handler: Handler | None, peer_of_certificate: Callable[[bytes], PeerId], shaper: Shaper | None, counters: Counters
    ) -> None:
        self.handler = handler
        self._peer_of_certificate = peer_of_certificate
        self._shaper = shaper
        self._counters = counters
        self._known: dict[bytes, PeerId] = {}
        self.calls = InFlight("calls", *CALLS_A_PEER)
        self.pulls = InFlight("pulls", *PULLS_A_PEER)

    def service(self, handler_call_details: Any) -> Any:
        """The method handler for a call's name; None: not ours."""
        if handler_call_details.method == CALL_METHOD:
            return grpc.unary_unary_rpc_method_handler(self._call)
        if handler_call_details.method == PULL_METHOD:
            return grpc.unary_stream_rpc_method_handler(self._pull)
        return None

    async def _call(self, request: bytes, context: Any) -> bytes:
        sender = await self._sender(context)
        await self._arrived(request)
        try:
            async with self.calls.turn(sender):
                reply = await self._ready().on_call(sender, request)
            if len(reply) > MAX_CALL_BYTES:
                raise RefusedError(f"the reply of {len(reply)} bytes is over the limit of {MAX_CALL_BYTES}")
        except Exception as error:
            await _abort(context, sender, error)
            raise  # abort never returns
        self._counters.up += len(reply)
        if self._shaper is not None:
            await self._shaper.send_control(len(reply))
        return reply

    async def _pull(self, request: bytes, context: Any) -> None:
        # Written, not yielded: a caller that goes away then cancels this task where it stands, frames closed with it.
        sender = await self._sender(context)
        await self._arrived(request)
        try:
            async with self.pulls.turn(sender):
                frames: AsyncIterator[bytes] = self._ready().on_pull(sender, request)
                if self._shaper is not None:
                    frames = self._shaper.send_frames(frames)
                async with aclosing(frames):  # type: ignore[type-var]
                    async for frame in frames:
                        if len(frame) > FRAME_BYTES:
                            raise RefusedError(f"a frame of {len(frame)} bytes is over the limit of {FRAME_BYTES}")
                        self._counters.up += len(frame)
                        await _written(context, frame)
        except Exception as error:
            await _abort(context, sender, error)

    async def _arrived(self, request: bytes) -> None:
        self._counters.down += len(request)
        if self._shaper is not None:
            await self._shaper.receive_control(len(request))

    def _ready(self) -> Handler:
        if self.handler is None:
            raise RefusedError("this node is still starting; ask again")
        return self.handler

    async def _sender(self, context: Any) -> PeerId:
        certificates = context.auth_context().get("x509_pem_cert") or [b""]
        pem = bytes(certificates[0])
        sender = self._known.get(pem)
        if sender is None:
            try:
                sender = self._peer_of_certificate(pem)
            except ValueError as error:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"your client certificate is refused: {error}")
                raise  # abort never returns
            if len(self._known) >= MAX_KNOWN_CALLERS:
                self._known.clear()
            self._known[pem] = sender
        return sender


async def _written(context: Any, frame: bytes) -> None:
    try:
        async with asyncio.timeout(STALL_S):
            await context.write(frame)
    except TimeoutError:
        raise RefusedError(f"no frame was taken for {STALL_S:g} s") from None


async def _abort(context: Any, sender: PeerId, error: Exception) -> None:
    if isinstance(error, RefusedError):
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error)[:MAX_REASON_CHARS])
    if not context.cancelled():
        logger.error("a request of %s failed here", sender[:8], exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"failed internally ({type(error).__name__})")
