"""One object from several donors at once: small runs of blocks, each donor taking the next as it is done with the last.

So a slow donor gives less. A donor that has nothing to take helps one that still has: it takes the later half of its run.
Who cannot be reached is asked again later; who sends what does not hold, or no longer holds it, is not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from decentra.errors import PeerError, PeerFault, PeerTimeout, PeerUnreachable
from decentra.ledger import chain
from decentra.rounds.flows import Flow
from decentra.transport.base import FRAME_BYTES, Transport
from decentra.types import FILE_BLOCK_BYTES, Digest, PeerId
from decentra.wire.v1 import state_pb2

DIGEST_BYTES = 32
MAX_RUN_BLOCKS = 64
RUNS_A_DONOR = 4
"""Where there are several: each further run costs a round trip, for which a lone donor would get nothing."""

RETRY_S, MAX_RETRY_S, LOOK_AGAIN_S = 1.0, 15.0, 1.0
STALL_RATIO = 6.0
"""A donor may say that it is alive for so many idle timeouts; then it must have given a block."""

GIVE_UP_S = 90.0
"""When no donor can be reached for so long, the download ends; what came is kept by whoever places it."""

Place = Callable[[int, bytes | memoryview], Awaitable[None]]
"""Takes a block that has been checked, by its number."""


async def pull_blocks(
    transport: Transport,
    peer: PeerId,
    request: state_pb2.PullRequest,
    total_blocks: int,
    root: Digest,
    is_tensor: bool,
    idle_s: float,
    digests: tuple[Digest, ...] = (),
    block_bytes: int = FRAME_BYTES,
) -> AsyncGenerator[tuple[int, bytes | memoryview, tuple[Digest, ...]], None]:
    """(block number, bytes, all block digests of the object) for the blocks that `request` names. Raises PeerError.

    digests: where they are known already, and have been checked, they are not sent again. Else they come first and must
    hash to `root`; then come the blocks, one or several of `block_bytes` a frame, each of which must hash to its digest. A
    sender that sends more, less or other bytes is at fault by name. An empty frame says that the sender is alive and waits
    for its turn.
    """
    listed = bytearray()
    request.digests_known = bool(digests)
    check = chain.tensor_block if is_tensor else chain.bytes_block
    block, end = request.first_block, request.first_block + request.num_blocks
    clock = asyncio.get_running_loop().time
    moved_s = clock()
    async with aclosing(transport.pull(peer, request.SerializeToString(), idle_s)) as frames:  # type: ignore[type-var]
        async for frame in frames:
            if not frame and total_blocks:
                if clock() - moved_s > STALL_RATIO * idle_s:
                    raise PeerTimeout(peer, f"alive, but no block for {STALL_RATIO * idle_s:g} s")
                continue
            if not digests:
                listed += frame
                if len(listed) >= DIGEST_BYTES * total_blocks:
                    digests = _block_digests(peer, bytes(listed), total_blocks, root)
                continue
            for data in (frame,) if len(frame) <= block_bytes else chain.split_blocks(frame, block_bytes):
                if block >= end or check(data) != digests[block]:
                    raise PeerFault(peer, f"block {block} of {root.hex()[:12]} does not hold")
                yield block, data, digests
                block, moved_s = block + 1, clock()
    if block != end:
        raise PeerFault(peer, f"the stream of {root.hex()[:12]} ended at block {block}")


def _block_digests(peer: PeerId, listed: bytes, total_blocks: int, root: Digest) -> tuple[Digest, ...]:
    digests = tuple(listed[i : i + DIGEST_BYTES] for i in range(0, len(listed), DIGEST_BYTES))
    if len(digests) != total_blocks or chain.tree(digests) != root:
        raise PeerFault(peer, f"the block digests of {root.hex()[:12]} do not hold")
    return digests


@dataclass(slots=True, eq=False)
class _Run:
    """Blocks `at` to `end` - 1 are still to come; another donor may lower `end`. begun_s: when it was asked for."""

    at: int
    end: int
    first: int = 0
    begun_s: float = 0.0

    def block_s(self, now_s: float) -> float:
        """Seconds a block takes, by what came so far."""
        return (now_s - self.begun_s) / max(1, self.at - self.first)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object by its digest, and how it is cut."""

    name: Digest
    num_blocks: int
    is_tensor: bool


class Download:
    """What is still to come of one object, and who brings it."""

    def __init__(
        self,
        transport: Transport,
        run_id: bytes,
        wanted: Wanted,
        place: Place,
        idle_s: float,
        digests: tuple[Digest, ...] = (),
        held: Sequence[int] = (),
    ) -> None:
        """held: blocks that need not come."""
        self.digests = digests
        self._transport, self._run_id, self._wanted = transport, run_id, wanted
        self._place, self._idle_s = place, idle_s
        self._waiting: deque[_Run] = deque(_runs_between(wanted.num_blocks, held))
        self._moving: list[_Run] = []
        self._missing = wanted.num_blocks - len(set(held))
        self._moved_s = 0.0
        self._woken, self._whole = asyncio.Event(), asyncio.Event()
        self._last: PeerError | None = None
        self._block_s: dict[PeerId, float] = {}

    async def run(self, donors: Sequence[PeerId], retry: bool) -> None:
        """Return when every block has been placed. retry: ask donors that cannot be reached again, until GIVE_UP_S without
        a block. Raises the last PeerError otherwise."""
        if not self._missing:
            return
        self._moved_s = asyncio.get_running_loop().time()
        self._cut_up(len(donors))
        working = [asyncio.ensure_future(self._work(donor, retry)) for donor in donors]
        whole = asyncio.ensure_future(self._whole.wait())
        pending: set[asyncio.Future[Any]] = {*working}
        try:
            while pending and not self._whole.is_set():
                done, left = await asyncio.wait([*pending, whole], return_when=asyncio.FIRST_COMPLETED)
                pending = left - {whole}
                for task in done:
                    task.result()  # a full disk
        finally:
            for each in (*working, whole):
                each.cancel()
            await asyncio.wait([*working, whole])
        if self._missing:
            raise self._last or PeerUnreachable("nobody", f"no donor gave object {self._wanted.name.hex()[:12]}")

    def _cut_up(self, num_donors: int) -> None:
        runs = RUNS_A_DONOR * num_donors if num_donors > 1 else 1
        size = min(MAX_RUN_BLOCKS, -(-self._missing // runs))
        whole, self._waiting = self._waiting, deque()
        for run in whole:
            self._waiting += [_Run(at, min(at + size, run.end)) for at in range(run.at, run.end, size)]

    async def _work(self, donor: PeerId, retry: bool) -> None:
        pause_s = RETRY_S
        while self._missing:
            run = self._next_run(donor)
            if run is None:
                await self._look_again()
                continue
            try:
                await self._pull(donor, run)
                pause_s = RETRY_S
            except PeerError as error:
                self._last = error
                self._leave(run)
                silent_s = asyncio.get_running_loop().time() - self._moved_s
                if isinstance(error, PeerFault) or not retry or silent_s > GIVE_UP_S:
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)

    async def _look_again(self) -> None:
        """Wait until a donor is done with its run, or turns out to be slow."""
        self._woken.clear()
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _next_run(self, donor: PeerId) -> _Run | None:
        """The next run; where none waits, the later half of the longest under way, if this donor brings it sooner; else None."""
        now_s = asyncio.get_running_loop().time()
        if self._waiting:
            run = self._waiting.popleft()
        else:
            longest = max(self._moving, key=lambda run: (run.end - run.at) * run.block_s(now_s), default=None)
            if longest is None or longest.end - longest.at < 2:
                return None
            middle = (longest.at + longest.end + 1) // 2
            if (longest.end - middle) * self._block_s.get(donor, 0.0) > (longest.end - longest.at) * longest.block_s(now_s):
                return None
            run, longest.end = _Run(middle, longest.end), middle
        run.first, run.begun_s = run.at, now_s
        self._moving.append(run)
        return run

    async def _pull(self, donor: PeerId, run: _Run) -> None:
        what, blocks = self._wanted, run.end - run.at
        request = state_pb2.PullRequest(run_id=self._run_id, object_digest=what.name, first_block=run.at, num_blocks=blocks)
        stream = pull_blocks(self._transport, donor, request, what.num_blocks, what.name, what.is_tensor, self._idle_s, self.digests)
        async with aclosing(stream):
            async for number, data, digests in stream:
                self.digests = digests
                self._moved_s = asyncio.get_running_loop().time()
                await self._place(number, data)
                run.at = number + 1
                self._missing -= 1
                if not self._missing:
                    self._whole.set()
                if run.at >= run.end:
                    break
        self._block_s[donor] = run.block_s(asyncio.get_running_loop().time())
        self._leave(run)

    def _leave(self, run: _Run) -> None:
        self._moving.remove(run)
        if run.at < run.end:
            self._waiting.appendleft(run)
        self._woken.set()


async def pull_object(
    transport: Transport, run_id: bytes, peers: Sequence[PeerId], name: Digest, size_bytes: int, idle_s: float, flow: Flow, retry: bool
) -> bytes:
    """A whole file or blob. Raises PeerError where nobody gives it, or where it is not of that size."""
    return b"".join((await pull_object_blocks(transport, run_id, peers, name, size_bytes, idle_s, flow, retry))[0])


async def pull_object_blocks(
    transport: Transport, run_id: bytes, peers: Sequence[PeerId], name: Digest, size_bytes: int, idle_s: float, flow: Flow, retry: bool
) -> tuple[list[bytes | memoryview], tuple[Digest, ...]]:
    """The same as its blocks, each checked, with their digests, whose tree is `name`."""
    total = -(-size_bytes // FILE_BLOCK_BYTES)
    blocks: list[bytes | memoryview] = [b""] * total

    async def place(number: int, data: bytes | memoryview) -> None:
        blocks[number] = data
        flow.moved(len(data), asyncio.get_running_loop().time())

    download = Download(transport, run_id, Wanted(name, total, False), place, idle_s)
    await download.run(peers, retry)
    sizes = [min(FILE_BLOCK_BYTES, size_bytes - number * FILE_BLOCK_BYTES) for number in range(total)]
    if [len(block) for block in blocks] != sizes or chain.tree(download.digests) != name:
        raise PeerFault(peers[0] if peers else "nobody", f"object {name.hex()[:12]} has not {size_bytes} bytes")
    return blocks, download.digests


def digest_frames(digests: Sequence[Digest]) -> list[bytes]:
    """All block digests of an object, cut into frames."""
    listed = b"".join(digests)
    return [listed[i : i + FRAME_BYTES] for i in range(0, len(listed), FRAME_BYTES)] or [b""]


def _runs_between(total: int, held: Sequence[int]) -> list[_Run]:
    runs, at = [], 0
    for number in (*sorted(held), total):
        if number > at:
            runs.append(_Run(at, number))
        at = number + 1
    return runs
