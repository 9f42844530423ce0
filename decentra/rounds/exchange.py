"""A round as everyone sees it: follow the leader of the attempt, pull parts as an owner, reduce, consider, pass on."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from decentra.codec.base import num_blocks
from decentra.errors import PeerError, PeerFault, RefusedError
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Sum, Term
from decentra.ledger.state import Part
from decentra.outer.average import coefficient_bits
from decentra.rounds import ballot, records
from decentra.rounds.contribute import sits_out
from decentra.rounds.fetch import pull_blocks
from decentra.rounds.member import Beat, as_now
from decentra.rounds.offers import Offer, offer_fault
from decentra.rounds.parts import HeldContribution
from decentra.rounds.reduction import reduce
from decentra.rounds.validate import entry_fault
from decentra.rounds.view import is_quorum, leader_order
from decentra.types import Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

FAILURES_TO_SILENCE = 2


# -- following ----------------------------------------------------------------------------------------------------------


async def follow(member: Member, leader: PeerId, attempt: int) -> None:
    """Heartbeat to the leader of this attempt until the entry is agreed, the leader is given up, or it moves on."""
    r, failures, start = member.state.r, 0, member.now()
    active_since: float | None = None
    while member.state.r == r and member.attempt == attempt and member.behind is None and not member.is_done():
        sent = member.now()
        try:
            reply = (await member.call(leader, heartbeat(member), member.silence_s())).heartbeat
        except PeerFault as error:
            member.ports.note(f"leader {error}")
            failures = FAILURES_TO_SILENCE
        except PeerError:
            failures += 1
        else:
            failures = 0
            member.rtt_s = 0.8 * member.rtt_s + 0.2 * (member.now() - sent)
            if member.state.r != r:
                return
            hear_leader(member, leader, reply)
            active_since = None if reply.waiting and member.peer in reply.heard else active_since or member.now()
            if reply.attempt > attempt or reply.over:
                give_up(member, max(attempt + 1, reply.attempt), "the leader gave the attempt up")
                return
            if reply.attempt < attempt and reply.r == r and await still_led(member, reply.attempt):
                member.attempt = reply.attempt
                return
        silent = failures >= FAILURES_TO_SILENCE
        too_long = active_since is not None and member.now() - active_since > member.patience_s(entry_bytes_expected(member))
        if (silent or too_long) and member.in_view():
            give_up(member, attempt + 1, f"leader {leader[:8]} is {'silent' if silent else 'too slow'} since {member.now() - start:.0f} s")
            return
        if silent:
            member.attempt = attempt + 1
            return
        await member.changed.wait(member.period_s())


def heartbeat(member: Member) -> rounds_pb2.Request:
    """What a member (or a newcomer that holds S_r) tells the leader."""
    mine = [p for p in member.state.parts if p.owner == member.peer]
    done, planned = member.ports.trainer.progress()
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
    if member.own is not None:
        beat.offer.CopyFrom(records.to_signed(member.own.signed))
    return rounds_pb2.Request(heartbeat=beat)


def hear_leader(member: Member, leader: PeerId, reply: rounds_pb2.HeartbeatReply) -> None:
    """Take in a heartbeat's answer."""
    if reply.r > member.state.r:
        member.behind = leader
    member.leader_heard = tuple(reply.heard)
    if reply.phase:
        member.wait(f"leader {leader[:8]}: {reply.phase}")
    for signed in reply.offers:
        take_offer(member, signed.SerializeToString())


def give_up(member: Member, attempt: int, why: str) -> None:
    """Move to a later attempt."""
    member.ports.note(f"entry {member.state.r}: attempt {member.attempt} -> {attempt}: {why}")
    member.attempt = attempt
    member.changed.notify()


async def still_led(member: Member, attempt: int) -> bool:
    """Whether the leader of an earlier attempt still answers and hears this member: then it is not deposed."""
    if member.vote().promised > attempt:
        return False
    order = leader_order(member.hash, member.state.members)
    leader = order[attempt % len(order)]
    if leader == member.peer:
        return False
    try:
        reply = (await member.call(leader, heartbeat(member), member.silence_s())).heartbeat
    except PeerError:
        return False
    return bool(reply.attempt == attempt and not reply.over and reply.r == member.state.r)


def entry_bytes_expected(member: Member) -> int:
    """Bytes a member still pulls for the due sync: the whole fragment, encoded."""
    machine = member.run.machine
    fragment = machine.fragments[member.state.sync % len(machine.fragments)]
    return fragment.num_chunks * machine.codecs[machine.down].chunk_bytes


# -- offers and parts ---------------------------------------------------------------------------------------------------


def take_offer(member: Member, signed: bytes) -> str:
    """Note an offer. Returns why it is refused, "" where it is noted or known."""
    try:
        offer = records.open_offer(member.ports.verifier, member.run.run_id, signed)
    except ValueError as error:
        return str(error)
    machine, known = member.run.machine, len(member.book.offers)
    chunks = machine.fragments[offer.sync % len(machine.fragments)].num_chunks
    fault = offer_fault(offer, member.state, len(machine.fragments), chunks, machine.up) or member.book.add(offer)
    if not fault and len(member.book.offers) > known:
        member.marks["last_offer"] = member.now()
        member.changed.notify()
    return fault


# -- what an owner makes of a close -------------------------------------------------------------------------------------


async def reduce_close(member: Member, close: rounds_pb2.Close) -> rounds_pb2.Report:
    """Average exactly that close, encode once, keep the blobs. Raises RefusedError or PeerError."""
    if close.r != member.state.r or close.sync != member.state.sync or close.ballot < member.vote().promised:
        raise RefusedError(f"close of entry {close.r} in ballot {close.ballot} is not obeyed at entry {member.state.r}")
    for signed in close.offers:
        take_offer(member, signed.SerializeToString())
    by_root = {offer.root: offer for offer in member.book.offers.values()}
    missing = [root.hex()[:12] for root in close.roots if root not in by_root]
    if missing or not close.roots:
        raise RefusedError(f"the close names roots that are not offered here: {', '.join(missing)}")
    chosen = [by_root[root] for root in close.roots]
    member.mark("closed")
    mine = [p for p in records.of_parts(close.parts) if p.owner == member.peer]
    await asyncio.gather(*(pull_contribution(member, offer, mine) for offer in chosen if offer.sender != member.peer))
    machine = member.run.machine
    up, down = machine.codecs[machine.up], machine.codecs[machine.down]
    sums = []
    for part in mine:
        packed = member.parts.packed({o.root: o.sender for o in chosen}, part, up)
        weights = {o.sender: o.weight_tokens for o in chosen}
        out = await member.ports.run_blocking(reduce, packed, weights, up, down)
        blob = await member.ports.run_blocking(member.ports.store.put_blob, out.numpy().tobytes(), close.r)
        sums.append(Sum(part.first_block, part.num_blocks, down.name, (Term(blob, coefficient_bits(1, 1)),)))
    return rounds_pb2.Report(close_digest=records.close_digest(close), sums=records.to_sums(sums))


# -- the acceptor -------------------------------------------------------------------------------------------------------


async def answer_prepare(member: Member, sender: PeerId, message: rounds_pb2.Prepare) -> rounds_pb2.Promise:
    """Promise a ballot, durably, unless something higher was promised or the present leader is heard."""
    if message.r != member.state.r or not member.in_view():
        return rounds_pb2.Promise(highest=member.vote().promised, reason=f"this member is at entry {member.state.r}")
    async with member.vote_lock:
        vote = ballot.promise(member.vote(), message.ballot)
        if vote is None:
            return rounds_pb2.Promise(highest=member.vote().promised, reason="a higher ballot was promised")
        await member.ports.run_blocking(member.ports.store.save_vote, vote)
    if message.ballot > member.attempt:
        give_up(member, message.ballot, f"{sender[:8]} leads")
    mine = [p for p in member.state.parts if p.owner == member.peer]
    promise = rounds_pb2.Promise(
        promised=True,
        highest=message.ballot,
        offers=[records.to_signed(o.signed) for o in member.book.offers.values()],
        held=[o.root for o in member.book.offers.values() if member.parts.holds(o.root, mine)],
    )
    if vote.accepted_ballot >= 0:
        promise.accepted_ballot, promise.accepted_entry = vote.accepted_ballot, vote.accepted_entry
    return promise


async def consider(member: Member, sender: PeerId, message: rounds_pb2.Proposal) -> rounds_pb2.Accept:
    """Validate, hold every blob, write down, sign. A refusal says why and the ballot promised."""
    promised = member.vote().promised
    if message.r != member.state.r or not member.in_view():
        if message.r > member.state.r:
            member.behind = sender
            member.changed.notify()
        return rounds_pb2.Accept(highest=promised, reason=f"this member is at entry {member.state.r}")
    member.mark("closed")
    member.mark("proposed")
    entry = records.parse_entry(message.entry)
    order = leader_order(member.hash, member.state.members)
    fault = entry_fault(member.run.run_id, member.run.machine, member.state, member.hash, entry)
    if not fault and order[message.ballot % len(order)] != sender:
        fault = f"attempt {message.ballot} is not {sender[:8]}'s"
    if fault:
        member.ports.note(f"entry {message.r} of {sender[:8]} refused: {fault}")
        return rounds_pb2.Accept(highest=promised, reason=fault)
    await member.fetcher.blobs_of(entry, (sender, *message.holders))
    async with member.vote_lock:
        vote = ballot.accept(member.vote(), message.ballot, message.entry)
        if message.r != member.state.r or vote is None:
            return rounds_pb2.Accept(highest=member.vote().promised, reason="promised or applied something else meanwhile")
        if sender == member.peer:
            vote = dataclasses.replace(vote, proposed=message.ballot)
        await member.ports.run_blocking(member.ports.store.save_vote, vote)
    named = ballot.VotePayload(
        member.run.run_id,
        member.state.lineage,
        message.r,
        message.ballot,
        entry_digest(message.entry),
        member.peer,
        member.me.incarnation,
    )
    signed = member.ports.signer.sign(records.DOMAIN_VOTE, records.vote_payload(named))
    return rounds_pb2.Accept(vote=records.to_signed(signed), highest=message.ballot)


# -- after the commit ---------------------------------------------------------------------------------------------------


async def pass_certificate(member: Member, certified: bytes, peers: list[PeerId]) -> set[PeerId]:
    """Give a certificate to peers; those that have applied it (or were ahead)."""
    message = swarm_pb2.CertifiedEntry.FromString(certified)

    async def give(peer: PeerId) -> PeerId | None:
        try:
            await member.call(peer, rounds_pb2.Request(commit=message), member.patience_s(entry_bytes_expected(member)))
        except PeerError:
            return None
        return peer

    return {peer for peer in await asyncio.gather(*(give(peer) for peer in peers)) if peer}


def hear(member: Member, sender: PeerId, beat: rounds_pb2.Heartbeat) -> None:
    """Note a heartbeat; move to a later attempt when a quorum is already there."""
    if beat.r > member.state.r:
        member.behind = sender
        member.changed.notify()
    if beat.r != member.state.r or beat.state_hash != member.hash:
        return
    announced = records.of_member(beat.member)
    if announced.peer != sender:
        raise RefusedError(f"a heartbeat of {announced.peer[:8]} came from {sender[:8]}")
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
    )
    if beat.HasField("offer"):
        take_offer(member, beat.offer.SerializeToString())
    if before is None or (before.held, before.leaving, before.sits_out) != (frozenset(beat.held), beat.leaving, beat.sits_out):
        member.changed.notify()
    ahead = sorted((b.attempt for b in member.beats.values()), reverse=True)
    for attempt in ahead:
        there = {p for p, b in member.beats.items() if b.attempt >= attempt and not b.newcomer}
        if attempt > member.attempt and is_quorum(member.state.members, there | {member.peer}):
            give_up(member, attempt, "a quorum is there already")
            return


