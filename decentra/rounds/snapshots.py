"""A snapshot from several donors at once: every block is checked, placed in its tensor, and kept on disk until all are there.

So what came is not fetched again after a cut, after donors died, or after this process was started anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import torch
from google.protobuf.message import DecodeError

from decentra.codec.base import num_blocks
from decentra.errors import PeerError, PeerFault, PeerUnreachable
from decentra.ledger import chain
from decentra.ledger.spool import Spool
from decentra.ledger.state import Fork, OuterTensors, from_header
from decentra.ledger.store import Snapshot
from decentra.rounds import records
from decentra.rounds.download import Download, Wanted
from decentra.rounds.lineage import leads_to
from decentra.rounds.ports import Ports, Run, call, meet
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2

IDLE_TIMEOUT_S = 20.0
UNKNOWN_RATE_BYTES_PER_S = 1e6
SPEAK_UP_AFTER_S = 5.0
PAUSE_S, MAX_PAUSE_S = 1.0, 15.0
PATIENCE_S = 600.0
"""A download that has begun waits this long for any donor to come back."""


def snapshot_bytes(run: Run) -> int:
    """Bytes of the tensors of a snapshot."""
    return 8 * run.layout.num_elements


async def download_snapshot(
    ports: Ports, run: Run, tensors: OuterTensors, donors: Sequence[PeerId], forks: Sequence[Fork] | None = None
) -> Snapshot:
    """Fill `tensors` with the snapshot begun before, where it is still offered, else with the newest. Raises PeerError.

    forks: only of the history that these forced views led to; any where it is None.
    Who offers none at the start is an error at once; once bytes came, donors are waited for, saying so.
    """
    pause_s, clock = PAUSE_S, asyncio.get_running_loop().time
    moved = _Moved()
    while True:
        before_s = moved.at_s
        try:
            source = await _choose(ports, run, donors, forks)
            return await _fill(ports, run, tensors, source, moved)
        except PeerError as error:
            if moved.at_s < 0 or clock() - moved.at_s > PATIENCE_S:
                raise
            pause_s = PAUSE_S if moved.at_s > before_s else min(2 * pause_s, MAX_PAUSE_S)
            ports.note(f"the snapshot is cut off: {error}; what came is kept, asking again in {pause_s:.0f} s")
        await asyncio.sleep(pause_s)
        donors = list(dict.fromkeys([*donors, *await meet(ports, run.run_id)]))


@dataclass(slots=True)
class _Moved:
    """When a block last came."""

    at_s: float = -1.0


@dataclass(frozen=True, slots=True)
class _Source:
    """A snapshot, who has it, and how long one of them may be silent."""

    snapshot: Snapshot
    holding: tuple[PeerId, ...]
    idle_s: float


async def _choose(ports: Ports, run: Run, donors: Sequence[PeerId], forks: Sequence[Fork] | None) -> _Source:
    """The snapshot to fetch: the one begun before, where it is still held, else the newest. Raises PeerError."""
    kept = await ports.run_blocking(_begun, ports.store.spool)
    kept = kept if kept is not None and _is_of(kept, forks) else None
    heads = await _heads(ports, run, donors, kept)
    offered = {peer: records.of_snapshot(head.snapshot) for peer, head in heads.items() if head.HasField("snapshot")}
    offered = {peer: snapshot for peer, snapshot in offered.items() if _is_of(snapshot, forks)}
    if not offered:
        raise PeerUnreachable(donors[0] if donors else "nobody", "no member offers a snapshot")
    chosen = kept if kept is not None and kept in offered.values() else max(offered.values(), key=lambda snapshot: snapshot.r)
    holding = [peer for peer, snapshot in offered.items() if snapshot == chosen]
    if chosen.r == 0 and chain.header_digest(chosen.header) != run.initial_header_digest:
        raise PeerFault(holding[0], "its first snapshot is not the one the manifest names")
    rates = [m.up_bytes_per_s for head in heads.values() for m in head.view if m.peer in holding and m.up_bytes_per_s]
    idle_s = IDLE_TIMEOUT_S + 4 * BLOCK_CHUNKS * chain.CHUNK_BYTES / min(rates, default=UNKNOWN_RATE_BYTES_PER_S)
    return _Source(chosen, tuple(holding), idle_s)


def _is_of(snapshot: Snapshot, forks: Sequence[Fork] | None) -> bool:
    return forks is None or leads_to(snapshot.header, forks)


def _begun(spool: Spool) -> Snapshot | None:
    found = spool.target()
    try:
        return None if found is None else records.of_snapshot(state_pb2.Snapshot.FromString(found[1]))
    except DecodeError:
        return None


async def _heads(ports: Ports, run: Run, donors: Sequence[PeerId], kept: Snapshot | None) -> dict[PeerId, state_pb2.Head]:
    async def ask(peer: PeerId) -> state_pb2.Head | None:
        query = state_pb2.HeadQuery(with_snapshot=True)
        if kept is not None:
            query.snapshot_r = kept.r
        try:
            return (await call(ports.transport, run.run_id, peer, rounds_pb2.Request(head=query))).head
        except PeerError as error:
            ports.note(f"asking for a snapshot: {error}")
            return None

    heads = await asyncio.gather(*(ask(peer) for peer in donors))
    return {peer: head for peer, head in zip(donors, heads, strict=True) if head is not None}


async def _fill(ports: Ports, run: Run, tensors: OuterTensors, source: _Source, moved: _Moved) -> Snapshot:
    snapshot = source.snapshot
    try:
        state = from_header(snapshot.header)
        if state.r != snapshot.r or len(state.roots) != len(run.machine.fragments):
            raise ValueError(f"it is of entry {state.r}, with {len(state.roots)} fragments")
        run.under(state.settings)
    except (ValueError, KeyError, TypeError) as error:
        raise PeerFault(source.holding[0], f"the header of its snapshot {snapshot.r} cannot be read: {error}") from error
    await ports.run_blocking(ports.store.spool.begin, snapshot.r, records.to_snapshot(snapshot).SerializeToString())
    for fragment in run.machine.fragments:
        for flat, root in zip((tensors.anchor, tensors.momentum), state.roots[fragment.index], strict=True):
            await _fill_tensor(ports, run, flat[fragment.elements], bytes.fromhex(root), source, moved)
    return snapshot


async def _fill_tensor(ports: Ports, run: Run, flat: torch.Tensor, root: Digest, source: _Source, moved: _Moved) -> None:
    """Fill `flat` (whole chunks, fp32): from the blocks on disk, then from the donors. Raises PeerError."""
    r, holding = source.snapshot.r, source.holding
    spool, block_bytes = ports.store.spool, BLOCK_CHUNKS * chain.CHUNK_BYTES
    target, clock = flat.numpy(), asyncio.get_running_loop().time
    digests, held = await ports.run_blocking(_read_back, spool, r, root, target)
    size = max(0, target.nbytes - len(held) * block_bytes)
    here = f"; {len(held)} blocks are here already" if held else ""
    ports.note(f"fetching the snapshot of entry {r}, {size / 1e6:.1f} MB, from {len(holding)} donors{here}")
    listed = bool(digests)

    def keep(number: int, data: bytes) -> None:
        nonlocal listed
        if not listed:
            spool.put_digests(r, root, download.digests)
            listed = True
        _put(target, number, data)
        spool.put_block(r, root, number, data)

    with ports.flows.flow(f"the snapshot of entry {r}", holding, size, clock()) as flow:

        async def place(number: int, data: bytes | memoryview) -> None:
            if len(data) != len(target[_elements(number)]) * 4:
                raise PeerFault(holding[0], f"block {number} of its snapshot {r} has {len(data)} bytes")
            moved.at_s = clock()
            flow.moved(len(data), moved.at_s)
            await ports.run_blocking(keep, number, data)

        blocks = num_blocks(len(target) // CHUNK_ELEMENTS)
        download = Download(ports.transport, run.run_id, Wanted(root, blocks, True), place, source.idle_s, digests, held)
        await download.run(holding, retry=True)


def _read_back(spool: Spool, r: int, root: Digest, target: np.ndarray) -> tuple[tuple[Digest, ...], list[int]]:
    """(block digests, numbers of the blocks that were on disk whole and now stand in `target`)."""
    digests, held = spool.digests(r, root), []
    for number in spool.blocks(r, root) if digests else ():
        data = spool.block(r, root, number, digests[number]) if number < len(digests) else None
        if data is not None:
            _put(target, number, data)
            held.append(number)
    return digests, held


def _elements(number: int) -> slice:
    step = BLOCK_CHUNKS * chain.CHUNK_BYTES // 4
    return slice(number * step, (number + 1) * step)


def _put(target: np.ndarray, number: int, data: bytes) -> None:
    target[_elements(number)] = np.frombuffer(data, dtype="<f4")


@asynccontextmanager
async def speaking(ports: Ports) -> AsyncIterator[None]:
    """While this lasts, what has been under way for over 5 s is said, ever more rarely: peers, bytes, rate."""

    async def speak() -> None:
        gap_s = SPEAK_UP_AFTER_S
        while True:
            await asyncio.sleep(gap_s)
            for sentence in ports.flows.sentences(asyncio.get_running_loop().time(), SPEAK_UP_AFTER_S):
                ports.note(f"waiting for {sentence}")
            gap_s = min(2 * gap_s, 60.0)

    task = asyncio.ensure_future(speak())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
