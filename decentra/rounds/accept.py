"""The acceptor: what a member promises and signs, each written down before the answer leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from decentra.codec.base import Codec
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Entry
from decentra.ledger.store import Store, Vote
from decentra.rounds import ballot, exchange, records
from decentra.rounds.owner import owned
from decentra.rounds.reduction import is_finite
from decentra.rounds.validate import entry_fault
from decentra.rounds.wishes import settings_fault
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


async def note_proposal(member: Member, stands_on: Digest, attempt: int) -> bool:
    """Write down that this leader proposes in this attempt, before anybody is asked. False where it may not any more."""

    def proposes(vote: Vote) -> Vote | None:
        return None if vote.promised > attempt else dataclasses.replace(vote, proposed=attempt)

    return await _cast(member, stands_on, proposes) is not None


async def consider(member: Member, sender: PeerId, message: rounds_pb2.Proposal) -> rounds_pb2.Accept:
    """Validate, hold every blob, write down, sign. A refusal says why and the ballot promised."""
    if message.r > member.state.r:
        member.fall_behind(sender)
    if message.r != member.state.r or not member.may_vote():
        return rounds_pb2.Accept(reason=f"this member is at entry {member.state.r}")
    exchange.only_its_leader(member, sender, message.ballot)
    stands_on = member.hash
    entry, fault = judged(member, message.entry)
    if entry is None:
        member.ports.note(f"entry {message.r} of {sender[:8]} refused: {fault}")
        return rounds_pb2.Accept(highest=_promised(member, message.r), reason=fault)
    member.mark("closed")
    member.mark("proposed")
    gathered = [await keep_gathered(member, counted.root) for counted in entry.counted] if member.run.machine.gather else []
    view = set(member.state.peers())
    await member.fetcher.blobs_of(entry, (sender, *(holder for holder in message.holders if holder in view)))
    if member.run.machine.gather and (fault := await _gathered_fault(member, entry, gathered)):
        member.ports.note(f"entry {message.r} of {sender[:8]} refused: {fault}")
        return rounds_pb2.Accept(highest=_promised(member, message.r), reason=fault)
    vote = await _cast(member, stands_on, lambda vote: ballot.accept(vote, message.ballot, message.entry))
    if vote is None:
        return rounds_pb2.Accept(highest=_promised(member, message.r), reason="promised or applied something else")
    return rounds_pb2.Accept(vote=records.to_signed(_signed_vote(member, message, vote.lineage)), highest=message.ballot)


async def keep_gathered(member: Member, root: Digest) -> Digest | None:
    """Keep a contribution that is held whole as a blob of the due entry; its digest, None where it is not held."""
    data = member.parts.whole(root)
    return None if data is None else await member.ports.run_blocking(member.ports.store.put_blob, data, member.state.r)


async def _gathered_fault(member: Member, entry: Entry, known: Sequence[Digest | None]) -> str:
    """Whose contribution an entry counts that decodes to NaN or infinity; "" where all are finite, as the `known` blobs are."""
    for total in entry.sums:
        codec = member.run.machine.codecs[total.codec]
        for counted, term in zip(entry.counted, total.terms, strict=True):
            finite = term.blob in known or await member.ports.run_blocking(_is_finite_blob, member.ports.store, term.blob, codec)
            if not finite:
                return f"it counts the contribution of {counted.sender[:8]}, which holds NaN or infinity"
    return ""


def _is_finite_blob(store: Store, name: Digest, codec: Codec) -> bool:
    return is_finite(store.blob(name), codec)


def judged(member: Member, entry: bytes) -> tuple[Entry | None, str]:
    """(the entry, "") where it may follow this member's state, else (None, why not)."""
    try:
        parsed = records.parse_entry(entry)
    except ValueError as error:
        return None, str(error)
    run, after = member.run, None
    if fault := settings_fault(run, member.ports.verifier, member.state, parsed):
        return None, fault
    if parsed.settings:
        after = run.under(parsed.settings).machine
    fault = entry_fault(run.run_id, run.machine, member.state, member.hash, parsed, after)
    return (None, fault) if fault else (parsed, "")


def vote_fault(member: Member, voter: PeerId, message: rounds_pb2.Proposal, signed: bytes) -> str:
    """Why what a member answered is no vote for this proposal; "" where it is one."""
    try:
        vote = records.open_vote(member.ports.verifier, signed)
    except ValueError as error:
        return str(error)
    known = member.state.member(voter)
    if known is None or vote != _named(member, message, member.state.lineage, voter, known.incarnation):
        return f"its vote is for something else than entry {message.r} in ballot {message.ballot}"
    return ""


def _named(member: Member, message: rounds_pb2.Proposal, lineage: str, voter: PeerId, incarnation: int) -> ballot.VotePayload:
    return ballot.VotePayload(
        member.run.run_id, lineage, message.r, message.ballot, entry_digest(message.entry), voter, incarnation
    )


def _signed_vote(member: Member, message: rounds_pb2.Proposal, lineage: str) -> bytes:
    named = _named(member, message, lineage, member.peer, member.me.incarnation)
    return member.ports.signer.sign(records.DOMAIN_VOTE, records.vote_payload(named))
