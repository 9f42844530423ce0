"""A slow link in user space: when each message may leave, and when it arrives.

`LinkClock` is pure arithmetic, one per node and direction, shared with the simulator. `Shaper` is what a transport
uses: a node's two clocks and its one-way delay. A message from A to B waits for A's up link, travels A's delay and
then takes B's down link; the reply does the same the other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

OVERHEAD_BYTES = 64
"""Charged on top of every message: HTTP/2 and gRPC prefixes, a TLS record, the packet headers of a small message."""

MAX_IN_FLIGHT_FRAMES = 64
"""Frames of one stream that may be travelling at a time: its memory bound on a long fat link."""


@dataclass(slots=True)
class LinkClock:
    """One direction of one node's link. Times are seconds of any one clock, the loop's or a simulated one.

    next_free_s: when bulk accepted so far has left; control_free_s: the same for control. Bulk is served in order of
    arrival. Control passes it and waits for control only, but takes its time from the bulk behind it.
    """

    rate_bytes_per_s: float
    next_free_s: float = 0.0
    control_free_s: float = 0.0

    def duration_s(self, num_bytes: int) -> float:
        """Seconds that a message occupies the link, overhead included."""
        return (num_bytes + OVERHEAD_BYTES) / self.rate_bytes_per_s

    def reserve(self, now_s: float, num_bytes: int, priority: bool = False) -> float:
        """Take the link for a message; returns when its last byte has left. `priority`: it is control."""
        duration_s = self.duration_s(num_bytes)
        self.next_free_s = max(self.next_free_s, now_s) + duration_s
        if not priority:
            return self.next_free_s
        self.control_free_s = max(self.control_free_s, now_s) + duration_s
        return self.control_free_s


async def sleep_until(time_s: float) -> None:
    """Sleep to an absolute loop time; returns at once if it has passed."""
    wait_s = time_s - asyncio.get_running_loop().time()
    if wait_s > 0:
        await asyncio.sleep(wait_s)


class Shaper:
    """One node's link. Rates are the clocks', `delay_s` is one way and charged to what this node sends."""

    def __init__(self, up: LinkClock, down: LinkClock, delay_s: float) -> None:
        self.up = up
        self.down = down
        self.delay_s = delay_s

    @classmethod
    def of_link(cls, rate_bytes_per_s: float, delay_s: float) -> Shaper:
        """The same rate both ways, as `config.parse_link` gives it."""
        return cls(LinkClock(rate_bytes_per_s), LinkClock(rate_bytes_per_s), delay_s)

    async def send_control(self, num_bytes: int) -> None:
        """Return when a control message sent now has reached the other end's link."""
        now_s = asyncio.get_running_loop().time()
        await sleep_until(self.up.reserve(now_s, num_bytes, priority=True) + self.delay_s)

    async def receive_control(self, num_bytes: int) -> None:
        """Return when a control message that arrives now has come down this node's link."""
        await sleep_until(self.down.reserve(asyncio.get_running_loop().time(), num_bytes, priority=True))

    def send_frames(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The frames of a stream, each when it has reached the other end's link."""
        return shape(frames, self.up, self.delay_s)

    def receive_frames(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The frames of an arriving stream, each when it has come down this node's link."""
        return shape(frames, self.down, 0.0)


async def shape(frames: AsyncIterator[bytes], clock: LinkClock, delay_s: float) -> AsyncIterator[bytes]:
    """Pass frames on at the end of their slot on `clock` plus `delay_s`; delays overlap, order and errors are kept.

    A stream has one frame in its slot and one waiting for its own, so concurrent streams take turns. `frames` is
    closed with this iterator; a slow reader stops it after MAX_IN_FLIGHT_FRAMES.
    """
    queue: asyncio.Queue[tuple[float, bytes | BaseException | None]] = asyncio.Queue(MAX_IN_FLIGHT_FRAMES)
    filling = asyncio.get_running_loop().create_task(_fill(queue, frames, clock, delay_s))
    try:
        while True:
            release_s, item = await queue.get()
            await sleep_until(release_s)
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        filling.cancel()
        await asyncio.wait({filling})


async def _fill(
    queue: asyncio.Queue[tuple[float, bytes | BaseException | None]],
    frames: AsyncIterator[bytes],
    clock: LinkClock,
    delay_s: float,
) -> None:
    loop = asyncio.get_running_loop()
    end: Exception | None = None
    try:
        async with aclosing(frames) as source:  # type: ignore[type-var]
            async for frame in source:
                departure_s = clock.reserve(loop.time(), len(frame))
                await queue.put((departure_s + delay_s, frame))
                # To its slot's start, not its end: the next frame is then ready in time and no rate is lost.
                await sleep_until(departure_s - clock.duration_s(len(frame)))
    except Exception as error:
        end = error
    await queue.put((loop.time() + delay_s, end))
