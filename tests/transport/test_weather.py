"""Weather on the links of a memory network: what is late, doubled or damaged is so by the seed, and nowhere else."""

import asyncio
import random

import pytest

from decentra.errors import PeerUnreachable
from decentra.sim import clock
from decentra.transport.base import Contact
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.weather import Weather


class Answers:
    """Counts what it is asked."""

    def __init__(self):
        self.asked = 0

    async def on_call(self, sender, request):
        self.asked += 1
        return b"reply"

    async def on_pull(self, sender, request):
        for _ in range(20):
            yield bytes(100)


def network(seed=1, address=""):
    weather, answers = Weather(random.Random(seed)), Answers()
    links = MemoryNetwork(weather)
    a = MemoryTransport(links, "a")
    MemoryTransport(links, "b", answers, address=address)
    a.connect(Contact("b", ("here",)))
    return weather, a, answers


def test_a_late_link_is_late_one_way_and_jitter_lets_calls_overtake():
    async def main():
        weather, a, _ = network()
        weather.on("a", "b").delay_s = 1.0
        await a.call("b", b"x", 60)
        assert asyncio.get_running_loop().time() == 1.0
        weather.on("a", "b").jitter_s = 5.0
        arrived = []

        async def call(number):
            await a.call("b", b"x", 60)
            arrived.append(number)

        await asyncio.gather(*(call(number) for number in range(8)))
        assert arrived != sorted(arrived)

    clock.run(main())


def test_a_doubled_request_is_handled_twice_and_answered_once():
    async def main():
        weather, a, answers = network()
        weather.on("a", "b").doubled_share = 1.0
        assert await a.call("b", b"x", 60) == b"reply"
        await asyncio.sleep(1)
        assert answers.asked == 2

    clock.run(main())


def test_a_damaged_control_message_breaks_the_connection():
    async def main():
        weather, a, answers = network()
        weather.on("b", "a").broken_share = 1.0
        with pytest.raises(PeerUnreachable, match="damaged"):
            await a.call("b", b"x", 60)
        assert answers.asked == 1
        weather.clear()
        assert await a.call("b", b"x", 60) == b"reply"

    clock.run(main())


def test_a_spoiled_frame_has_one_flipped_bit():
    async def main():
        weather, a, _ = network()
        weather.on("b", "a").spoiled_share = 0.5
        frames = [frame async for frame in a.pull("b", b"x", 60)]
        flipped = [sum(byte.bit_count() for byte in frame) for frame in frames]
        assert len(frames) == 20 and set(flipped) == {0, 1}

    clock.run(main())


@pytest.mark.parametrize("address, reached", [("here", True), ("moved", False)])
def test_a_peer_is_reached_at_its_address_only(address, reached):
    async def main():
        _, a, _ = network(address=address)
        if reached:
            assert await a.call("b", b"x", 60) == b"reply"
        else:
            with pytest.raises(PeerUnreachable, match="nobody answers"):
                await a.call("b", b"x", 60)

    clock.run(main())


def test_a_server_that_is_frozen_does_not_keep_its_caller_beyond_the_timeout():
    async def main():
        loop = asyncio.get_running_loop()
        links, answers = MemoryNetwork(), Answers()
        a = MemoryTransport(links, "a")

        async def serve():
            clock.PROCESS.set("b")
            MemoryTransport(links, "b", answers)

        await asyncio.create_task(serve())
        a.connect(Contact("b", ("here",)))
        loop.freeze("b")
        with pytest.raises(Exception, match="no reply within 3 s"):
            await a.call("b", b"x", 3)
        assert loop.time() == 3.0 and answers.asked == 0
        loop.thaw("b")
        assert await a.call("b", b"x", 3) == b"reply"

    clock.run(main())
