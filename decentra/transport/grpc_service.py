"""The serving side of the gRPC transport: raw-byte methods, callers known by their client certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpc

from decentra.errors import RefusedError
from decentra.transport.answering import Answering, reason_of
from decentra.transport.grpc_border import ANSWER_METHOD, CALL_METHOD, PULL_METHOD, REVERSE_METHOD
from decentra.transport.grpc_reverse import ReverseDesk
from decentra.transport.in_flight import InFlight
from decentra.types import PeerId

MAX_KNOWN_CALLERS = 1024

CALLS_A_PEER = (32, 256)
PULLS_A_PEER = (16, 256)
"""Of one peer: (worked on at once, waiting their turn). An open pull costs a frame or two."""

STALL_S = 60.0
"""A puller that takes no frame for so long has gone, or wants to hold memory here."""

MAX_REASON_CHARS = 1000
"""Details travel as a header, and gRPC drops the call where headers are too large."""


class SwarmService(grpc.GenericRpcHandler):  # type: ignore[misc,type-arg]
    """Answers Call and Pull; bytes stay bytes. Reverse and Answer are how peers that cannot be dialled are asked."""

    def __init__(self, answering: Answering, desk: ReverseDesk, peer_of_certificate: Callable[[bytes], PeerId]) -> None:
        self._answering = answering
        self._desk = desk
        self._peer_of_certificate = peer_of_certificate
        self._known: dict[bytes, PeerId] = {}
        self.calls = InFlight("calls", *CALLS_A_PEER)
        self.pulls = InFlight("pulls", *PULLS_A_PEER)

    def service(self, handler_call_details: Any) -> Any:
        """The method handler for a call's name; None: not ours."""
        if handler_call_details.method == CALL_METHOD:
            return grpc.unary_unary_rpc_method_handler(self._call)
        if handler_call_details.method == PULL_METHOD:
            return grpc.unary_stream_rpc_method_handler(self._pull)
        if handler_call_details.method == REVERSE_METHOD:
            return grpc.unary_stream_rpc_method_handler(self._reverse)
        if handler_call_details.method == ANSWER_METHOD:
            return grpc.stream_unary_rpc_method_handler(self._answer)
        return None

    async def _call(self, request: bytes, context: Any) -> bytes:
        sender = await self._sender(context)
        try:
            async with self.calls.turn(sender):
                return await self._answering.reply(sender, request)
        except Exception as error:
            await _abort(context, sender, error)
            raise  # abort never returns

    async def _pull(self, request: bytes, context: Any) -> None:
        # Written, not yielded: a caller that goes away then cancels this task where it stands, frames closed with it.
        sender = await self._sender(context)
        try:
            async with self.pulls.turn(sender), aclosing(self._answering.frames(sender, request)) as frames:
                async for frame in frames:
                    await _written(context, frame)
        except Exception as error:
            await _abort(context, sender, error)

    async def _reverse(self, request: bytes, context: Any) -> None:
        await self._desk.hold(await self._sender(context), request == b"\x01", context)

    async def _answer(self, _: Any, context: Any) -> bytes:
        await self._desk.take(await self._sender(context), context)
        return b""

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
        await context.abort(grpc.StatusCode.INTERNAL, reason_of(sender, error))
