"""A round as everyone sees it: follow the leader of the attempt, pull parts as an owner, reduce, consider, pass on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

from decentra.errors import PeerError, PeerFault, PeerUnreachable, RefusedError
from decentra.ledger.chain import digest
from decentra.ledger.state import Member as ViewMember
from decentra.rounds import drift, records, wishes
from decentra.rounds.bounds import MAX_ATTEMPT_JUMP, MAX_PHASE_CHARS, attempt_fault, beat_fault
from decentra.rounds.contribute import progress, sits_out
from decentra.rounds.flows import names
from decentra.rounds.parts import parts_to_hold
from decentra.rounds.punctual import land
from decentra.rounds.status import Beat
from decentra.rounds.view import announcement_fault, is_quorum, leader_order
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

FAILURES_TO_SILENCE = 2
MAX_PERIOD_S = 600.0
"""A leader's wish to be left alone for longer is not heeded."""

PASSED_ALONG = 2
"""Members to which each passes a certificate on, besides the leader's own telling."""

ACTIVE_PHASES = 2
"""Waits of a leader that is not waiting for offers: for its owners, then for votes."""


# -- following ----------------------------------------------------------------------------------------------------------


def _follows(member: Member, r: int, attempt: int) -> bool:
    return member.state.r == r and member.attempt == attempt and not member.is_called_away() and not member.is_done()


async def follow(member: Member, leader: PeerId, attempt: int) -> None:
    """Heartbeat to the leader of this attempt until the entry is agreed, the leader is given up, or it moves on."""
    r, failures, start, pause_s = member.state.r, 0, member.now(), 0.0
    order = leader_order(member.hash, member.state.members)
    idle_since: float | None = None
    answered_s = start
    while _follows(member, r, attempt):
        sent, limit_s, told = member.now(), member.silence_s(), member.changed.count
        try:
            reply = (await member.call(leader, heartbeat(member), limit_s)).heartbeat
        except PeerError as error:
            if isinstance(error, PeerFault):
                member.ports.note(f"leader {error}")
            # A connection may break for a moment; who lets a silence pass is silent.
            failures += 1 if isinstance(error, PeerUnreachable) else FAILURES_TO_SILENCE
            if attempt >= len(order) - 1:
                member.wait(f"a leader: no member that can be dialled answers ({names(order)})")
            else:
                member.wait(f"leader {leader[:8]} to answer")
        else:
            failures, answered_s = 0, member.now()
            member.trip.saw(member.now() - sent)
            if not _follows(member, r, attempt):
                return
            hear_leader(member, leader, reply)
            pause_s = reply.period_s if 0.0 < reply.period_s < MAX_PERIOD_S else 0.0
            if await _moves_with(member, reply, attempt):
                return
            listed = member.peer in reply.heard or not member.in_view()
            idle_since = None if reply.waiting and listed else idle_since or member.now()
            if reply.heard:
                limit_s = ACTIVE_PHASES * member.patience_s(entry_bytes_expected(member))
        silent = failures >= FAILURES_TO_SILENCE and len(order) > 1 and member.now() - start >= _least_wait_s(member, attempt, len(order))
        if _follows(member, r, attempt) and (silent or (idle_since is not None and member.now() - idle_since > limit_s)):
            since_s = answered_s if silent else idle_since or start
            why = f"leader {leader[:8]} is {'silent' if silent else 'too slow'} since {member.now() - since_s:.0f} s"
            if attempt == 0 or not await _still_led(member, attempt - 1, attempt):
                give_up(member, attempt + 1, why)
            return
        # What changed while the answer was on its way the leader does not know yet.
        await member.changed.wait(max(member.period_s(), 0.0 if failures else pause_s), None if failures else told)


def _least_wait_s(member: Member, attempt: int, num_leaders: int) -> float:
    """How long a leader that cannot be reached is still tried: not at all, until all have been tried in vain."""
    rounds = min(attempt // num_leaders, 4)
    return min(member.silence_s(), member.period_s() * (1 << rounds)) if rounds else 0.0


async def _moves_with(member: Member, reply: rounds_pb2.HeartbeatReply, attempt: int) -> bool:
    """Whether the leader's answer moves this member to another attempt, or to another entry."""
    if reply.r != member.state.r:
        return False
    if reply.attempt > attempt or reply.over:
        give_up(member, max(attempt + 1, reply.attempt), "the leader gave the attempt up")
        return True
    return reply.attempt < attempt and await _still_led(member, reply.attempt, attempt)


async def _still_led(member: Member, earlier: int, attempt: int) -> bool:
    order = leader_order(member.hash, member.state.members)
    return await goes_back(member, order[earlier % len(order)], attempt)


async def goes_back(member: Member, leader: PeerId, attempt: int) -> bool:
    """Return to the earlier attempt that a peer still leads: then it is not deposed. True where the round moved on, too."""
    r = member.state.r
    if leader == member.peer:
        return False
    try:
        # Asked again soon, so not waited for long.
        reply = (await member.call(leader, heartbeat(member), 2 * member.period_s())).heartbeat
    except PeerError:
        return not _follows(member, r, attempt)
    if not _follows(member, r, attempt):
        return True
    order = leader_order(member.hash, member.state.members)
    leads = reply.r == r and bool(reply.heard) and order[reply.attempt % len(order)] == leader
    if not leads or not member.vote().promised <= reply.attempt < attempt:
        return False
    give_up(member, reply.attempt, f"{leader[:8]} still leads")
    return True


def heartbeat(member: Member) -> rounds_pb2.Request:
    """What a member (or a newcomer that holds S_r) tells the leader."""
    mine = parts_to_hold(member.run.machine, member.state, member.peer, ())
    done, planned = progress(member)
    beat = rounds_pb2.Heartbeat(
        r=member.state.r,
        attempt=member.attempt,
        state_hash=member.hash,
        member=records.to_member(member.me),
        newcomer=not member.in_view(),
        leaving=member.leaving,
        held=[o.root for o in member.book.offers.values() if member.parts.holds(o.root, mine)],
        steps_done=done,
        num_steps=planned,
        sits_out=sits_out(member),
    )
    if wish := wishes.own(member):
        beat.wish.CopyFrom(records.to_signed(wish))
    if member.own is not None:
        beat.offer.CopyFrom(records.to_signed(member.own.signed))
    return rounds_pb2.Request(heartbeat=beat)


def hear_leader(member: Member, leader: PeerId, reply: rounds_pb2.HeartbeatReply) -> None:
    """Take in a heartbeat's answer."""
    if reply.r > member.state.r:
        member.fall_behind(leader)
    elif reply.r == member.state.r and reply.state_hash != member.hash:
        drift.noticed(member, leader, reply.state_hash)
    known = set(member.state.peers())
    member.leader_heard = tuple(peer for peer in reply.heard if peer in known)
    if is_quorum(member.state.members, member.leader_heard):
        member.quorum_s = member.now()
    if reply.r == member.state.r and member.leader_heard:
        land(member, min(1.0, max(0.0, reply.share_done)))
    if reply.phase:
        member.wait(f"leader {leader[:8]}: {reply.phase[:MAX_PHASE_CHARS]}")
    for signed in reply.offers[: len(known)]:
        take_offer(member, signed.SerializeToString())


def give_up(member: Member, attempt: int, why: str) -> None:
    """Move to another attempt; never further than what waiting could reach."""
    attempt = min(attempt, member.attempt + MAX_ATTEMPT_JUMP)
    member.ports.note(f"entry {member.state.r}: attempt {member.attempt} -> {attempt}: {why}")
    member.attempt = attempt
    member.changed.notify()


def entry_bytes_expected(member: Member) -> int:
    """Bytes a member still pulls for the due sync: the whole fragment, encoded."""
    machine, chunks = member.run.machine, member.run.machine.due(member.state.sync).num_chunks
    if machine.gather:
        return chunks * machine.codecs[machine.up].chunk_bytes * max(1, len(member.book.offers))
    return chunks * machine.codecs[machine.down].chunk_bytes


# -- offers and parts ---------------------------------------------------------------------------------------------------


def take_offer(member: Member, signed: bytes) -> str:
    """Note an offer. Returns why it is refused, "" where it is noted or known."""
    try:
        offer = records.open_offer(member.ports.verifier, member.run.run_id, signed)
    except ValueError as error:
        return str(error)
    known = len(member.book.offers)
    fault = member.fault_of(offer) or member.book.add(offer)
    if not fault and len(member.book.offers) > known:
        member.marks["last_offer"] = member.now()
        member.mark_half()
        member.changed.notify()
    return fault


def only_its_leader(member: Member, sender: PeerId, attempt: int) -> None:
    order = leader_order(member.hash, member.state.members)
    if order[attempt % len(order)] != sender:
        raise RefusedError(f"attempt {attempt} is not {sender[:8]}'s")
    if fault := attempt_fault(attempt, member.attempt):
        raise RefusedError(fault)


# -- after the commit ---------------------------------------------------------------------------------------------------


async def pass_certificate(member: Member, certified: bytes, peers: list[PeerId]) -> None:
    """Give a certificate to peers; return when all have answered. Who is behind catches up by itself."""
    message = swarm_pb2.CertifiedEntry.FromString(certified)

    async def give(peer: PeerId) -> None:
        with contextlib.suppress(PeerError):
            await member.call(peer, rounds_pb2.Request(commit=message), member.patience_s(entry_bytes_expected(member)))

    await asyncio.gather(*(give(peer) for peer in peers))


async def see_applied(member: Member, certified: bytes, peers: list[PeerId], only_quorum: bool, reached: dict[PeerId, int]) -> None:
    """Give the last certificate to peers until each has applied it or is gone, or once a quorum of the view has.

    reached: filled with the entry number that each peer is at: those behind catch up from here meanwhile.
    """
    message, r = swarm_pb2.CertifiedEntry.FromString(certified), member.state.r

    async def give(peer: PeerId) -> None:
        failures = 0
        while reached.get(peer, -1) < r and failures < FAILURES_TO_SILENCE:
            try:
                request = rounds_pb2.Request(commit=message)
                reply = await member.call(peer, request, member.patience_s(entry_bytes_expected(member)))
                reached[peer], failures = reply.done.r, 0
            except PeerError:
                failures += 1
            if reached.get(peer, -1) < r:
                await asyncio.sleep(member.period_s())

    giving = [asyncio.ensure_future(give(peer)) for peer in peers]
    try:
        for answered in asyncio.as_completed(giving):
            await answered
            if only_quorum and is_quorum(member.state.members, [peer for peer, at in reached.items() if at >= r]):
                return
    finally:
        for task in giving:
            task.cancel()


async def pass_along(member: Member, certified: bytes, r: int) -> None:
    """Give a certificate that a leader brought to the next members in a ring of this entry's own order.

    A leader that goes at once after its first word has then not taken the certificate with it.
    """
    order = sorted({*member.state.peers(), member.peer}, key=lambda peer: digest("decentra/pass", r.to_bytes(8, "little"), peer.encode()))
    at = order.index(member.peer)
    ring = [*order[at + 1 :], *order[:at]]
    await pass_certificate(member, certified, member.within_reach(ring)[:PASSED_ALONG])


def hear(member: Member, sender: PeerId, beat: rounds_pb2.Heartbeat, pause_s: float = 0.0) -> None:
    """Note a heartbeat; move to a later attempt when a quorum is already there. pause_s: until the next, as it is told."""
    member.absence.spoke(sender)
    if beat.r > member.state.r:
        member.fall_behind(sender)
    if beat.r != member.state.r:
        return
    if beat.state_hash != member.hash:
        drift.noticed(member, sender, beat.state_hash)
        return
    announced = records.of_member(beat.member)
    if announced.peer != sender:
        raise RefusedError(f"a heartbeat of {announced.peer[:8]} came from {sender[:8]}")
    others = sum(1 for peer, other in member.beats.items() if other.newcomer and peer != sender)
    if fault := announcement_fault(announced) or beat_fault(beat, member.state, member.attempt, others):
        raise RefusedError(f"the heartbeat is refused: {fault}")
    before = member.beats.get(sender)
    member.beats[sender] = Beat(
        member.now(),
        beat.attempt,
        as_now(announced),
        beat.newcomer,
        beat.leaving,
        frozenset(beat.held),
        beat.sits_out,
        beat.steps_done,
        beat.num_steps,
        pause_s,
        beat.wish.SerializeToString() if beat.HasField("wish") else b"",
    )
    if beat.HasField("offer") and not beat.newcomer:
        take_offer(member, beat.offer.SerializeToString())
    if before is None or (before.held, before.leaving, before.sits_out) != (frozenset(beat.held), beat.leaving, beat.sits_out):
        member.changed.notify()
    ahead = sorted((b.attempt for b in member.beats.values()), reverse=True)
    for attempt in ahead:
        there = {p for p, b in member.beats.items() if b.attempt >= attempt and not b.newcomer}
        if attempt > member.attempt and is_quorum(member.state.members, there | {member.peer}):
            give_up(member, attempt, "a quorum is there already")
            return


def as_now(member: ViewMember) -> ViewMember:
    """A member as it announces itself, without what the ledger knows of it."""
    return dataclasses.replace(member, first_sync=0, unheard_syncs=0, last_claim_samples=0, last_roots=("",))
