"""Looking around: does any peer that can be reached stand in another lineage, or on another h_r at the same entry?

Rounds alone would not tell: who was removed from a view, or draws its leaders from another h_r, sends that view nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from decentra.errors import PeerError
from decentra.rounds import drift, heads, meeting
from decentra.types import PeerId

if TYPE_CHECKING:
    from decentra.rounds.member import Member

PERIODS_A_LOOK = 4


async def look_around(member: Member) -> None:
    """Ask one peer after another, members and strangers in turn, and at once whom a message has shown; until cancelled."""
    turn = 0
    while True:
        await _pause(member)
        peer, member.outlook.met = member.outlook.met, None
        if peer is None:
            peer, turn = _next(member, turn), turn + 1
        if peer is not None and member.outlook.crossing is None and member.outlook.suspect is None and not member.outlook.disputed:
            await _look(member, peer)


async def _pause(member: Member) -> None:
    """Until the next look is due, or sooner where a message has shown somebody."""
    soonest = member.now() + member.period_s()
    due = member.now() + PERIODS_A_LOOK * member.period_s()
    while (left := (soonest if member.outlook.met else due) - member.now()) > 0:
        await member.changed.wait(left)


def _next(member: Member, turn: int) -> PeerId | None:
    members = [p for p in member.state.peers() if p != member.peer]
    strangers = [p for p in member.outlook.known if p not in members]
    first, second = (members, strangers) if turn % 2 == 0 else (strangers, members)
    group = first or second
    return group[turn // 2 % len(group)] if group else None


async def _look(member: Member, peer: PeerId) -> None:
    try:
        seen = await heads.ask(member, peer)
    except PeerError:
        return
    state = member.state
    if seen.lineage != state.lineage:
        meeting.judge(member, await heads.survey(member, (peer,)))
    elif seen.r == state.r and seen.state_hash != member.hash and state.member(peer) is not None:
        drift.judge(member, await heads.survey(member, (peer,)))
        drift.noticed(member, peer, seen.state_hash)
    elif seen.r > state.r:
        member.fall_behind(peer, strangers=_is_forsaken(member))


def _is_forsaken(member: Member) -> bool:
    """Whether no quorum has been heard for long: the whole view that this node knows may have gone, and others come after it."""
    return not heads.is_acting(member) and member.now() - max(member.quorum_s, member.born_s) > 2 * member.silence_s()
