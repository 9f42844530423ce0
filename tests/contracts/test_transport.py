"""The contract of `Transport`, asked of every implementation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from decentra.errors import PeerError, PeerFault, PeerTimeout, PeerUnreachable, RefusedError
from decentra.identity.keys import Identity
from decentra.identity.tls import tls_material
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Contact, Transport
from decentra.transport.grpc import GrpcTransport
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import Shaper

RUN_ID, TOKEN = b"r" * 16, b"t" * 16


class Echo:
    """Answers calls with sender and request; streams what `pull` names; keeps what happened to its pulls."""

    def __init__(self) -> None:
        self.num_frames_sent = 0
        self.ended = asyncio.Event()
        self.cancelled_calls = 0

    async def on_call(self, sender: str, request: bytes) -> bytes:
        if request == b"refuse":
            raise RefusedError("sync 7 is over; the swarm is at sync 9")
        if request == b"break":
            raise KeyError("a bug here")
        if request == b"large":
            return bytes(MAX_CALL_BYTES + 1)
        if request == b"sleep":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled_calls += 1
                raise
        if request == b"pause":
            await asyncio.sleep(0.05)
        return sender.encode() + b" " + request

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        kind, _, count = request.partition(b" ")
        try:
            if kind == b"refuse":
                raise RefusedError("no such block")
            for index in range(int(count or 1)):
                self.num_frames_sent += 1
                yield bytes([index % 256]) * {b"large": FRAME_BYTES + 1, b"sparse": index % 2}.get(kind, 1000)
                if kind == b"stall":
                    await asyncio.sleep(60)
                await asyncio.sleep(0)
        finally:
            self.ended.set()


class Pair:
    """Two peers that know each other: `a` calls, `b` answers with `echo`."""

    def __init__(self, a: Transport, b: Transport, peer_a: str, peer_b: str, echo: Echo) -> None:
        self.a, self.b, self.peer_a, self.peer_b, self.echo = a, b, peer_a, peer_b, echo

    async def pulled(self, request: bytes, idle_timeout_s: float = 5.0) -> list[bytes]:
        return [frame async for frame in self.a.pull(self.peer_b, request, idle_timeout_s)]


def link_of(shaped: bool) -> Shaper | None:
    return Shaper.of_link(100e6, 0.002) if shaped else None


async def memory_pair(shaped: bool) -> Pair:
    network, echo = MemoryNetwork(), Echo()
    a = MemoryTransport(network, "a" * 32, Echo(), link_of(shaped))
    b = MemoryTransport(network, "b" * 32, echo, link_of(shaped))
    a.connect(Contact("b" * 32, ("memory",)))
    b.connect(Contact("a" * 32, ("memory",)))
    return Pair(a, b, a.peer, b.peer, echo)


async def grpc_pair(shaped: bool) -> Pair:
    echo = Echo()
    identities = [Identity.create(), Identity.create()]
    tls = [tls_material(identity, RUN_ID, TOKEN) for identity in identities]
    a, b = [
        await GrpcTransport.start(identity.peer, handler, material, host="127.0.0.1", port=0, shaper=link_of(shaped))
        for identity, material, handler in zip(identities, tls, (Echo(), echo), strict=True)
    ]
    a.connect(Contact(b.peer, (f"127.0.0.1:{b.port}",), tls[1].server_certificate))
    b.connect(Contact(a.peer, (f"127.0.0.1:{a.port}",), tls[0].server_certificate))
    return Pair(a, b, a.peer, b.peer, echo)


@pytest.fixture(params=["memory", "memory shaped", "grpc", "grpc shaped"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Pair], Awaitable[None]]], None]:
    """Run a test body with a fresh pair of each implementation."""
    kind, _, shaped = request.param.partition(" ")

    async def main(body: Callable[[Pair], Awaitable[None]]) -> None:
        pair = await (memory_pair if kind == "memory" else grpc_pair)(bool(shaped))
        try:
            async with asyncio.timeout(20):
                await body(pair)
        finally:
            await pair.a.close()
            await pair.b.close()

    return lambda body: asyncio.run(main(body))


def test_an_empty_frame_arrives_as_one(run) -> None:
    async def body(pair: Pair) -> None:
        assert await pair.pulled(b"sparse 4") == [b"", b"\1", b"", b"\3"]

    run(body)


def test_a_call_is_answered_and_its_sender_known(run) -> None:
    async def body(pair: Pair) -> None:
        assert await pair.a.call(pair.peer_b, b"hello", 5) == pair.peer_a.encode() + b" hello"
        assert await pair.b.call(pair.peer_a, b"", 5) == pair.peer_b.encode() + b" "

    run(body)


def test_a_pull_gives_all_frames_in_order(run) -> None:
    async def body(pair: Pair) -> None:
        frames = await pair.pulled(b"count 300")
        assert [frame[0] for frame in frames] == [index % 256 for index in range(300)]
        assert await pair.pulled(b"count 0") == []

    run(body)


def test_a_refusal_arrives_as_a_fault_with_its_reason(run) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerFault, match="sync 7 is over; the swarm is at sync 9") as caught:
            await pair.a.call(pair.peer_b, b"refuse", 5)
        assert caught.value.peer == pair.peer_b
        with pytest.raises(PeerFault, match="no such block"):
            await pair.pulled(b"refuse")

    run(body)


def test_a_bug_in_the_handler_is_a_fault_for_the_caller_and_serving_goes_on(run) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerFault, match="KeyError"):
            await pair.a.call(pair.peer_b, b"break", 5)
        assert await pair.a.call(pair.peer_b, b"again", 5)

    run(body)


def test_a_closed_peer_is_unreachable(run) -> None:
    async def body(pair: Pair) -> None:
        await pair.a.call(pair.peer_b, b"hello", 5)
        await pair.b.close()
        with pytest.raises(PeerUnreachable):
            await pair.a.call(pair.peer_b, b"hello", 5)
        with pytest.raises(PeerUnreachable):
            await pair.pulled(b"count 3")

    run(body)


def test_an_unknown_peer_and_one_without_endpoints_are_unreachable(run) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerUnreachable, match="no contact"):
            await pair.a.call("z" * 32, b"hello", 5)
        pair.a.connect(Contact(pair.peer_b, ()))
        with pytest.raises(PeerUnreachable, match="cannot be dialled"):
            await pair.a.call(pair.peer_b, b"hello", 5)

    run(body)


def test_calls_in_flight_end_at_once_when_the_peer_goes(run) -> None:
    async def body(pair: Pair) -> None:
        call = asyncio.create_task(pair.a.call(pair.peer_b, b"sleep", 15))
        pull = asyncio.create_task(pair.pulled(b"stall", 15))
        await asyncio.sleep(0.2)
        await pair.b.close()
        async with asyncio.timeout(3):
            outcomes = await asyncio.gather(call, pull, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PeerUnreachable, PeerUnreachable]

    run(body)


def test_closing_ones_own_transport_ends_ones_calls(run) -> None:
    async def body(pair: Pair) -> None:
        call = asyncio.create_task(pair.a.call(pair.peer_b, b"sleep", 15))
        await asyncio.sleep(0.1)
        await pair.a.close()
        with pytest.raises(PeerUnreachable):
            await call
        with pytest.raises(PeerUnreachable):
            await pair.a.call(pair.peer_b, b"hello", 5)

    run(body)


def test_a_slow_reply_is_a_timeout_and_is_cancelled_at_the_peer(run) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerTimeout):
            await pair.a.call(pair.peer_b, b"sleep", 0.2)
        await asyncio.sleep(0.1)
        assert pair.echo.cancelled_calls == 1

    run(body)


def test_a_stalled_pull_is_a_timeout_after_its_first_frames(run) -> None:
    async def body(pair: Pair) -> None:
        got = []
        with pytest.raises(PeerTimeout):
            async for frame in pair.a.pull(pair.peer_b, b"stall 2", 0.3):
                got.append(frame)
        assert len(got) == 1
        await asyncio.wait_for(pair.echo.ended.wait(), 3)

    run(body)


def test_a_pull_that_its_receiver_leaves_ends_at_the_sender(run) -> None:
    async def body(pair: Pair) -> None:
        frames = pair.a.pull(pair.peer_b, b"count 1000000", 5)
        assert await anext(frames)
        await frames.aclose()
        await asyncio.wait_for(pair.echo.ended.wait(), 3)
        assert pair.echo.num_frames_sent < 1_000_000

    run(body)


def test_a_pull_whose_task_is_cancelled_ends_at_the_sender(run) -> None:
    async def body(pair: Pair) -> None:
        task = asyncio.create_task(pair.pulled(b"stall 2", 30))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(pair.echo.ended.wait(), 3)

    run(body)


def test_oversized_messages_are_refused(run) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerFault, match="limit"):
            await pair.a.call(pair.peer_b, bytes(MAX_CALL_BYTES + 1), 5)
        with pytest.raises(PeerFault, match="limit"):
            await pair.a.call(pair.peer_b, b"large", 5)
        with pytest.raises(PeerFault, match="limit"):
            await pair.pulled(b"large")
        reply = await pair.a.call(pair.peer_b, bytes(MAX_CALL_BYTES - 40), 5)
        assert len(reply) > MAX_CALL_BYTES - 40

    run(body)


def test_many_calls_at_once_do_not_wait_for_each_other_or_for_bulk(run) -> None:
    async def body(pair: Pair) -> None:
        pulls = [asyncio.create_task(pair.pulled(b"count 400")) for _ in range(4)]
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        replies = await asyncio.gather(*(pair.a.call(pair.peer_b, b"pause", 10) for _ in range(200)))
        assert len(replies) == 200
        assert loop.time() - begin_s < 4.0
        assert [len(frames) for frames in await asyncio.gather(*pulls)] == [400] * 4

    run(body)


def test_bytes_are_counted_both_ways(run) -> None:
    async def body(pair: Pair) -> None:
        reply = await pair.a.call(pair.peer_b, b"12345", 5)
        await pair.pulled(b"count 3")
        assert pair.a.counters() == (5 + 7, len(reply) + 3000)
        assert pair.b.counters() == (len(reply) + 3000, 5 + 7)

    run(body)


def test_a_new_contact_replaces_the_former_and_the_same_one_changes_nothing(run) -> None:
    async def body(pair: Pair) -> None:
        call = asyncio.create_task(pair.a.call(pair.peer_b, b"pause", 5))
        await asyncio.sleep(0.02)
        if isinstance(pair.b, GrpcTransport):
            certificate = pair.b._tls.server_certificate
            pair.a.connect(Contact(pair.peer_b, (f"127.0.0.1:{pair.b.port}",), certificate))
            assert await call
            pair.a.connect(Contact(pair.peer_b, ("127.0.0.1:1",), certificate))
        else:
            pair.a.connect(Contact(pair.peer_b, ("memory",)))
            assert await call
            pair.a.connect(Contact(pair.peer_b, ()))
        with pytest.raises(PeerUnreachable):
            await pair.a.call(pair.peer_b, b"hello", 5)

    run(body)


def test_only_peer_errors_come_out(run) -> None:
    async def body(pair: Pair) -> None:
        for request in (b"refuse", b"break", b"large"):
            with pytest.raises(PeerError):
                await pair.a.call(pair.peer_b, request, 5)

    run(body)
