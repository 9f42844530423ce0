"""What a leader makes of what it hears: whether the sync may close, and the entry with its next view, map and leases."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decentra.codec.base import num_blocks
from decentra.ledger.entry import Counted, Entry, Sum
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import Part, next_members
from decentra.rounds import leases
from decentra.rounds.contribute import progress, sits_out
from decentra.rounds.flows import names
from decentra.rounds.offers import (
    Offer,
    close_deadline_s,
    gathered,
    half_offered,
    head_start_s,
    heartbeat_period_s,
    held_everywhere,
    median_share,
)
from decentra.rounds.owner import owned
from decentra.rounds.partition import next_parts, owners_of
from decentra.rounds.status import link_says
from decentra.rounds.view import admissible, next_view_stands, overdue
from decentra.types import PeerId

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def deadline_s(member: Member, start_s: float, attempt: int) -> float:
    """When stragglers are waited for no longer: never, until half have offered."""
    state, outer = member.state, member.run.config.outer
    if not state.started(member.run.config.start_members) or not half_offered(state.expected(), member.book.offers):
        return math.inf
    member.mark("half")
    half_s = member.marks["half"]
    begun_s, took_s = max(half_s, start_s), half_s - member.round_start_s
    took_s += head_start_s(took_s, member.ahead_s, outer.ahead_steps, outer.slot_steps)
    return close_deadline_s(begun_s - took_s, begun_s, attempt)


def closable(member: Member, heard: tuple[PeerId, ...], settled: bool) -> tuple[tuple[Part, ...], list[Offer], bool]:
    """(map, offers held whole, whether everyone waited for has offered and is held, or nobody will offer in this sync).

    settled: silence has had time to show. Then members not heard are not waited for, nor the parts that they offered, and
    this leader reduces the parts of silent owners itself, for what it holds it knows; those of an owner that failed, at once.
    Who cannot be reached at all is not waited for either way.
    """
    state = member.state
    if not state.started(member.run.config.start_members):
        member.wait(f"{member.run.config.start_members - len(state.members)} more members to start")
        return state.parts, [], False
    missing = {p for p in state.peers() if p not in heard and (settled or member.absence.is_gone(p))}
    silent = {p.owner for p in state.parts if p.owner in missing or p.owner in member.failing}
    parts = state.parts
    if silent:
        parts = tuple(dataclasses.replace(p, owner=member.peer) if p.owner in silent else p for p in parts)
        member.takes_over = tuple(p for p, before in zip(parts, state.parts, strict=True) if p != before)
    held = {p: b.held for p, b in member.beats.items()}
    held[member.peer] = frozenset(o.root for o in member.book.offers.values() if member.parts.holds(o.root, owned(member)))
    if member.run.machine.gather:
        ready = gathered(member.book.offers, held, member.peer, heard)
    else:
        ready = held_everywhere(member.book.offers, parts, held)
    expected = [p for p in state.expected() if p not in missing]
    awaited = [p for p in expected if p not in member.book.offers and not _sits_out(member, p)]
    unheld = [o.sender for o in member.book.offers.values() if o not in ready and o.sender not in missing]
    if awaited:
        steps = [(member.beats[p].num_steps - member.beats[p].steps_done, p) for p in awaited if p in member.beats]
        behind = max(steps, default=(0, awaited[0]))
        member.wait(f"offers of {names(tuple(awaited))}", f"{behind[1][:8]} has {behind[0]} steps to go")
    elif unheld:
        roots = [member.book.offers[sender].root for sender in unheld]
        lacking = dict.fromkeys(p.owner for p in parts if any(root not in held.get(p.owner, ()) for root in roots))
        member.wait(f"owners to hold the parts of {names(tuple(unheld))}: {names(tuple(lacking))}", link_says(member))
    return parts, ready, not awaited and not unheld


def period_s(member: Member) -> float:
    """How soon this leader wants to be spoken to again."""
    if not (member.leading and member.collecting):
        return 0.0
    training = [(b.steps_done, b.num_steps) for p, b in member.beats.items() if p not in member.book.offers]
    if member.own is None:
        training.append(progress(member))
    return heartbeat_period_s(member.now() - member.round_start_s, training)


def share_done(member: Member) -> float:
    """How far the members that this leader hears are with the due slot, this node left out."""
    others = [p for p in member.heard() if p != member.peer and p in member.state.expected()]
    offered = [p for p in others if p in member.book.offers]
    training = [p for p in others if p not in member.book.offers and not _sits_out(member, p)]
    return median_share(len(offered), [(member.beats[p].steps_done, member.beats[p].num_steps) for p in training])


def _sits_out(member: Member, peer: PeerId) -> bool:
    if peer == member.peer:
        return sits_out(member) or member.leaving
    beat = member.beats.get(peer)
    return beat is not None and (beat.sits_out or beat.leaving)


def _movers(member: Member) -> tuple[list[ViewMember], list[PeerId]]:
    """(newcomers that are ready at this state, members that want to go), as heard lately."""
    fresh = {p: b for p, b in member.beats.items() if member.is_fresh(b)}
    newcomers = [fresh[p].member for p in sorted(fresh) if fresh[p].newcomer and not fresh[p].leaving]
    leavers = [p for p in sorted(fresh) if fresh[p].leaving and not fresh[p].newcomer and p in member.state.peers()]
    if member.leaving:
        leavers.append(member.peer)
    return newcomers, leavers


@dataclass(frozen=True, slots=True)
class _NextView:
    removed: tuple[PeerId, ...]
    admitted: tuple[ViewMember, ...]
    members: tuple[ViewMember, ...]


def _next_view(member: Member, heard: tuple[PeerId, ...], is_sync: bool, newcomers: list[ViewMember], leavers: list[PeerId]) -> _NextView:
    """Who goes and who comes; as many newcomers as the view stands with."""
    state, start_members = member.state, member.run.machine.start_members
    late = overdue(state, heard, is_sync)
    gone = {*leavers, *late}
    admitted = admissible(next_members(state, is_sync, heard, tuple(gone), (), start_members), heard, newcomers)
    replaced = {m.peer for m in admitted if m.peer in state.peers()}
    removed = tuple(sorted(gone | replaced))
    return _NextView(removed, admitted, next_members(state, is_sync, heard, removed, admitted, start_members))


def entry(member: Member, heard: tuple[PeerId, ...], sync: int | None, counted: tuple[Counted, ...], sums: tuple[Sum, ...]) -> Entry | None:
    """The entry with its view, map and leases; None where it would change nothing or its next view cannot stand."""
    state, machine, is_sync = member.state, member.run.machine, sync is not None
    newcomers, leavers = _movers(member)
    heard = tuple(p for p in heard if p not in [m.peer for m in newcomers])
    for going in (leavers, []):
        view = _next_view(member, heard, is_sync, newcomers, going)
        alive = {p for p in heard if p not in view.removed} | {m.peer for m in view.admitted}
        if next_view_stands(view.members, heard, {m.peer for m in view.admitted}) and owners_of(view.members, alive):
            break
    else:
        return None
    if not is_sync and not view.admitted and not view.removed:
        return None
    blocks = num_blocks(machine.fragments[(state.sync + is_sync) % len(machine.fragments)].num_chunks)
    recut = is_sync or not state.started(machine.start_members)
    settled = leases.settle(state, {c.sender: c.claim for c in counted}, view.removed, view.members)
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
        admitted=view.admitted,
        removed=view.removed,
        returned=settled.returned,
        granted=settled.granted,
        next_parts=next_parts(state.parts, view.members, alive, blocks, recut),
    )
