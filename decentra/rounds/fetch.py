"""Pulling blocks and objects from peers, every byte checked against a digest before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from decentra.codec.base import block_slice
from decentra.errors import PeerError, PeerFault, PeerUnreachable
from decentra.ledger import chain
from decentra.ledger.entry import Entry
from decentra.ledger.store import object_digest
from decentra.transport.base import FRAME_BYTES, Transport
from decentra.types import FILE_BLOCK_BYTES, Digest, PeerId
from decentra.wire.v1 import state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

DIGEST_BYTES = 32


async def pull_blocks(
    transport: Transport, peer: PeerId, request: state_pb2.PullRequest, total_blocks: int, root: Digest, is_tensor: bool, idle_s: float
) -> AsyncGenerator[tuple[int, bytes, tuple[Digest, ...]], None]:
    """(block number, bytes, all block digests of the object) for the blocks that `request` names. Raises PeerError.

    The digests come first and must hash to `root`; then each block must hash to its digest. A sender that sends more,
    less or other bytes is at fault by name.
    """
    listed = bytearray()
    digests: tuple[Digest, ...] = ()
    check = chain.tensor_block if is_tensor else chain.bytes_block
    block, end = request.first_block, request.first_block + request.num_blocks
    async with aclosing(transport.pull(peer, request.SerializeToString(), idle_s)) as frames:  # type: ignore[type-var]
        async for frame in frames:
            if not digests:
                if not frame and total_blocks:
                    raise PeerFault(peer, f"an empty frame instead of the block digests of {root.hex()[:12]}")
                listed += frame
                if len(listed) >= DIGEST_BYTES * total_blocks:
                    digests = _block_digests(peer, bytes(listed), total_blocks, root)
                continue
            if block >= end or check(frame) != digests[block]:
                raise PeerFault(peer, f"block {block} of {root.hex()[:12]} does not hold")
            yield block, frame, digests
            block += 1
    if block != end:
        raise PeerFault(peer, f"the stream of {root.hex()[:12]} ended at block {block}")


def _block_digests(peer: PeerId, listed: bytes, total_blocks: int, root: Digest) -> tuple[Digest, ...]:
    digests = tuple(listed[i : i + DIGEST_BYTES] for i in range(0, len(listed), DIGEST_BYTES))
    if len(digests) != total_blocks or chain.tree(digests) != root:
        raise PeerFault(peer, f"the block digests of {root.hex()[:12]} do not hold")
    return digests


async def pull_object(
    transport: Transport, run_id: bytes, peers: Sequence[PeerId], name: Digest, size_bytes: int, is_tensor: bool, idle_s: float
) -> bytes:
    """A whole object from several donors at once, each giving a run of blocks; who fails is replaced. Raises PeerError."""
    block_bytes = FILE_BLOCK_BYTES
    total = max(1, -(-size_bytes // block_bytes)) if size_bytes else 0
    blocks: dict[int, bytes] = {}
    donors = list(peers)
    while len(blocks) < total:
        if not donors:
            raise PeerUnreachable(peers[0] if peers else "nobody", f"no donor gave object {name.hex()[:12]}")
        lacking = [b for b in range(total) if b not in blocks]
        share = -(-len(lacking) // len(donors))
        failed: list[PeerId] = []

        async def take(donor: PeerId, wanted: list[int], failed: list[PeerId] = failed) -> None:
            request = state_pb2.PullRequest(run_id=run_id, object_digest=name, first_block=wanted[0], num_blocks=wanted[-1] - wanted[0] + 1)
            try:
                async with aclosing(pull_blocks(transport, donor, request, total, name, is_tensor, idle_s)) as stream:
                    async for number, data, _ in stream:
                        blocks[number] = data
            except PeerError:
                failed.append(donor)

        runs = [lacking[i : i + share] for i in range(0, len(lacking), share)]
        await asyncio.gather(*(take(donor, run) for donor, run in zip(donors, runs, strict=False)))
        donors = [donor for donor in donors if donor not in failed]
    whole = b"".join(blocks[b] for b in range(total))
    if len(whole) != size_bytes:
        raise PeerFault(peers[0], f"object {name.hex()[:12]} has {len(whole)} bytes, not {size_bytes}")
    return whole


class Fetcher:
    """Brings the blobs of entries, each at most once at a time, and knows the rate of this node's link."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._running: dict[Digest, asyncio.Task[None]] = {}
        self.rate_bytes_per_s = 1e6

    def saw(self, num_bytes: int, seconds: float) -> None:
        """Note how fast a pull went."""
        if num_bytes > 65536 and seconds > 0:
            self.rate_bytes_per_s = 0.7 * self.rate_bytes_per_s + 0.3 * num_bytes / seconds

    async def blobs_of(self, entry: Entry, holders: Sequence[PeerId]) -> None:
        """Hold every blob that an entry names. Raises PeerError where nobody gives one."""
        member = self._member
        if entry.sync is None:
            return
        num_chunks = member.run.machine.fragments[entry.fragment].num_chunks
        owner_of = {part.first_block: part.owner for part in member.state.parts}
        pulls = []
        for total in entry.sums:
            rows = block_slice(total.first_block, total.num_blocks, num_chunks)
            size = (rows.stop - rows.start) * member.run.machine.codecs[total.codec].chunk_bytes
            for term in total.terms:
                if not member.ports.store.has(term.blob):
                    order = member.within_reach((owner_of.get(total.first_block, ""), *holders, *member.state.peers()))
                    pulls.append(self._once(term.blob, size, order, entry.r))
        await asyncio.gather(*pulls)

    async def _once(self, name: Digest, size: int, order: list[PeerId], r: int) -> None:
        task = self._running.get(name)
        if task is None:
            task = asyncio.ensure_future(self._pull(name, size, order, r))
            self._running[name] = task
            task.add_done_callback(lambda done: self._has_run(name, done))
        await asyncio.shield(task)

    def _has_run(self, name: Digest, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        if not task.cancelled():
            task.exception()

    def running(self) -> list[asyncio.Task[None]]:
        """Pulls under way."""
        return list(self._running.values())

    async def _pull(self, name: Digest, size: int, order: list[PeerId], r: int) -> None:
        member = self._member
        last: PeerError = PeerUnreachable("nobody", f"nobody holds blob {name.hex()[:12]}")
        for peer in order:
            start = member.now()
            try:
                idle_s = member.silence_s()
                data = await pull_object(member.ports.transport, member.run.run_id, (peer,), name, size, False, idle_s)
            except PeerError as error:
                last = error
                continue
            if len(data) != size or object_digest(data) != name:
                last = PeerFault(peer, f"blob {name.hex()[:12]} has {len(data)} bytes, not {size}")
                continue
            self.saw(size, member.now() - start)
            await member.ports.run_blocking(member.ports.store.put_blob, data, r)
            return
        raise last


def digest_frames(digests: Sequence[Digest]) -> list[bytes]:
    """All block digests of an object, cut into frames."""
    listed = b"".join(digests)
    return [listed[i : i + FRAME_BYTES] for i in range(0, len(listed), FRAME_BYTES)] or [b""]
