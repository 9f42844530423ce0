"""Reverse streams over gRPC: who may answer, and what a hostile answer does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from decentra.errors import PeerFault, PeerTimeout, PeerUnreachable
from decentra.identity.keys import Identity
from decentra.identity.tls import tls_material
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Contact
from decentra.transport.grpc import GrpcTransport
from decentra.transport.grpc_link import PeerLink
from decentra.transport.grpc_reverse import DATA, END, NUMBER, REFUSED

RUN_ID, TOKEN = b"r" * 16, b"t" * 16


class Slow:
    async def on_call(self, sender: str, request: bytes) -> bytes:
        await asyncio.sleep(0.3)
        return b"the true reply"

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        yield b"frame"


async def started(handler: Slow | None = None, dialable: bool = True) -> tuple[GrpcTransport, Contact]:
    identity = Identity.create()
    tls = tls_material(identity, RUN_ID, TOKEN)
    transport = await GrpcTransport.start(identity.peer, handler or Slow(), tls, host="127.0.0.1", port=0, dialable=dialable)
    endpoints = (f"127.0.0.1:{transport.port}",) if dialable else ()
    return transport, Contact(transport.peer, endpoints, tls.server_certificate)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await body()

    asyncio.run(main())


def test_only_the_peer_that_was_asked_may_answer() -> None:
    async def body() -> None:
        (asker, at_asker), (hidden, at_hidden), (thief, _) = await started(), await started(dialable=False), await started()
        asker.connect(at_hidden)
        hidden.connect(at_asker)
        await until(lambda: len(asker._desk._streams) == 2)
        reply = asyncio.create_task(asker.call(hidden.peer, b"", 5))
        await until(lambda: any(stream.asked for stream in asker._desk._streams.values()))
        number = next(number for stream in asker._desk._streams.values() for number in stream.asked)
        stolen = PeerLink(at_asker, thief._tls)
        answer = stolen.answer(number, bulk=False)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await answer.write(DATA + b"a lie")
            await answer
        assert await answer.code() is grpc.StatusCode.NOT_FOUND
        assert await reply == b"the true reply"
        await stolen.close()
        await asyncio.gather(asker.close(), hidden.close(), thief.close())

    run(body)


ANSWERS = {
    "no reply": ([END], PeerFault, "before the reply"),
    "over the limit": ([DATA + bytes(MAX_CALL_BYTES + 1)], PeerFault, "over the limit"),
    "nothing": ([], PeerUnreachable, "broke"),
    "an empty message": ([b""], PeerUnreachable, "broke"),
    "bytes that are not text": ([REFUSED + b"\xff\xfe"], PeerFault, "�"),
}


async def hostile_call(messages: list[bytes], bulk: bool, hangs: bool, ask: Callable[[GrpcTransport, str], Awaitable[Any]]) -> None:
    """A peer that answers the first request with `messages`, then ends the answer, or hangs."""
    asker, at_asker = await started()
    hidden, at_hidden = await started(dialable=False)
    asker.connect(at_hidden)
    link = PeerLink(at_asker, hidden._tls)

    async def answer() -> None:
        async for request in link.requests(bulk):
            call = link.answer(NUMBER.unpack_from(request)[0], bulk)
            for message in messages:
                await call.write(message)
            await (asyncio.sleep(60) if hangs else call.done_writing())

    answering = asyncio.create_task(answer())
    await until(lambda: bool(asker._desk._streams))
    await ask(asker, hidden.peer)
    answering.cancel()
    await asyncio.wait({answering})
    await link.close()
    await asyncio.gather(asker.close(), hidden.close())


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_does_not_hold_is_the_peers_fault(kind: str) -> None:
    messages, error, reason = ANSWERS[kind]

    async def ask(asker: GrpcTransport, peer: str) -> None:
        with pytest.raises(error, match=reason):
            await asker.call(peer, b"", 5)

    run(lambda: hostile_call(messages, False, False, ask))


def test_a_frame_over_the_limit_and_a_pull_that_is_cut_short_are_told_apart_from_its_end() -> None:
    def pulls(error: type[Exception] | None, count: int) -> Callable[[GrpcTransport, str], Awaitable[None]]:
        async def ask(asker: GrpcTransport, peer: str) -> None:
            frames = []

            async def pull() -> None:
                async for frame in asker.pull(peer, b"", 0.5):
                    frames.append(frame)

            if error is None:
                await pull()
            else:
                with pytest.raises(error):
                    await pull()
            assert len(frames) == count

        return ask

    frame = DATA + b"x"
    run(lambda: hostile_call([frame, frame, END], True, False, pulls(None, 2)))
    run(lambda: hostile_call([frame, frame], True, False, pulls(PeerUnreachable, 2)))
    run(lambda: hostile_call([frame, DATA + bytes(FRAME_BYTES + 1)], True, False, pulls(PeerFault, 1)))
    run(lambda: hostile_call([frame], True, True, pulls(PeerTimeout, 1)))
