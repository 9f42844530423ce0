"""The acceptor: what a member promises and signs, each written down before the answer leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from decentra.ledger.chain import entry_digest
from decentra.ledger.store import Vote
from decentra.rounds import ballot, exchange, records
from decentra.rounds.owner import owned
from decentra.rounds.validate import entry_fault
from decentra.types import Digest, PeerId
from decentra.wire.v1 import rounds_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


async def answer_prepare(member: Member, sender: PeerId, message: rounds_pb2.Prepare) -> rounds_pb2.Promise:
    """Promise a ballot to its leader, durably, unless something higher was promised."""
    if message.r > member.state.r:
        member.fall_behind(sender)
    if message.r != member.state.r or not member.may_vote():
        return rounds_pb2.Promise(reason=f"this member is at entry {member.state.r}")
    exchange.only_its_leader(member, sender, message.ballot)
    stands_on = member.hash
    vote = await _cast(member, stands_on, lambda vote: ballot.promise(vote, message.ballot))
    if vote is None or member.hash != stands_on:
        return rounds_pb2.Promise(highest=_promised(member, message.r), reason="promised or applied something else")
    if message.ballot > member.attempt:
        exchange.give_up(member, message.ballot, f"{sender[:8]} leads")
    promise = rounds_pb2.Promise(
        promised=True,
        highest=message.ballot,
        offers=[records.to_signed(o.signed) for o in member.book.offers.values()],
        held=[o.root for o in member.book.offers.values() if member.parts.holds(o.root, owned(member))],
    )
    if vote.accepted_ballot >= 0:
        promise.accepted_ballot, promise.accepted_entry = vote.accepted_ballot, vote.accepted_entry
    return promise


async def _cast(member: Member, stands_on: Digest, change: Callable[[Vote], Vote | None]) -> Vote | None:
    """Change this member's vote for the entry that follows h_r and write it down; None where `change` forbids it or the round is over."""

    async def cast() -> Vote | None:
        async with member.vote_lock:
            vote = change(member.vote()) if stands_on == member.hash else None
            if vote is not None:
                await member.ports.run_blocking(member.ports.store.save_vote, vote)
            return vote

    return await member.moves.run(cast())


def _promised(member: Member, r: int) -> int:
    return member.vote().promised if member.state.r == r else 0


async def consider(member: Member, sender: PeerId, message: rounds_pb2.Proposal) -> rounds_pb2.Accept:
    """Validate, hold every blob, write down, sign. A refusal says why and the ballot promised."""
    if message.r > member.state.r:
        member.fall_behind(sender)
    if message.r != member.state.r or not member.may_vote():
        return rounds_pb2.Accept(reason=f"this member is at entry {member.state.r}")
    exchange.only_its_leader(member, sender, message.ballot)
    member.mark("closed")
    member.mark("proposed")
    entry, stands_on = records.parse_entry(message.entry), member.hash
    fault = entry_fault(member.run.run_id, member.run.machine, member.state, stands_on, entry)
    if fault:
        member.ports.note(f"entry {message.r} of {sender[:8]} refused: {fault}")
        return rounds_pb2.Accept(highest=_promised(member, message.r), reason=fault)
    await member.fetcher.blobs_of(entry, (sender, *message.holders))

    def accepted(vote: Vote) -> Vote | None:
        changed = ballot.accept(vote, message.ballot, message.entry)
        return dataclasses.replace(changed, proposed=message.ballot) if changed and sender == member.peer else changed

    vote = await _cast(member, stands_on, accepted)
    if vote is None:
        return rounds_pb2.Accept(highest=_promised(member, message.r), reason="promised or applied something else")
    return rounds_pb2.Accept(vote=records.to_signed(_signed_vote(member, message, vote.lineage)), highest=message.ballot)


def _signed_vote(member: Member, message: rounds_pb2.Proposal, lineage: str) -> bytes:
    named = ballot.VotePayload(
        member.run.run_id,
        lineage,
        message.r,
        message.ballot,
        entry_digest(message.entry),
        member.peer,
        member.me.incarnation,
    )
    return member.ports.signer.sign(records.DOMAIN_VOTE, records.vote_payload(named))
