"""A round as the leader of an attempt sees it: prepare, wait for offers, close, propose, certify."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from decentra.codec.base import num_blocks
from decentra.errors import PeerError, RefusedError
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Counted, Entry, Sum
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import Part, next_members
from decentra.rounds import ballot, exchange, leases, records
from decentra.rounds.contribute import sits_out
from decentra.rounds.offers import Offer, close_deadline_s, half_offered, held_everywhere
from decentra.rounds.reduction import hand_on, next_parts, owners_of
from decentra.rounds.view import admissible, is_quorum, overdue
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member


class _Conceded(Exception):
    """This attempt cannot succeed; the text says why."""


async def lead(member: Member, attempt: int) -> None:
    """Lead one attempt of the due entry until it is committed, or conceded to the next leader."""
    r = member.state.r
    member.leading, member.collecting = True, True
    try:
        forced = await _prepare(member, attempt) if attempt > 0 or member.vote().proposed >= 0 else b""
        if member.attempt != attempt or member.state.r != r:
            return
        entry, holders = (forced, list(member.state.peers())) if forced else await _compose(member, attempt)
        if member.attempt != attempt or member.state.r != r or not entry:
            return
        member.collecting = False
        certified = await _propose(member, attempt, entry, holders)
        newcomers = [m.peer for m in records.parse_entry(entry).admitted]
        others = [p for p in (*member.state.peers(), *newcomers) if p != member.peer]
        await member.commit(certified, member.peer)
        member.spawn(_spread(member, certified, others))
    except _Conceded as why:
        if member.state.r == r and member.attempt == attempt:
            exchange.give_up(member, attempt + 1, str(why))
    finally:
        member.leading = member.collecting = False


async def _spread(member: Member, certified: bytes, others: list[PeerId]) -> None:
    await exchange.pass_certificate(member, certified, others)


def _gone(member: Member, r: int, attempt: int) -> bool:
    return member.state.r != r or member.attempt != attempt or member.is_done() or member.behind is not None


# -- promises -----------------------------------------------------------------------------------------------------------


async def _prepare(member: Member, attempt: int) -> bytes:
    """Promises from a quorum; the entry that must be proposed, b"" where this leader may compose its own.

    A leader that has itself proposed in this attempt before (it restarted) concedes: it uses only a higher one.
    """
    if member.vote().proposed >= attempt:
        raise _Conceded("this node proposed in this attempt before it restarted")
    r = member.state.r
    member.wait(f"a quorum at attempt {attempt}")
    while True:
        there = {p for p, b in member.beats.items() if b.attempt >= attempt and p in member.heard()} | {member.peer}
        if is_quorum(member.state.members, there):
            break
        await member.changed.wait(member.period_s())
        if _gone(member, r, attempt):
            return b""
        for earlier in range(attempt - 1, max(-1, attempt - 4), -1):
            if await exchange.still_led(member, earlier):
                member.attempt = earlier
                return b""
    request = rounds_pb2.Prepare(r=r, ballot=attempt)
    promises: dict[PeerId, rounds_pb2.Promise] = {}

    async def ask(peer: PeerId) -> None:
        if peer == member.peer:
            promises[peer] = await exchange.answer_prepare(member, peer, request)
            return
        try:
            promises[peer] = (await member.call(peer, rounds_pb2.Request(prepare=request), member.silence_s())).promise
        except PeerError:
            return

    await asyncio.gather(*(ask(peer) for peer in member.heard()))
    given = {p: m for p, m in promises.items() if m.promised}
    if not is_quorum(member.state.members, given):
        raise _Conceded("no quorum promised")
    for promise in given.values():
        for signed in promise.offers:
            exchange.take_offer(member, signed.SerializeToString())
    return ballot.forced_entry([(m.accepted_ballot, m.accepted_entry) for m in given.values() if m.HasField("accepted_ballot")])


# -- composing ----------------------------------------------------------------------------------------------------------


async def _compose(member: Member, attempt: int) -> tuple[bytes, list[PeerId]]:
    """Wait until there is something to agree on, and make the entry: (its bytes, who holds its blobs)."""
    r, half_s = member.state.r, None
    while not _gone(member, r, attempt):
        heard = member.heard()
        if not is_quorum(member.state.members, heard):
            member.wait(f"a quorum: hears {len(heard)} of {len(member.state.members)} members")
            await member.changed.wait(member.period_s())
            continue
        if half_s is None and member.state.started(member.run.config.start_members):
            if half_offered(member.state.expected(), member.book.offers):
                half_s = member.now()
        due_s = None if half_s is None else close_deadline_s(member.round_start_s, half_s, attempt)
        parts, ready, complete = _closable(member, heard)
        late = due_s is not None and member.now() >= due_s
        if ready and (complete or late):
            return await _close(member, attempt, parts, ready)
        if late and not ready:
            raise _Conceded("no contribution is held by all owners at the straggler deadline")
        newcomers, leavers = _movers(member)
        if (newcomers or leavers) and not complete:
            entry = _entry(member, heard, newcomers, leavers, None, (), ())
            if entry is not None:
                return records.entry_bytes(entry), []
        await member.changed.wait(member.period_s())
    return b"", []


def _closable(member: Member, heard: tuple[PeerId, ...]) -> tuple[tuple[Part, ...], list[Offer], bool]:
    """(map, offers held whole by its owners, whether everyone waited for has offered and is held)."""
    state = member.state
    if not state.started(member.run.config.start_members):
        member.wait(f"{member.run.config.start_members - len(state.members)} more members to start")
        return state.parts, [], False
    parts = hand_on(state.parts, owners_of(state.members, heard))
    held = {p: b.held for p, b in member.beats.items()}
    mine = [p for p in parts if p.owner == member.peer]
    held[member.peer] = frozenset(o.root for o in member.book.offers.values() if member.parts.holds(o.root, mine))
    ready = held_everywhere(member.book.offers, [p for p in state.parts if p.owner in heard], held)
    if parts != state.parts:  # the new owners still need blocks that only a live sender can give
        ready = [o for o in ready if o.sender in heard]
    awaited = [p for p in state.expected() if p in heard and p not in member.book.offers and not _sits_out(member, p)]
    unheld = [o.sender for o in member.book.offers.values() if o not in ready]
    if awaited:
        steps = [(member.beats[p].num_steps - member.beats[p].steps_done, p) for p in awaited if p in member.beats]
        behind = max(steps, default=(0, member.peer))
        member.wait(f"offers of {len(awaited)} members; {behind[1][:8]} has {behind[0]} steps to go")
    elif unheld:
        member.wait(f"owners to hold the parts of {', '.join(p[:8] for p in unheld)}")
    return parts, ready, not awaited and not unheld and bool(ready)


def _sits_out(member: Member, peer: PeerId) -> bool:
    if peer == member.peer:
        return sits_out(member) or member.leaving
    beat = member.beats.get(peer)
    return beat is not None and (beat.sits_out or beat.leaving)


def _movers(member: Member) -> tuple[list[ViewMember], list[PeerId]]:
    """(newcomers that are ready at this state, members that want to go), as heard lately."""
    limit = member.now() - member.silence_s()
    fresh = {p: b for p, b in member.beats.items() if b.time_s >= limit}
    newcomers = [fresh[p].member for p in sorted(fresh) if fresh[p].newcomer and not fresh[p].leaving]
    leavers = [p for p in sorted(fresh) if fresh[p].leaving and not fresh[p].newcomer and p in member.state.peers()]
    if member.leaving:
        leavers.append(member.peer)
    return newcomers, leavers


async def _close(member: Member, attempt: int, parts: tuple[Part, ...], offers: list[Offer]) -> tuple[bytes, list[PeerId]]:
    """Have the owners reduce exactly these contributions, and make the entry that counts them."""
    member.collecting = False
    member.mark("closed")
    close = rounds_pb2.Close(
        r=member.state.r,
        ballot=attempt,
        sync=member.state.sync,
        roots=[o.root for o in offers],
        parts=records.to_parts(parts),
        offers=[records.to_signed(o.signed) for o in offers],
    )
    owners = sorted({p.owner for p in parts})
    member.wait(f"the reductions of {len(owners)} owners")
    size = exchange.entry_bytes_expected(member)

    async def ask(owner: PeerId) -> list[Sum]:
        if owner == member.peer:
            report = await exchange.reduce_close(member, close)
        else:
            report = (await member.call(owner, rounds_pb2.Request(close=close), member.patience_s(size))).report
        if report.close_digest != records.close_digest(close):
            raise _Conceded(f"owner {owner[:8]} reported another close")
        return list(records.of_sums(report.sums))

    try:
        reports = await asyncio.gather(*(ask(owner) for owner in owners))
    except (PeerError, RefusedError) as error:
        raise _Conceded(f"an owner failed: {error}") from error
    sums = tuple(sorted((s for report in reports for s in report), key=lambda s: s.first_block))
    counted = tuple(
        Counted(o.sender, o.incarnation, o.root, o.weight_tokens, o.num_steps, o.claim, o.base_sync) for o in sorted(offers, key=lambda o: o.sender)
    )
    newcomers, leavers = _movers(member)
    entry = _entry(member, member.heard(), newcomers, leavers, member.state.sync, counted, sums)
    if entry is None:
        raise _Conceded("no valid next view")
    return records.entry_bytes(entry), owners


def _entry(
    member: Member,
    heard: tuple[PeerId, ...],
    newcomers: list[ViewMember],
    leavers: list[PeerId],
    sync: int | None,
    counted: tuple[Counted, ...],
    sums: tuple[Sum, ...],
) -> Entry | None:
    """The entry with its view, map and leases; None where it would change nothing or its next view cannot stand."""
    state, machine = member.state, member.run.machine
    is_sync = sync is not None
    replaced = [m.peer for m in newcomers if m.peer in state.peers()]
    heard = tuple(p for p in heard if p not in replaced)
    removed = tuple(sorted({*leavers, *replaced, *overdue(state, heard, is_sync)}))
    staying = next_members(state, is_sync, heard, removed, (), machine.start_members)
    admitted = admissible(staying, heard, newcomers)
    dropped = {p for p in replaced if p not in {m.peer for m in admitted}} - set(overdue(state, heard, is_sync))
    removed = tuple(p for p in removed if p not in dropped)
    if not is_sync and not admitted and not removed:
        return None
    members = next_members(state, is_sync, heard, removed, admitted, machine.start_members)
    next_sync = state.sync + is_sync
    blocks = num_blocks(machine.fragments[next_sync % len(machine.fragments)].num_chunks)
    alive = {*heard, *(m.peer for m in admitted)} - set(removed) | {m.peer for m in admitted}
    if not owners_of(members, alive):
        return None
    recut = is_sync or not state.started(machine.start_members)
    claims = {c.sender: c.claim for c in counted}
    settled = leases.settle(state, claims, removed, members)
    return Entry(
        run_id=member.run.run_id,
        lineage=state.lineage,
        r=state.r,
        state_hash=member.hash,
        sync=sync,
        fragment=0 if sync is None else sync % len(machine.fragments),
        counted=counted,
        sums=sums,
        heard=heard,
        admitted=admitted,
        removed=removed,
        returned=settled.returned,
        granted=settled.granted,
        next_parts=next_parts(state.parts, members, alive, blocks, recut),
    )


# -- proposing ----------------------------------------------------------------------------------------------------------


async def _propose(member: Member, attempt: int, entry: bytes, holders: list[PeerId]) -> bytes:
    """Votes from a quorum, made into a certificate: the certified entry's bytes."""
    if not ballot.may_propose(member.vote(), attempt, entry):
        raise _Conceded("this node has proposed in this ballot before")
    member.mark("proposed")
    member.wait("votes")
    state, size = member.state, exchange.entry_bytes_expected(member)
    proposal = rounds_pb2.Proposal(r=state.r, ballot=attempt, entry=entry, holders=holders)
    own = await exchange.consider(member, member.peer, proposal)
    if not own.HasField("vote"):
        raise _Conceded(f"this node refuses the entry itself: {own.reason}")
    votes: dict[PeerId, bytes] = {member.peer: own.vote.SerializeToString()}
    refusals: list[str] = []

    async def ask(peer: PeerId) -> None:
        try:
            answer = (await member.call(peer, rounds_pb2.Request(proposal=proposal), member.patience_s(size))).accept
        except PeerError as error:
            refusals.append(str(error))
            return
        if answer.HasField("vote"):
            votes[peer] = answer.vote.SerializeToString()
        else:
            refusals.append(f"{peer[:8]}: {answer.reason}")
        member.changed.notify()

    asked = [asyncio.ensure_future(ask(p)) for p in state.peers() if p != member.peer]
    for task in asked:
        member.spawn(_await(task))
    while not is_quorum(state.members, votes):
        if all(task.done() for task in asked) or _gone(member, state.r, attempt):
            raise _Conceded(f"no quorum of votes: {'; '.join(refusals)}")
        await member.changed.wait(member.period_s())
    certificate = ballot.Certificate(state.r, attempt, entry_digest(entry), tuple(votes[p] for p in sorted(votes)))
    return swarm_pb2.CertifiedEntry(entry=entry, certificate=records.certificate_bytes(certificate)).SerializeToString()


async def _await(task: asyncio.Future[None]) -> None:
    await task
