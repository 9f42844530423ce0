"""Faults that only the memory network can make: cut links, killed peers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from decentra.errors import PeerTimeout, PeerUnreachable, SetupError
from decentra.transport.base import Contact
from decentra.transport.memory import MemoryNetwork, MemoryTransport


class Counting:
    def __init__(self) -> None:
        self.num_calls = 0

    async def on_call(self, sender: str, request: bytes) -> bytes:
        self.num_calls += 1
        return request

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        for index in range(5):
            yield bytes([index])
            await asyncio.sleep(0.02)


def pair() -> tuple[MemoryNetwork, MemoryTransport, Counting]:
    network, handler = MemoryNetwork(), Counting()
    a = MemoryTransport(network, "a")
    MemoryTransport(network, "b", handler)
    a.connect(Contact("b", ("memory",)))
    return network, a, handler


def test_a_cut_link_is_a_timeout_whichever_way_it_is_cut() -> None:
    async def main() -> None:
        network, a, handler = pair()
        network.cut("a", "b")
        with pytest.raises(PeerTimeout):
            await a.call("b", b"", 0.05)
        assert handler.num_calls == 0
        network.heal("a", "b")
        network.cut("b", "a")
        with pytest.raises(PeerTimeout):
            await a.call("b", b"", 0.05)
        assert handler.num_calls == 1
        with pytest.raises(PeerTimeout):
            async for _ in a.pull("b", b"", 0.05):
                pass

    asyncio.run(main())


def test_what_a_cut_held_back_arrives_when_it_heals() -> None:
    async def main() -> None:
        network, a, _ = pair()
        network.cut("b", "a")
        call = asyncio.create_task(a.call("b", b"x", 5))
        await asyncio.sleep(0.05)
        network.heal("b", "a")
        assert await call == b"x"
        got = []
        async for frame in a.pull("b", b"", 5):
            got.append(frame)
            if len(got) == 2:
                network.cut("b", "a")
                asyncio.get_running_loop().call_later(0.05, network.heal, "b", "a")
        assert got == [bytes([index]) for index in range(5)]

    asyncio.run(main())


def test_a_killed_peer_ends_pulls_and_may_come_back() -> None:
    async def main() -> None:
        network, a, _ = pair()
        with pytest.raises(PeerUnreachable):
            async for _ in a.pull("b", b"", 5):
                network.remove("b")
        with pytest.raises(PeerUnreachable):
            await a.call("b", b"", 5)
        MemoryTransport(network, "b", Counting())
        assert await a.call("b", b"again", 5) == b"again"
        with pytest.raises(SetupError):
            MemoryTransport(network, "b", Counting())

    asyncio.run(main())


def test_a_killed_peer_can_no_longer_call() -> None:
    async def main() -> None:
        network, a, handler = pair()
        network.remove("a")
        with pytest.raises(PeerUnreachable):
            await a.call("b", b"", 5)
        assert handler.num_calls == 0

    asyncio.run(main())
