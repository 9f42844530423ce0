"""Where peers stand: a node's own head, and the heads of all who can be asked, read and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decentra.errors import PeerError, PeerFault
from decentra.ledger.state import Fork
from decentra.ledger.state import Member as ViewMember
from decentra.rounds import records
from decentra.rounds.forks import open_forks
from decentra.rounds.view import is_quorum
from decentra.types import Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

ANSWER_PERIODS = 4
"""Heartbeat periods that a head is waited for."""

MAX_ASKED = 512


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a peer says it stands. acting: it has lately heard a quorum of its view."""

    peer: PeerId
    incarnation: int
    lineage: str
    forks: tuple[Fork, ...]
    r: int
    state_hash: Digest
    tokens: int
    acting: bool
    view: tuple[ViewMember, ...]

    def in_view_of(self, view: Iterable[ViewMember]) -> bool:
        """Whether this very incarnation is a member of a view."""
        return any(m.peer == self.peer and m.incarnation == self.incarnation for m in view)


def oldest_entry(member: Member) -> int:
    """The first entry that can still be replayed from here: blobs are kept since the oldest snapshot."""
    store = member.ports.store
    return max(store.oldest_entry(), min(store.snapshots(), default=0))


def is_acting(member: Member) -> bool:
    """Whether this node is a member of its view and hears a quorum of it."""
    leads = member.leading and is_quorum(member.state.members, member.heard())
    return member.in_view() and (leads or member.now() - member.quorum_s <= member.silence_s())


def head_of(member: Member) -> state_pb2.Head:
    """What this node answers who asks where it stands."""
    state = member.state
    return state_pb2.Head(
        r=state.r,
        state_hash=member.hash,
        oldest_entry=oldest_entry(member),
        view=[records.to_member(m) for m in state.members],
        lineage=bytes.fromhex(state.lineage),
        forced=[records.to_signed(bytes.fromhex(fork.signed)) for fork in state.forks],
        tokens=state.tokens,
        incarnation=member.me.incarnation,
        acting=is_acting(member),
    )


def read(member: Member, peer: PeerId, head: state_pb2.Head) -> Seen:
    """A peer's head, its forced views verified. Raises PeerFault."""
    try:
        run, signed = member.run, [each.SerializeToString() for each in head.forced]
        forks = open_forks(member.ports.verifier, run.operator_keys, run.run_id, signed)
        view = tuple(records.of_member(m) for m in head.view)
    except ValueError as error:
        raise PeerFault(peer, f"its head does not hold: {error}") from error
    name = forks[-1].name if forks else ""
    if name != head.lineage.hex():
        raise PeerFault(peer, f"its head names lineage {head.lineage.hex()[:8]}, its forced views lead to {name[:8] or 'the first'}")
    return Seen(peer, head.incarnation, name, forks, head.r, head.state_hash, head.tokens, head.acting, view)


async def ask(member: Member, peer: PeerId) -> Seen:
    """Where a peer stands. Raises PeerError."""
    request = rounds_pb2.Request(head=state_pb2.HeadQuery())
    return read(member, peer, (await member.call(peer, request, ANSWER_PERIODS * member.period_s())).head)


async def survey(member: Member, peers: Collection[PeerId]) -> list[Seen]:
    """Where these peers, the members of this node's view and of theirs stand, as far as they answer; this node first."""
    seen = [read(member, member.peer, head_of(member))]
    asked, due = {member.peer}, {*peers, *member.state.peers()} - {member.peer}
    while due and len(asked) < MAX_ASKED:
        now = sorted(due)[: MAX_ASKED - len(asked)]
        answers = await asyncio.gather(*(_ask_quietly(member, peer) for peer in now))
        asked.update(now)
        found = [answer for answer in answers if answer is not None]
        seen += found
        due = {m.peer for each in found if each.lineage != member.state.lineage for m in each.view} - asked
    return seen


async def _ask_quietly(member: Member, peer: PeerId) -> Seen | None:
    try:
        return await ask(member, peer)
    except PeerFault as fault:
        member.ports.note(str(fault))
    except PeerError:
        pass
    return None
