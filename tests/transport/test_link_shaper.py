"""The slow link: exact rates, overlapping delays, fair turns, control first; on a clock that leaps when all wait."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.transport.base import Contact
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import OVERHEAD_BYTES, LinkClock, Shaper, shape


class _LeapingSelector(selectors.SelectSelector):
    """Adds to the clock what the loop would have waited."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout:
            self.now_s += timeout
        return super().select(0)


def run_virtual(main: Coroutine[Any, Any, Any]) -> Any:
    selector = _LeapingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def frames_of(num_frames: int, num_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(num_frames):
        yield bytes(num_bytes)


messages = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 100_000), st.booleans()), min_size=1, max_size=60)


@given(messages, st.floats(1e3, 1e8))
def test_the_long_run_rate_is_exact_and_nothing_starves(sent: list[tuple[float, int, bool]], rate: float) -> None:
    clock, now_s, total_s, last_bulk_s, last_control_s = LinkClock(rate), 0.0, 0.0, 0.0, 0.0
    for gap_s, num_bytes, priority in sent:
        now_s += gap_s
        duration_s = (num_bytes + OVERHEAD_BYTES) / rate
        departure_s = clock.reserve(now_s, num_bytes, priority)
        total_s += duration_s
        assert departure_s >= now_s + duration_s * (1 - 1e-9)
        # Work conserving: whatever is accepted leaves by the time all accepted bytes take, idle time aside.
        assert departure_s <= now_s + total_s * (1 + 1e-9)
        assert departure_s <= clock.next_free_s * (1 + 1e-9)
        if priority:
            assert departure_s >= last_control_s + duration_s * (1 - 1e-9)
            last_control_s = departure_s
        else:
            assert departure_s >= last_bulk_s + duration_s * (1 - 1e-9)
            last_bulk_s = departure_s
    assert clock.next_free_s >= total_s * (1 - 1e-9)


@given(st.integers(1, 40), st.integers(0, 10))
def test_back_to_back_bulk_takes_its_bytes_over_the_rate_and_control_adds_its_own(num_bulk: int, num_control: int) -> None:
    clock = LinkClock(1000.0)
    for _ in range(num_bulk):
        clock.reserve(0.0, 936)
    for index in range(num_control):
        assert clock.reserve(0.0, 36, priority=True) == pytest.approx(0.1 * (index + 1))
    assert clock.reserve(0.0, 936) == pytest.approx(num_bulk + 0.1 * num_control + 1)


def test_control_passes_bulk_but_is_counted() -> None:
    clock = LinkClock(1000.0)
    clock.reserve(0.0, 10_000 - OVERHEAD_BYTES)
    assert clock.reserve(1.0, 100 - OVERHEAD_BYTES, priority=True) == pytest.approx(1.1)
    assert clock.reserve(1.0, 1000 - OVERHEAD_BYTES) == pytest.approx(11.1)


def test_an_unlimited_link_costs_nothing() -> None:
    assert LinkClock(float("inf")).reserve(3.0, 10**9) == 3.0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.floats(0, 5), st.integers(1, 3))
def test_delays_overlap_so_a_stream_keeps_the_rate(num_frames: int, delay_s: float, num_streams: int) -> None:
    async def main() -> float:
        clock = LinkClock(1000.0)

        async def drain() -> int:
            return len([frame async for frame in shape(frames_of(num_frames, 1000 - OVERHEAD_BYTES), clock, delay_s)])

        assert await asyncio.gather(*(drain() for _ in range(num_streams))) == [num_frames] * num_streams
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(num_frames * num_streams + delay_s, rel=1e-6)


def test_streams_take_turns() -> None:
    async def main() -> list[int]:
        clock, order = LinkClock(1000.0), []

        async def drain(name: int) -> None:
            async for _ in shape(frames_of(10, 936), clock, 0.5):
                order.append(name)

        await asyncio.gather(drain(0), drain(1), drain(2))
        return order

    order = run_virtual(main())
    for start in range(3, 20):
        assert set(order[start : start + 4]) == {0, 1, 2}


def test_a_late_source_error_comes_after_the_frames_before_it() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"first"
        raise KeyError("source")

    async def main() -> list[bytes]:
        got = []
        with pytest.raises(KeyError):
            async for frame in shape(failing(), LinkClock(1e3), 1.0):
                got.append(frame)
        return got

    assert run_virtual(main()) == [b"first"]


def test_leaving_a_shaped_stream_closes_its_source() -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100
        finally:
            closed.append(True)

    async def main() -> None:
        frames = shape(endless(), LinkClock(1e6), 0.1)
        await anext(frames)
        await frames.aclose()

    run_virtual(main())
    assert closed == [True]


class _Quiet:
    async def on_call(self, sender: str, request: bytes) -> bytes:
        return bytes(436)

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        async for frame in frames_of(10, 936):
            yield frame


def test_a_call_takes_both_links_and_both_delays_each_way() -> None:
    async def main() -> tuple[float, float]:
        loop, network = asyncio.get_running_loop(), MemoryNetwork()
        a = MemoryTransport(network, "a", _Quiet(), Shaper(LinkClock(1000), LinkClock(2000), 0.3))
        MemoryTransport(network, "b", _Quiet(), Shaper(LinkClock(500), LinkClock(4000), 0.7))
        a.connect(Contact("b", ("memory",)))
        await a.call("b", bytes(936), 60)
        call_s = loop.time()
        assert len([frame async for frame in a.pull("b", bytes(936), 60)]) == 10
        return call_s, loop.time() - call_s

    call_s, pull_s = run_virtual(main())
    request_s = 1.0 + 0.3 + 0.25
    assert call_s == pytest.approx(request_s + 1.0 + 0.7 + 0.25)
    # b's up link is the narrow one: ten frames of 2 s each, then the delay and the last frame's way down.
    assert pull_s == pytest.approx(request_s + 20 + 0.7 + 0.5)
