"""What one peer holds open at a node is bounded, and others do not feel it: half-open pulls, slow readers, floods of calls."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from decentra.errors import PeerFault, RefusedError
from decentra.identity.keys import Identity
from decentra.identity.tls import tls_material
from decentra.transport import grpc_service
from decentra.transport.base import FRAME_BYTES, Contact
from decentra.transport.grpc import GrpcTransport
from decentra.transport.in_flight import InFlight

RUN_ID, TOKEN = b"r" * 16, b"t" * 16
LIMIT_S = 60.0
FRAMES = 400
"""Of one pull: many more than the window of a stream, which grows with its rate."""


class Generous:
    """Gives any number of frames, and counts what it has given and for how many."""

    def __init__(self) -> None:
        self.running, self.most, self.frames = 0, 0, 0
        self.gate = asyncio.Event()

    async def on_call(self, sender: str, request: bytes) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return b"done"

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(int(request)):
                self.frames += 1
                yield bytes(FRAME_BYTES)
        finally:
            self.running -= 1


async def node(handler: Generous) -> GrpcTransport:
    identity = Identity.create()
    tls = tls_material(identity, RUN_ID, TOKEN)
    transport = await GrpcTransport.start(identity.peer, handler, tls, host="127.0.0.1", port=0)
    transport.contact = Contact(identity.peer, (f"127.0.0.1:{transport.port}",), tls.server_certificate)  # type: ignore[attr-defined]
    return transport


async def three(handler: Generous) -> tuple[GrpcTransport, GrpcTransport, GrpcTransport]:
    """(the node with this handler, a hostile peer, an honest one), who know how to dial the first."""
    server, hostile, honest = [await node(h) for h in (handler, Generous(), Generous())]
    hostile.connect(server.contact)  # type: ignore[attr-defined]
    honest.connect(server.contact)  # type: ignore[attr-defined]
    return server, hostile, honest


async def until(condition: object) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def one_frame(transport: GrpcTransport, peer: str, held: list[AsyncIterator[bytes]]) -> None:
    """Read one frame of many, and stop."""
    frames = transport.pull(peer, str(FRAMES).encode(), LIMIT_S)
    held.append(frames)
    assert len(await anext(frames)) == FRAME_BYTES


def test_half_open_pulls_of_one_peer_are_bounded_and_felt_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_service, "PULLS_A_PEER", (4, 3))

    async def main() -> None:
        handler = Generous()
        server, hostile, honest = await three(handler)
        held: list[AsyncIterator[bytes]] = []
        await asyncio.gather(*(one_frame(hostile, server.peer, held) for _ in range(4)))
        waiting = [asyncio.ensure_future(one_frame(hostile, server.peer, held)) for _ in range(3)]
        await until(lambda: server._service.pulls.open(hostile.peer) == 7)
        with pytest.raises(PeerFault, match=f"7 pulls of {hostile.peer[:8]} are open here already"):
            await one_frame(hostile, server.peer, held)
        assert handler.most == 4 and handler.frames < 2 * FRAMES, "no more frames are made than a peer takes, but for a window"
        assert [len(frame) async for frame in honest.pull(server.peer, b"20", LIMIT_S)] == [FRAME_BYTES] * 20
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for frames in held:
            await frames.aclose()  # type: ignore[attr-defined]
        await until(lambda: server._service.pulls._lanes == {})
        assert handler.running == 0
        for each in (hostile, honest, server):
            await each.close()

    asyncio.run(main())


def test_a_puller_that_takes_no_more_frames_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_service, "STALL_S", 1.0)

    async def main() -> None:
        handler = Generous()
        server, hostile, honest = await three(handler)
        held: list[AsyncIterator[bytes]] = []
        await one_frame(hostile, server.peer, held)
        await until(lambda: server._service.pulls.open(hostile.peer) == 0)
        assert handler.running == 0 and handler.frames < FRAMES
        with pytest.raises(PeerFault, match="no frame was taken for 1 s"):
            async for _ in held[0]:
                pass
        for each in (hostile, honest, server):
            await each.close()

    asyncio.run(main())


def test_calls_of_one_peer_wait_their_turn_and_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_service, "CALLS_A_PEER", (3, 5))

    async def main() -> None:
        handler = Generous()
        server, hostile, honest = await three(handler)
        calls = [asyncio.ensure_future(hostile.call(server.peer, b"x", LIMIT_S)) for _ in range(20)]
        await until(lambda: sum(call.done() for call in calls) == 12)
        for call in calls:
            if call.done():
                with pytest.raises(PeerFault, match=r"8 calls of .* are open here already; end some first"):
                    await call
        assert handler.running == 3
        own = asyncio.ensure_future(honest.call(server.peer, b"x", LIMIT_S))
        await until(lambda: handler.running == 4)
        handler.gate.set()
        assert await own == b"done"
        assert [await call for call in calls if not (call.done() and call.exception())] == [b"done"] * 8
        for each in (hostile, honest, server):
            await each.close()

    asyncio.run(main())


def test_turns_are_given_back_whatever_happens_inside() -> None:
    async def main() -> None:
        lanes = InFlight("pulls", 1, 1)
        with pytest.raises(KeyError):
            async with lanes.turn("a"):
                raise KeyError
        async with lanes.turn("a"):
            second = asyncio.ensure_future(_enter(lanes, "a"))
            await asyncio.sleep(0)
            with pytest.raises(RefusedError, match="2 pulls of a are open"):
                await _enter(lanes, "a")
            await _enter(lanes, "b")
            assert lanes.open("a") == 2 and lanes.open("b") == 0
            second.cancel()
            await asyncio.wait([second])
            assert lanes.open("a") == 1
        assert lanes.open("a") == 0

    asyncio.run(main())


async def _enter(lanes: InFlight, peer: str) -> None:
    async with lanes.turn(peer):
        pass
