"""A replica whose h_r is not the swarm's: find out who is wrong, put it right from disk or from others, or stop.

A replica drifts where memory, disk or arithmetic changed a value. It shows at the next entry, for entries carry h_r. The
reference is the same apply, run again over the bytes on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from decentra.errors import PeerError, StateError
from decentra.ledger.entry import Entry
from decentra.ledger.state import OuterTensors
from decentra.rounds import catchup, heads, replica
from decentra.rounds.outlook import Suspect
from decentra.rounds.snapshots import download_snapshot
from decentra.types import Digest, PeerId

if TYPE_CHECKING:
    from decentra.rounds.member import Member


# -- noticing -----------------------------------------------------------------------------------------------------------


def found(member: Member, entry: Entry, source: PeerId) -> None:
    """A committed entry stands on another h_r than this replica."""
    member.outlook.suspect = Suspect(entry.r, entry.state_hash, (source,))
    member.changed.notify()


def noticed(member: Member, peer: PeerId, state_hash: Digest) -> None:
    """A peer at the same entry stands on another h_r; where it is a member, all are asked."""
    theirs, mine = state_hash.hex()[:12], member.hash.hex()[:12]
    member.say_once(f"entry {member.state.r}: {peer[:8]} stands on another state, {theirs}; this node on {mine}")
    if member.state.member(peer) is not None and member.outlook.met is None and peer not in member.outlook.looked_into:
        member.outlook.met = peer
        member.changed.notify()


def _answers(member: Member, seen: Sequence[heads.Seen]) -> dict[Digest, list[PeerId]]:
    """Members by the state they stand on at this node's entry."""
    state, answers = member.state, dict[Digest, list[PeerId]]()
    for each in seen:
        if (each.lineage, each.r) == (state.lineage, state.r) and each.in_view_of(state.members):
            answers.setdefault(each.state_hash, []).append(each.peer)
    return answers


def _prevailing(member: Member, answers: dict[Digest, list[PeerId]]) -> Digest:
    """The answer of more than half of the view, b"" where there is none. Half with the oldest does not settle it: in a view
    of two that would be one machine's word against the other's."""
    return next((h for h, peers in answers.items() if 2 * len(peers) > len(member.state.members)), b"")


def judge(member: Member, seen: Sequence[heads.Seen]) -> None:
    """Doubt this replica where members disagree and it is not with more than half of them."""
    answers = _answers(member, seen)
    member.outlook.looked_into.update(peer for peers in answers.values() for peer in peers)
    if len(answers) > 1 and _prevailing(member, answers) != member.hash:
        member.outlook.suspect = Suspect(member.state.r)
        member.changed.notify()


# -- putting right ------------------------------------------------------------------------------------------------------


async def settle(member: Member) -> None:
    """Resolve the doubt. Raises StateError where this machine drifts again right after it was put right."""
    suspect, member.outlook.suspect = member.outlook.suspect, None
    if suspect is None or suspect.r != member.state.r or suspect.certified == member.hash:
        return
    if suspect.certified:
        await _restore_to(member, suspect.certified, suspect.holders)
        return
    member.outlook.disputed = True
    try:
        await _settle_dispute(member)
    finally:
        member.outlook.disputed = False


async def _restore_to(member: Member, wanted: Digest, holders: tuple[PeerId, ...]) -> None:
    r, before = member.state.r, member.hash
    if member.state.sync <= member.outlook.restored_sync + 1:
        raise StateError(
            f"this machine, peer {member.peer}, drifted again at entry {r}, right after its replica was put right, so its memory, disk or "
            "arithmetic cannot be trusted; test its memory and reinstall torch, or run the node elsewhere"
        )
    drifted = f"entry {r}: this node ({member.peer[:8]}) has drifted, it stands on {before.hex()[:12]}, the swarm on {wanted.hex()[:12]}"
    member.ports.note(f"{drifted}; replaying its own snapshot and log")
    member.wait("its own disk: replaying after a drift")
    replayed = await _replay(member)
    if replayed is not None and replayed[0].state_hash == wanted:
        await replica.rewind(member, *replayed)
        member.outlook.restored_sync, member.behind = member.state.sync, next(iter(holders), None)
        member.ports.note(f"entry {r}: put right from disk; a value had changed in this machine's memory")
        return
    member.ports.note(f"entry {r}: the disk leads elsewhere too, so it or the arithmetic is wrong; taking a snapshot from others")
    await _take_from_others(member, holders)


async def _take_from_others(member: Member, holders: tuple[PeerId, ...]) -> None:
    donors = [p for p in dict.fromkeys((*holders, *member.state.peers())) if p != member.peer]
    tensors = OuterTensors(torch.zeros_like(member.tensors.anchor), torch.zeros_like(member.tensors.momentum))
    try:
        snapshot = await download_snapshot(member.ports, member.run, tensors, donors, member.state.forks)
    except PeerError as error:
        member.ports.note(f"no snapshot yet: {error}")
        member.behind = donors[0] if donors else None
        await member.changed.wait(member.period_s())
        return
    await replica.replace(member, snapshot, tensors, f"drifted-{member.state.r}")
    member.outlook.restored_sync, member.behind = member.state.sync, donors[0]


async def _replay(member: Member) -> tuple[catchup.Reached, OuterTensors] | None:
    """S_r from this node's last certified snapshot and its log; None where the disk cannot give it."""
    tensors = OuterTensors(torch.zeros_like(member.tensors.anchor), torch.zeros_like(member.tensors.momentum))
    r = member.state.r
    try:
        # A snapshot of S_r itself is not certified yet: it may hold what is doubted.
        restore = member.ports.run_blocking(catchup.restore, member.ports.store, member.run, tensors, r, max(0, r - 1))
        return await restore, tensors
    except StateError as error:
        member.ports.note(f"entry {r}: the disk does not lead there: {error}")
        return None


async def _settle_dispute(member: Member) -> None:
    """More than half of the view agree on no h_r: replay, see who changes its answer, pause while two are left."""
    place, replayed = (member.state.lineage, member.state.r), False
    while (member.state.lineage, member.state.r) == place and not member.is_done() and member.outlook.crossing is None:
        answers = _answers(member, await heads.survey(member, ()))
        prevailing = _prevailing(member, answers)
        if len(answers) < 2 or prevailing == member.hash:
            return
        if prevailing:
            await _restore_to(member, prevailing, tuple(answers[prevailing]))
            return
        if not replayed:
            replayed = True
            member.say_once(f"entry {member.state.r}: members disagree about the state and no answer has a majority; replaying from disk")
            await _replay_and_compare(member)
            continue
        told = " and ".join(f"{', '.join(p[:8] for p in peers)} on {h.hex()[:12]}" for h, peers in answers.items())
        paused = f"one answer about the state at entry {member.state.r}: {told}, each by its own disk; stop the machine that is wrong"
        member.wait(paused)
        member.say_once(f"paused: waiting for {paused}")
        await member.changed.wait(2 * member.period_s())


async def _replay_and_compare(member: Member) -> None:
    r, before, found = member.state.r, member.hash, await _replay(member)
    if found is None or member.state.r != r or found[0].state_hash == before:
        member.ports.note(f"entry {r}: this node's disk {'does not answer' if found is None else 'gives the same answer'}")
        return
    await replica.rewind(member, *found)
    member.outlook.restored_sync = member.state.sync
    changed = f"{before.hex()[:12]} in memory is {member.hash.hex()[:12]} by its disk"
    member.ports.note(f"entry {r}: this node ({member.peer[:8]}) was wrong, {changed}")
