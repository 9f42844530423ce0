"""The contract of `Transport`, asked of every implementation, and of each also where the peer asked cannot be dialled."""

import asyncio
import functools
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
                sizes = {b"large": FRAME_BYTES + 1, b"full": FRAME_BYTES, b"sparse": index % 2}
                yield bytes([index % 256]) * sizes.get(kind, 1000)
                if kind == b"stall":
                    await asyncio.sleep(60)
                await asyncio.sleep(0)
        finally:
            self.ended.set()


class Pair:
    """Two peers that know each other: `a` calls, `b` answers with `echo`. `restart_a`: a comes back at the same address."""

    def __init__(self, a: Transport, b: Transport, echo: Echo, restart_a: Callable[[], Awaitable[Transport]]) -> None:
        self.a, self.b, self.echo, self._restart_a = a, b, echo, restart_a
        self.peer_a, self.peer_b = a.peer, b.peer

    async def pulled(self, request: bytes, idle_timeout_s: float = 5.0) -> list[bytes]:
        return [frame async for frame in self.a.pull(self.peer_b, request, idle_timeout_s)]

    async def restart_a(self) -> None:
        await self.a.close()
        self.a = await self._restart_a()


def link_of(shaped: bool) -> Shaper | None:
    return Shaper.of_link(100e6, 0.002) if shaped else None


async def memory_pair(shaped: bool, dialable: bool) -> Pair:
    network, echo = MemoryNetwork(), Echo()
    contact_of_b = Contact("b" * 32, ("memory",) if dialable else ())

    async def start_a() -> MemoryTransport:
        a = MemoryTransport(network, "a" * 32, Echo(), link_of(shaped))
        a.connect(contact_of_b)
        return a

    b = MemoryTransport(network, "b" * 32, echo, link_of(shaped), dialable)
    b.connect(Contact("a" * 32, ("memory",)))
    return Pair(await start_a(), b, echo, start_a)


async def grpc_pair(shaped: bool, dialable: bool) -> Pair:
    echo = Echo()
    identities = [Identity.create(), Identity.create()]
    tls = [tls_material(identity, RUN_ID, TOKEN) for identity in identities]
    start = functools.partial(GrpcTransport.start, host="127.0.0.1")
    b = await start(identities[1].peer, echo, tls[1], port=0, shaper=link_of(shaped), dialable=dialable)
    contact_of_b = Contact(b.peer, (f"127.0.0.1:{b.port}",) if dialable else (), tls[1].server_certificate)

    async def start_a(port: int) -> GrpcTransport:
        a = await start(identities[0].peer, Echo(), tls[0], port=port, shaper=link_of(shaped))
        a.connect(contact_of_b)
        return a

    a = await start_a(0)
    b.connect(Contact(a.peer, (f"127.0.0.1:{a.port}",), tls[0].server_certificate))
    while not dialable and len(a._desk._streams) < 2:
        await asyncio.sleep(0.01)
    return Pair(a, b, echo, functools.partial(start_a, a.port))


Run = Callable[[Callable[[Pair], Awaitable[None]]], None]
DIALLED = ["memory", "memory shaped", "grpc", "grpc shaped"]


def run_with(kind: str, dialable: bool) -> Run:
    """Run a test body with a fresh pair of one implementation."""
    name, _, shaped = kind.partition(" ")

    async def main(body: Callable[[Pair], Awaitable[None]]) -> None:
        async with asyncio.timeout(20):
            pair = await (memory_pair if name == "memory" else grpc_pair)(bool(shaped), dialable)
            try:
                await body(pair)
            finally:
                await pair.a.close()
                await pair.b.close()

    return lambda body: asyncio.run(main(body))


@pytest.fixture(params=[*DIALLED, *(f"{kind}, reverse" for kind in DIALLED)])
def run(request: pytest.FixtureRequest) -> Run:
    kind, _, reverse = request.param.partition(", ")
    return run_with(kind, not reverse)


@pytest.fixture(params=DIALLED)
def run_dialled(request: pytest.FixtureRequest) -> Run:
    return run_with(request.param, True)


@pytest.fixture(params=DIALLED)
def run_reverse(request: pytest.FixtureRequest) -> Run:
    return run_with(request.param, False)


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


def test_an_unknown_peer_and_one_without_endpoints_are_unreachable(run_dialled) -> None:
    async def body(pair: Pair) -> None:
        with pytest.raises(PeerUnreachable, match="no contact"):
            await pair.a.call("z" * 32, b"hello", 5)
        pair.a.connect(Contact(pair.peer_b, ()))
        with pytest.raises(PeerUnreachable, match="cannot be dialled"):
            await pair.a.call(pair.peer_b, b"hello", 5)

    run_dialled(body)


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


def test_a_new_contact_replaces_the_former_and_the_same_one_changes_nothing(run_dialled) -> None:
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

    run_dialled(body)


def test_only_peer_errors_come_out(run) -> None:
    async def body(pair: Pair) -> None:
        for request in (b"refuse", b"break", b"large"):
            with pytest.raises(PeerError):
                await pair.a.call(pair.peer_b, request, 5)

    run(body)


def test_a_slow_reader_holds_the_sender_back(run) -> None:
    async def body(pair: Pair) -> None:
        frames = pair.a.pull(pair.peer_b, b"full 1000", 5)
        assert await anext(frames)
        await asyncio.sleep(0.5)
        assert pair.echo.num_frames_sent < 200
        await frames.aclose()

    run(body)


# -- peers that cannot be dialled ---------------------------------------------------------------------------------------


def test_a_peer_that_cannot_be_dialled_is_reached_again_when_its_connection_broke(run_reverse) -> None:
    async def body(pair: Pair) -> None:
        assert await pair.a.call(pair.peer_b, b"hello", 5)
        await pair.restart_a()
        deadline_s = asyncio.get_running_loop().time() + 15
        while True:
            try:
                assert await pair.a.call(pair.peer_b, b"again", 5) == pair.peer_a.encode() + b" again"
                break
            except PeerUnreachable as error:
                assert asyncio.get_running_loop().time() < deadline_s, error
                await asyncio.sleep(0.05)
        while True:
            try:
                assert len(await pair.pulled(b"count 3")) == 3
                break
            except PeerUnreachable as error:
                assert asyncio.get_running_loop().time() < deadline_s, error
                await asyncio.sleep(0.05)

    run_reverse(body)


def test_two_peers_that_cannot_be_dialled_never_reach_each_other(run_reverse) -> None:
    async def body(pair: Pair) -> None:
        if isinstance(pair.b, GrpcTransport):
            identity = Identity.create()
            material = tls_material(identity, RUN_ID, TOKEN)
            other: Transport = await GrpcTransport.start(identity.peer, Echo(), material, host="127.0.0.1", port=0, dialable=False)
        else:
            other = MemoryTransport(pair.b._network, "c" * 32, Echo(), None, False)
        other.connect(Contact(pair.peer_b, ()))
        pair.b.connect(Contact(other.peer, ()))
        for asker, asked in ((other, pair.peer_b), (pair.b, other.peer)):
            with pytest.raises(PeerUnreachable, match="cannot be dialled"):
                await asker.call(asked, b"hello", 5)
            with pytest.raises(PeerUnreachable, match="cannot be dialled"):
                _ = [frame async for frame in asker.pull(asked, b"count 1", 5)]
        await other.close()

    run_reverse(body)


def test_a_peer_that_cannot_be_dialled_and_is_gone_holds_no_connection(run_reverse) -> None:
    async def body(pair: Pair) -> None:
        await pair.b.close()
        await asyncio.sleep(0.1)
        with pytest.raises(PeerUnreachable, match="holds no connection"):
            await pair.a.call(pair.peer_b, b"hello", 5)

    run_reverse(body)
