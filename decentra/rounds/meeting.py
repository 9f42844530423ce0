"""When lineages meet: notice it, see which of them stands, and go over to it. The rule itself is in rounds/lineage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from decentra.errors import PeerError
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Entry
from decentra.ledger.state import OuterTensors
from decentra.rounds import catchup, heads, lineage, records, replica
from decentra.rounds.ballot import VotePayload, certificate_fault
from decentra.rounds.forks import fork_of, open_forced
from decentra.rounds.outlook import Crossing
from decentra.rounds.snapshots import download_snapshot
from decentra.rounds.view import is_quorum
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def called(name: str) -> str:
    """A lineage, for people."""
    return f"lineage {name[:8]}" if name else "the first lineage"


# -- entries ------------------------------------------------------------------------------------------------------------


def is_foreign(member: Member, entry: Entry, message: swarm_pb2.CertifiedEntry, source: PeerId) -> bool:
    """Whether an entry is of another lineage, or begins one that this node has not decided for; it will look into it."""
    fork, crossing = fork_of(message), member.outlook.crossing
    wanted = () if crossing is None else tuple(f.name for f in crossing.forks)
    if entry.lineage == member.state.lineage and (fork is None or fork.name in wanted):
        return False
    if source != member.peer:
        member.outlook.met = source
        member.changed.notify()
    return True


def commit_fault(member: Member, message: swarm_pb2.CertifiedEntry, entry: Entry) -> str:
    """Why neither a quorum nor an operator has committed this entry; "" where one has. Raises ValueError."""
    run, state, name = member.run, member.state, entry_digest(message.entry)
    if message.HasField("forced"):
        forced = open_forced(member.ports.verifier, message.forced.SerializeToString())
        return lineage.forced_fault(forced, run.operator_keys, run.run_id, run.machine, state, entry, name)

    def open_vote(signed: bytes) -> VotePayload:
        return records.open_vote(member.ports.verifier, signed)

    certificate = records.parse_certificate(message.certificate)
    return certificate_fault(certificate, run.run_id, state.lineage, entry.r, name, state.members, open_vote)


# -- which stands -------------------------------------------------------------------------------------------------------


def lineages_of(member: Member, seen: Sequence[heads.Seen]) -> dict[str, lineage.Standing]:
    """The lineages that these heads are in, by name, each by its newest head.

    One is at work where a quorum of its view answered from it. A member's word that it has heard a quorum counts too, for
    not everyone can be called from here; but as that is of the past, only once it has been kept up for a while.
    """
    found = {}
    for name in dict.fromkeys(each.lineage for each in seen):
        inside = [each for each in seen if each.lineage == name]
        newest = max(inside, key=lambda each: each.r)
        there = [each for each in inside if each.in_view_of(newest.view)]
        said = _kept_up(member, name, any(each.acting for each in there))
        acts = said or is_quorum(newest.view, {each.peer for each in there})
        alive = {each.peer for each in seen if each.in_view_of(newest.view)}
        found[name] = lineage.Standing(name, newest.forks, newest.r, newest.tokens, acts, is_quorum(newest.view, alive))
    return found


def _kept_up(member: Member, name: str, says: bool) -> bool:
    """Whether members of a lineage say now that it is at work, and have for longer than such a word may be old."""
    now, old_s = member.now(), 2 * member.silence_s()
    first, last = member.outlook.claims.get(name, (now, now))
    first = first if says and now - last <= old_s else now
    member.outlook.claims[name] = (first, now)
    return says and (name == member.state.lineage or now - first > old_s)


def judge(member: Member, seen: Sequence[heads.Seen]) -> None:
    """Decide for a lineage by these heads; where it is another than this node's, go over soon."""
    mine, found = member.state.lineage, lineages_of(member, seen)
    if len(found) < 2 or mine not in found:
        return
    chosen = lineage.which_stands(mine, list(found.values()))
    told = "; ".join(_told(each) for each in found.values())
    if chosen == mine:
        why = "stays" if found[mine].acts else "waits for a quorum of either"
        member.say_once(f"lineages meet ({told}): this node is in {called(mine)} and {why}")
        return
    member.say_once(f"lineages meet ({told}): this node leaves {called(mine)} for {called(chosen)}")
    there = sorted((each for each in seen if each.lineage == chosen), key=lambda each: -each.r)
    member.outlook.crossing = Crossing(chosen, found[chosen].forks, tuple(each.peer for each in there))
    member.changed.notify()


def _told(standing: lineage.Standing) -> str:
    works = "at work" if standing.acts else "no quorum"
    return f"{called(standing.name)}: {len(standing.forks)} forced views, {standing.tokens} tokens, {works}"


# -- going over ---------------------------------------------------------------------------------------------------------


async def cross(member: Member) -> None:
    """Go over to the lineage decided for: by replay where it goes on from here, else by its newest certified snapshot."""
    crossing = member.outlook.crossing
    assert crossing is not None
    member.wait(f"the entries of {called(crossing.name)} from {crossing.donors[0][:8]}")
    try:
        if not lineage.continues(member.state, crossing.forks):
            await _take_its_snapshot(member, crossing)
        await catchup.replay(member, crossing.donors[0])
    except PeerError as error:
        member.ports.note(f"going over to {called(crossing.name)}: {error}")
    finally:
        member.outlook.crossing = None
    if member.state.lineage == crossing.name:
        standing = "still a member" if member.in_view() else "as a newcomer"
        member.ports.note(f"in {called(crossing.name)} at entry {member.state.r}, {standing}")
    else:
        await member.changed.wait(member.period_s())


async def _take_its_snapshot(member: Member, crossing: Crossing) -> None:
    tensors = OuterTensors(torch.zeros_like(member.tensors.anchor), torch.zeros_like(member.tensors.momentum))
    snapshot = await download_snapshot(member.ports, member.run, tensors, crossing.donors, crossing.forks)
    await replica.replace(member, snapshot, tensors, f"{member.state.lineage[:16] or 'first'}-{member.state.r}")
