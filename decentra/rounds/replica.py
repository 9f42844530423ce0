"""Putting another state in place of a replica's own: the right one of the same entry, or one of another history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decentra.ledger.chain import entry_digest
from decentra.ledger.state import OuterTensors, from_header
from decentra.ledger.store import Snapshot
from decentra.rounds import lineage, records
from decentra.rounds.catchup import Reached
from decentra.wire.v1 import swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


async def rewind(member: Member, reached: Reached, tensors: OuterTensors) -> bool:
    """Take what the disk gives for the entry that this replica is at. False where it has moved on meanwhile."""
    return await member.moves.run(_rewind(member, reached, tensors))


async def _rewind(member: Member, reached: Reached, tensors: OuterTensors) -> bool:
    async with member.commit_lock:
        if member.state.r != reached.state.r:
            return False
        member.state, member.hash = reached.state, reached.state_hash
        for report in member.history:
            if report.entry == reached.state.r - 1:
                report.state_hash = member.hash.hex()
        await member.ports.run_blocking(_put_in_place, member, tensors)
        member.start_anew()
    return True


def _put_in_place(member: Member, tensors: OuterTensors) -> None:
    member.tensors.anchor.copy_(tensors.anchor)
    member.tensors.momentum.copy_(tensors.momentum)
    store, r = member.ports.store, member.state.r
    if r in store.snapshots() and (last := store.entries(r - 1, 1)):
        # It was taken of the wrong state.
        body = swarm_pb2.CertifiedEntry.FromString(last[0][1]).entry
        snapshot = Snapshot(r, member.state.header(), records.parse_entry(body).state_hash, entry_digest(body))
        store.save_snapshot(snapshot, member.tensors, member.run.machine.fragments)


async def replace(member: Member, snapshot: Snapshot, tensors: OuterTensors, aside: str) -> None:
    """Go on from a snapshot fetched whole, be it older or of another lineage; the ledger left is kept in a folder `aside`."""
    await member.moves.run(_replace(member, snapshot, tensors, aside))


async def _replace(member: Member, snapshot: Snapshot, tensors: OuterTensors, aside: str) -> None:
    async with member.commit_lock:
        folder = await member.ports.run_blocking(member.ports.store.set_aside, aside)
        await member.ports.run_blocking(member.take_over, snapshot, tensors)
        await member.ports.run_blocking(member.ports.store.spool.drop)
        left, member.state = member.state, from_header(snapshot.header)
        member.hash, member.last_certified = snapshot.state_hash(), b""
        shared = lineage.shared_entries(left.forks, member.state.forks)
        _forget_reports(member, snapshot.r if shared is None else min(shared, snapshot.r))
        member.start_anew()
    member.ports.note(f"the ledger left is kept in {folder} of the state directory; delete it when nobody needs it")


def _forget_reports(member: Member, from_r: int) -> None:
    """Entries of the history that was left, or that are applied again, were not rounds of this one."""
    kept = [report for report in member.history if report.entry < from_r]
    member.history.clear()
    member.history.extend(kept)
