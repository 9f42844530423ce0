"""A round as the leader of an attempt sees it: prepare, wait for offers, close, propose, certify."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from decentra.codec.base import num_blocks
from decentra.errors import PeerError, RefusedError
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Counted, Sum, Term
from decentra.ledger.state import Part
from decentra.rounds import absence, accept, ballot, compose, exchange, owner, records
from decentra.rounds.bounds import MAX_LIST, MAX_PHASE_CHARS
from decentra.rounds.flows import names
from decentra.rounds.offers import Offer
from decentra.rounds.punctual import land
from decentra.rounds.status import link_says
from decentra.rounds.view import is_quorum
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


class _Conceded(Exception):
    """This attempt cannot succeed; the text says why. highest: a ballot that was promised meanwhile; the next lies above."""

    def __init__(self, why: str, highest: int = 0) -> None:
        super().__init__(why)
        self.highest = highest


async def lead(member: Member, attempt: int) -> None:
    """Lead one attempt of the due entry until it is committed, or conceded to the next leader."""
    r = member.state.r
    member.leading = True
    try:
        if member.vote().promised > attempt:
            raise _Conceded("a higher attempt was promised", member.vote().promised)
        forced = await _prepare(member, attempt) if attempt > 0 or member.vote().proposed >= 0 else b""
        if _gone(member, r, attempt):
            return
        entry, holders = (forced, list(member.state.peers())) if forced else await _compose(member, attempt)
        member.collecting = False
        if _gone(member, r, attempt) or not entry:
            return
        certified = await _propose(member, attempt, entry, holders)
        newcomers = [m.peer for m in records.parse_entry(entry).admitted]
        others = [p for p in (*member.state.peers(), *newcomers) if p != member.peer]
        member.spawn(_spread(member, certified, others))  # they apply while this node does
        await member.commit(certified, member.peer)
    except (_Conceded, PeerError, RefusedError) as why:
        if member.state.r == r and member.attempt == attempt:
            exchange.give_up(member, max(attempt + 1, getattr(why, "highest", 0)), str(why))
    finally:
        member.leading = member.collecting = False
        member.takes_over = ()


async def _spread(member: Member, certified: bytes, others: list[PeerId]) -> None:
    await exchange.pass_certificate(member, certified, others)


def _gone(member: Member, r: int, attempt: int) -> bool:
    return member.state.r != r or member.attempt != attempt or member.is_done() or member.is_called_away()


def _without(member: Member, peers: Collection[PeerId]) -> str:
    missing = ", ".join(p[:8] for p in member.state.peers() if p not in peers)
    return f"a quorum: hears {len(peers)} of {len(member.state.members)} members, not {missing}"


# -- promises -----------------------------------------------------------------------------------------------------------


async def _prepare(member: Member, attempt: int) -> bytes:
    """Promises from a quorum; the entry that must be proposed, b"" where this leader may compose its own.

    A leader that has itself proposed in this attempt before (it restarted) concedes: it uses only a higher one.
    """
    if member.vote().proposed >= attempt:
        raise _Conceded("this node proposed in this attempt before it restarted", member.vote().proposed + 1)
    if not await _gather_quorum(member, attempt):
        return b""
    r = member.state.r
    request = rounds_pb2.Prepare(r=r, ballot=attempt)
    promises: dict[PeerId, rounds_pb2.Promise] = {}

    async def ask(peer: PeerId) -> None:
        if peer == member.peer:
            promises[peer] = await accept.answer_prepare(member, peer, request)
            return
        try:
            promises[peer] = (await member.call(peer, rounds_pb2.Request(prepare=request), member.silence_s())).promise
        except PeerError:
            return

    await asyncio.gather(*(ask(peer) for peer in member.heard()))
    given = {p: m for p, m in promises.items() if m.promised}
    if _gone(member, r, attempt):
        return b""
    if not is_quorum(member.state.members, given):
        raise _Conceded("no quorum promised", max((m.highest for m in promises.values() if not m.promised), default=0))
    for promise in given.values():
        for signed in promise.offers[: len(member.state.members)]:
            exchange.take_offer(member, signed.SerializeToString())
    accepted = [(m.accepted_ballot, m.accepted_entry) for m in given.values() if m.HasField("accepted_ballot")]
    # A member accepts only what may follow this state, in a ballot below the one it then promises: other claims are lies.
    return ballot.forced_entry([(b, entry) for b, entry in accepted if b < attempt and accept.judged(member, entry)[0] is not None])


async def _gather_quorum(member: Member, attempt: int) -> bool:
    """Wait until a quorum is at this attempt. False where the round went elsewhere; an earlier leader that lives goes on."""
    r, start, asked = member.state.r, member.now(), 0
    patience_s = member.patience_s(0)
    while True:
        there = {p for p in member.heard() if p == member.peer or member.beats[p].attempt >= attempt}
        if is_quorum(member.state.members, there):
            return True
        if member.now() - start > patience_s:
            raise _Conceded(f"no quorum at attempt {attempt}")
        member.wait(f"{_without(member, there)}, at attempt {attempt}")
        await member.changed.wait(member.period_s())
        peers = member.state.peers()
        if _gone(member, r, attempt) or await exchange.goes_back(member, peers[asked % len(peers)], attempt):
            return False
        asked += 1


# -- composing ----------------------------------------------------------------------------------------------------------


async def _compose(member: Member, attempt: int) -> tuple[bytes, list[PeerId]]:
    """Wait until there is something to agree on, and make the entry: (its bytes, who holds its blobs)."""
    r, start = member.state.r, member.now()
    quorum_s, patience_s = start, member.patience_s(0)
    member.collecting = True
    while not _gone(member, r, attempt):
        heard, now = member.heard(), member.now()
        if is_quorum(member.state.members, heard):
            quorum_s = now
        elif now - quorum_s > patience_s:
            raise _Conceded(f"{_without(member, heard)}, for {now - quorum_s:.0f} s")
        else:
            member.wait(_without(member, heard))
            await member.changed.wait(member.period_s())
            continue
        absence.ask_after(member, start)
        land(member, compose.share_done(member, member.peer))
        settled = now >= start + member.silence_s()
        found = compose.closable(member, heard, settled)
        complete = not found.awaits_offers and not found.awaits_bytes
        late = settled and now >= compose.deadline_s(member, start, attempt)
        overdue = late and now >= compose.bytes_deadline_s(member, start)
        if complete or (found.ready and late and (overdue or not found.awaits_bytes)):
            if made := await _close(member, attempt, found.parts, found.ready):
                return made
            continue
        if overdue:
            raise _Conceded("no contribution is held by all owners at the straggler deadline")
        if not complete and (entry := compose.entry(member, heard, None, (), ())) is not None:
            return records.entry_bytes(entry), []
        await member.changed.wait(member.period_s())
    return b"", []


async def _close(member: Member, attempt: int, parts: tuple[Part, ...], offers: list[Offer]) -> tuple[bytes, list[PeerId]] | None:
    """The entry that counts these contributions and who holds its blobs; none counted: the sync is skipped.

    None where an owner failed: its parts are then this leader's.
    """
    r = member.state.r
    member.collecting = False
    member.mark("closed")
    sums: tuple[Sum, ...] | None = ()
    holders = list(member.heard())
    if offers and member.run.machine.gather:
        sums = await _gathered(member, offers)
    elif offers:
        holders = sorted({p.owner for p in parts})
        sums = await _reduced(member, attempt, parts, offers, holders)
    if sums is None:
        member.collecting = True
        return None
    counted = tuple(
        Counted(o.sender, o.incarnation, o.root, o.weight_tokens, o.num_steps, o.claim, o.base_sync)
        for o in sorted(offers, key=lambda o: o.sender)
    )
    if _gone(member, r, attempt):
        return b"", []
    entry = compose.entry(member, member.heard(), member.state.sync, counted, sums)
    if entry is None:
        raise _Conceded("no valid next view")
    return records.entry_bytes(entry), holders


async def _gathered(member: Member, offers: list[Offer]) -> tuple[Sum, ...]:
    """The contributions as blobs, each with its share of the weight, in the order of senders."""
    blobs = [await accept.keep_gathered(member, offer.root) for offer in sorted(offers, key=lambda o: o.sender)]
    if None in blobs:
        raise _Conceded("a contribution of the close is not held here any more")
    shares = member.run.machine.shares(offers).values()
    terms = tuple(Term(blob, bits) for blob, bits in zip(blobs, shares, strict=True) if blob is not None)
    return (Sum(0, num_blocks(offers[0].num_chunks), member.run.machine.up, terms),)


async def _reduced(
    member: Member, attempt: int, parts: tuple[Part, ...], offers: list[Offer], owners: list[PeerId]
) -> tuple[Sum, ...] | None:
    """What the owners make of exactly these contributions; None where one of them failed."""
    close = rounds_pb2.Close(
        r=member.state.r,
        ballot=attempt,
        sync=member.state.sync,
        roots=[o.root for o in offers],
        parts=records.to_parts(parts),
        offers=[records.to_signed(o.signed) for o in offers],
    )
    member.wait(f"the reductions of {names(tuple(owners))}", link_says(member))
    size = exchange.entry_bytes_expected(member)

    async def ask(peer: PeerId) -> list[Sum]:
        if peer == member.peer:
            report = await owner.reduce_close(member, member.peer, close)
        else:
            report = (await member.call(peer, rounds_pb2.Request(close=close), member.patience_s(size))).report
        if report.close_digest != records.close_digest(close):
            raise _Conceded(f"owner {peer[:8]} reported another close")
        if len(report.sums) > len(parts) or sum(len(each.terms) for each in report.sums) > MAX_LIST:
            raise _Conceded(f"owner {peer[:8]} reported {len(report.sums)} sums for a map of {len(parts)} parts")
        return list(records.of_sums(report.sums))

    sums: list[Sum] = []
    for peer, report in zip(owners, await asyncio.gather(*(ask(peer) for peer in owners), return_exceptions=True), strict=True):
        if isinstance(report, PeerError | RefusedError):
            if peer == member.peer:
                raise _Conceded(f"this node failed to reduce: {report}") from report
            member.ports.note(f"owner {peer[:8]} failed, its parts are taken over: {report}")
            member.failing.add(peer)
        elif isinstance(report, BaseException):
            raise report
        else:
            sums += report
    return None if member.failing & set(owners) else tuple(sorted(sums, key=lambda s: s.first_block))


# -- proposing ----------------------------------------------------------------------------------------------------------


async def _propose(member: Member, attempt: int, entry: bytes, holders: list[PeerId]) -> bytes:
    """Votes from a quorum, made into a certificate: the certified entry's bytes."""
    if not ballot.may_propose(member.vote(), attempt, entry):
        raise _Conceded("this node has proposed in this ballot before")
    member.mark("proposed")
    member.wait("votes")
    state, size = member.state, exchange.entry_bytes_expected(member)
    proposal = rounds_pb2.Proposal(r=state.r, ballot=attempt, entry=entry, holders=holders)
    if fault := accept.judged(member, entry)[1]:
        raise _Conceded(f"this node refuses the entry itself: {fault}")
    if not await accept.note_proposal(member, member.hash, attempt):
        raise _Conceded("a higher attempt was promised meanwhile", member.vote().promised)
    votes: dict[PeerId, bytes] = {}
    refusals: list[str] = []
    promised = [0]

    async def ask(peer: PeerId) -> None:
        try:
            if peer == member.peer:
                answer = await accept.consider(member, peer, proposal)
            else:
                answer = (await member.call(peer, rounds_pb2.Request(proposal=proposal), member.patience_s(size))).accept
        except (PeerError, RefusedError) as error:
            refusals.append(str(error))
            return
        if answer.HasField("vote"):
            vote = answer.vote.SerializeToString()
            if fault := accept.vote_fault(member, peer, proposal, vote):
                refusals.append(f"{peer[:8]}: {fault}")
            else:
                votes[peer] = vote
        else:
            refusals.append(f"{peer[:8]}: {answer.reason[:MAX_PHASE_CHARS]}")
            promised.append(answer.highest)
        member.changed.notify()

    asked = [asyncio.ensure_future(ask(p)) for p in state.peers()]  # all pull the blobs at once, this node beside them
    for task in asked:
        member.spawn(_await(task))
    while not is_quorum(state.members, votes):
        if all(task.done() for task in asked) or _gone(member, state.r, attempt):
            raise _Conceded(f"no quorum of votes: {'; '.join(refusals)}", max(promised))
        member.wait(f"votes of {names(tuple(p for p in state.peers() if p not in votes))}", link_says(member))
        await member.changed.wait(member.period_s())
    certificate = ballot.Certificate(state.r, attempt, entry_digest(entry), tuple(votes[p] for p in sorted(votes)))
    return swarm_pb2.CertifiedEntry(entry=entry, certificate=records.certificate_bytes(certificate)).SerializeToString()


async def _await(task: asyncio.Future[None]) -> None:
    await task
