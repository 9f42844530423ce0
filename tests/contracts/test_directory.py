"""The contract of `Directory`, asked of every implementation with two nodes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from decentra.directory.base import Directory
from decentra.directory.hivemind_dht import HivemindDirectory
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.directory.static import StaticDirectory
from decentra.identity.keys import Identity
from decentra.identity.signing import sign
from decentra.wire.v1 import swarm_pb2

Two = tuple[Directory, Directory]


def record_of(identity: Identity, sequence: int) -> bytes:
    record = swarm_pb2.Record(run_id=b"r" * 16, peer=identity.peer, sequence=sequence, endpoints=["127.0.0.1:4000"])
    return sign(identity, b"record", record.SerializeToString())


async def memory_two() -> Two:
    board = MemoryBoard()
    return MemoryDirectory(board), MemoryDirectory(board)


async def static_two() -> Two:
    nodes: dict[str, StaticDirectory] = {}

    async def exchange(endpoint: str, own_record: bytes) -> list[bytes]:
        if endpoint not in nodes:
            raise ConnectionError(f"nobody at {endpoint}")
        nodes[endpoint].learn(own_record)
        return list(nodes[endpoint].records_nowait().values())

    nodes["a:1"] = StaticDirectory([], exchange, own_endpoints=["a:1"])
    return nodes["a:1"], StaticDirectory(["a:1", "gone:1"], exchange)


async def hivemind_two() -> Two:
    first = await HivemindDirectory.start(b"r" * 16)
    return first, await HivemindDirectory.start(b"r" * 16, first.addresses())


@pytest.fixture(params=[memory_two, static_two, hivemind_two], ids=["memory", "static", "hivemind"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Directory, Directory], Awaitable[None]]], None]:
    """Run a test body with two nodes of each implementation."""

    async def main(body: Callable[[Directory, Directory], Awaitable[None]]) -> None:
        a, b = await request.param()
        try:
            async with asyncio.timeout(30):
                await body(a, b)
        finally:
            await b.close()
            await a.close()

    return lambda body: asyncio.run(main(body))


def test_what_one_node_announces_all_read_and_the_newest_stands(run) -> None:
    async def body(a: Directory, b: Directory) -> None:
        ada, bob = Identity.create(), Identity.create()
        assert await a.records() == {} == await b.records()
        await a.announce(record_of(ada, 1))
        await b.announce(record_of(bob, 5))
        both = {ada.peer: record_of(ada, 1), bob.peer: record_of(bob, 5)}
        assert await a.records() == both == await b.records()
        await a.announce(record_of(ada, 2))
        assert (await b.records())[ada.peer] == record_of(ada, 2)
        assert (await a.records())[ada.peer] == record_of(ada, 2)

    run(body)


def test_addresses_are_text(run) -> None:
    async def body(a: Directory, b: Directory) -> None:
        assert all(isinstance(address, str) for address in a.addresses() + b.addresses())

    run(body)
