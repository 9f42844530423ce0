"""Blobs of entries, brought before they are needed, each once; and the rate of this node's link."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from decentra.codec.base import block_slice
from decentra.errors import PeerError, PeerFault, PeerUnreachable
from decentra.ledger.chain import split_blocks, tree
from decentra.ledger.entry import Entry
from decentra.rounds.download import pull_object_blocks
from decentra.types import FILE_BLOCK_BYTES, Digest, PeerId

if TYPE_CHECKING:
    from decentra.rounds.member import Member

FIRST_RATE_BYTES_PER_S = 1e6
"""Of a link whose rate nobody told."""

SHUNNED_SILENCES = 15


class Fetcher:
    """Brings the blobs of entries, each at most once at a time, and knows the rate of this node's link."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._running: dict[Digest, asyncio.Future[Any]] = {}
        self._silent_until_s: dict[PeerId, float] = {}
        self.rate_bytes_per_s = float(member.me.down_bytes_per_s or FIRST_RATE_BYTES_PER_S)

    def saw(self, num_bytes: int, seconds: float) -> None:
        """Note how fast a pull went."""
        if num_bytes > 65536 and seconds > 0:
            self.rate_bytes_per_s = 0.7 * self.rate_bytes_per_s + 0.3 * num_bytes / seconds

    def idle_s(self, frame_bytes: int) -> float:
        """How long without a frame of that size is silence: one that is on its way at the rate now seen is none."""
        return self._member.silence_s() + 4 * frame_bytes / self.rate_bytes_per_s

    def is_silent(self, peer: PeerId) -> bool:
        """Whether a pull from a peer ended in silence lately: then others are asked first, for a silence is dear."""
        return self._member.now() < self._silent_until_s.get(peer, -math.inf)

    def was_silent(self, peer: PeerId) -> None:
        """Note that a pull from a peer ended in silence."""
        self._silent_until_s[peer] = self._member.now() + SHUNNED_SILENCES * self._member.silence_s()

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
                    pulls.append(self._once(term.blob, size, sorted(order, key=self.is_silent), entry.r))
        await asyncio.gather(*pulls)

    def keep(self, data: memoryview, digests: Sequence[Digest], r: int) -> Digest:
        """Write a blob of this node's own making down, aside: who then wants it held waits as for one that is pulled."""
        name, blocks = tree(digests), list(split_blocks(data, FILE_BLOCK_BYTES))
        if name not in self._running:
            self._run(name, self._member.ports.run_blocking(self._member.ports.store.put_blocks, blocks, digests, r))
        return name

    async def _once(self, name: Digest, size: int, order: list[PeerId], r: int) -> None:
        task = self._running.get(name)
        if task is None:
            task = self._run(name, self._pull(name, size, order, r))
        await asyncio.shield(task)

    def _run(self, name: Digest, work: Awaitable[Any]) -> asyncio.Future[Any]:
        task = self._running[name] = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: self._has_run(name, done))
        return task

    def _has_run(self, name: Digest, task: asyncio.Future[Any]) -> None:
        self._running.pop(name, None)
        if not task.cancelled():
            task.exception()

    def running(self) -> list[asyncio.Future[Any]]:
        """Pulls and writes under way."""
        return list(self._running.values())

    async def _pull(self, name: Digest, size: int, order: list[PeerId], r: int) -> None:
        member = self._member
        last: PeerError = PeerUnreachable("nobody", f"nobody holds blob {name.hex()[:12]}")
        for peer in order:
            start = member.now()
            try:
                with member.ports.flows.flow(f"a blob of entry {r}", (peer,), size, start) as flow:
                    idle_s = self.idle_s(min(size, FILE_BLOCK_BYTES))
                    blocks, digests = await pull_object_blocks(
                        member.ports.transport, member.run.run_id, (peer,), name, size, idle_s, flow, retry=False
                    )
            except PeerError as error:
                last = error
                if not isinstance(error, PeerFault):
                    self.was_silent(peer)
                continue
            self.saw(size, member.now() - start)
            await member.ports.run_blocking(member.ports.store.put_blocks, blocks, digests, r)
            return
        raise last
