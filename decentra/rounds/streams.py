"""What a node streams to those who pull: contributions and blobs of the round at once, state when its turn comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from decentra.errors import RefusedError, StateError
from decentra.ledger.store import Store
from decentra.rounds import owner
from decentra.rounds.download import digest_frames
from decentra.rounds.pacing import Pacer, Pins
from decentra.transport.base import FRAME_BYTES
from decentra.wire.v1 import state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

LOOK_AGAIN_S, KEEP_ALIVE_S = 0.1, 2.0
QUICK_S = 0.1
"""A frame that was taken sooner may be followed by one of more blocks."""


class Streams:
    """All streams of a node, which share its link by priority. The server decides what a stream is, not its puller."""

    def __init__(self) -> None:
        self._pacer, self._pins = Pacer(), Pins()
        self._turn = asyncio.Lock()

    def frames(self, member: Member, message: state_pb2.PullRequest) -> AsyncGenerator[bytes, None]:
        """The frames that answer a pull. Raises RefusedError."""
        if message.WhichOneof("what") == "contribution_root":
            return self._contribution(member, message)
        return self._object(member, message)

    async def _contribution(self, member: Member, message: state_pb2.PullRequest) -> AsyncGenerator[bytes, None]:
        """Round traffic: it goes at once."""
        first, last = message.first_block, message.first_block + message.num_blocks
        if message.relay:
            await owner.relay(member, message.contribution_root, first, message.num_blocks)
        held = member.parts.held.get(message.contribution_root)
        if held is None or last > len(held.block_digests) or any(b not in held.blocks for b in range(first, last)):
            raise RefusedError(f"contribution {message.contribution_root.hex()[:12]} is not held here")
        blocks = held.blocks
        with self._round_stream(member):
            for frame in () if message.digests_known else digest_frames(held.block_digests):
                yield frame
            number, at_once = first, 1
            while number < last:
                self._pacer.last_round_s = asked_s = member.now()
                yield b"".join(blocks[b] for b in range(number, min(number + at_once, last)))
                number += at_once
                # On a slow link one block a frame: the puller must not take a long frame for silence.
                fits = max(1, FRAME_BYTES // max(1, len(blocks[first])))
                at_once = min(2 * at_once, fits) if member.now() - asked_s < QUICK_S else 1
        if member.own is not None and member.own.root == message.contribution_root:
            member.marks["sent"] = member.now()

    async def _object(self, member: Member, message: state_pb2.PullRequest) -> AsyncGenerator[bytes, None]:
        """Blobs of the due entry and the one before are round traffic; all else waits its turn and pins what it needs."""
        name, last = message.object_digest.hex()[:12], message.first_block + message.num_blocks
        store = member.ports.store
        try:
            stored = await member.ports.run_blocking(store.served, message.object_digest)
            if last > len(stored.block_digests):
                raise RefusedError(f"object {name} has {len(stored.block_digests)} blocks, not {last}")
            is_round = not stored.is_tensor and stored.r >= member.state.r - 1
            base = None if is_round else await member.ports.run_blocking(_base_of, store, stored.r)
            with self._round_stream(member) if is_round else nullcontext():
                for frame in () if message.digests_known else digest_frames(stored.block_digests):
                    yield frame
                for number in range(message.first_block, last):
                    block = await member.ports.run_blocking(store.block, stored, number)
                    if is_round:
                        self._pacer.last_round_s = member.now()
                        yield block
                        continue
                    self._pin(member, base)
                    async for alive in self._wait_turn(member, len(block)):
                        yield alive
                    turn, asked_s = await self._take_turn(member, len(block)), member.now()
                    try:
                        yield block
                    finally:
                        turn.release()
                        self._pacer.low_sent(asked_s, member.now())
        except KeyError:
            raise RefusedError(f"object {name} is not held here") from None
        except StateError as error:
            member.ports.note(f"cannot give an object away: {error}")
            raise RefusedError(f"object {name} is damaged here") from error

    # -- priorities -------------------------------------------------------------------------------------------------

    @contextmanager
    def _round_stream(self, member: Member) -> Iterator[None]:
        self._pacer.round_streams += 1
        self._pacer.last_round_s = member.now()
        try:
            yield
        finally:
            self._pacer.round_streams -= 1

    async def _wait_turn(self, member: Member, num_bytes: int) -> AsyncIterator[bytes]:
        """Wait until a state frame may go; meanwhile empty frames, which say that this node lives."""
        turn_s = self._pacer.low_turn_s(member.now(), num_bytes, _rate_of(member), self._is_busy(member))
        said_s = member.now()
        while self._is_busy(member) and member.now() < turn_s:
            await asyncio.sleep(min(LOOK_AGAIN_S, turn_s - member.now()))
            if member.now() - said_s >= KEEP_ALIVE_S:
                said_s = member.now()
                yield b""

    async def _take_turn(self, member: Member, num_bytes: int) -> asyncio.Lock:
        """Hand state frames to the transport one by one, so that a round finds little before it. Who stalls loses its turn."""
        turn = self._turn
        try:
            async with asyncio.timeout(1.0 + 4 * num_bytes / _rate_of(member)):
                await turn.acquire()
        except TimeoutError:
            self._turn = turn = asyncio.Lock()
            await turn.acquire()
        return turn

    def _is_busy(self, member: Member) -> bool:
        return self._pacer.is_busy(member.now(), member.period_s(), member.trip)

    def _pin(self, member: Member, base: int | None) -> None:
        """Somebody pulls what a snapshot needs: it stays, and all since."""
        if base is not None:
            clock = asyncio.get_running_loop().time
            self._pins.touch(base, clock())
            member.ports.store.pinned = lambda: self._pins.oldest(clock())


def _rate_of(member: Member) -> float:
    return member.me.up_bytes_per_s or member.fetcher.rate_bytes_per_s


def _base_of(store: Store, r: int) -> int | None:
    """The snapshot from which whoever pulls an object of entry r, or of snapshot r, will go on."""
    return max((kept for kept in store.snapshots() if kept <= r), default=None)
