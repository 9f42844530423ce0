"""Who does not speak any more: its leader asks, and a connection that is refused counts at once, where silence takes its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from decentra.errors import PeerError, PeerUnreachable
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

REFUSALS_TO_ABSENCE = 2
PERIODS_TO_ASK = 3


@dataclass(slots=True)
class Absence:
    """refusals: how often in a row a member could not be reached since it last spoke. asking: those that are being asked now."""

    refusals: dict[PeerId, int] = field(default_factory=dict)
    asking: set[PeerId] = field(default_factory=set)

    def is_gone(self, peer: PeerId) -> bool:
        """Whether nobody answers for this peer: its process has ended, or none can reach its machine from here."""
        return self.refusals.get(peer, 0) >= REFUSALS_TO_ABSENCE

    def spoke(self, peer: PeerId) -> None:
        """A word of the peer came."""
        self.refusals.pop(peer, None)


def ask_after(member: Member, start_s: float) -> None:
    """Ask the members that this leader, at work since `start_s`, should have heard by now."""
    for peer in member.within_reach(member.state.peers()):
        beat = member.beats.get(peer)
        spoke_s, gap_s = (start_s, 0.0) if beat is None else (max(start_s, beat.time_s), beat.period_s)
        overdue = member.now() - spoke_s > PERIODS_TO_ASK * max(member.period_s(), gap_s)
        if overdue and peer not in member.absence.asking and not member.absence.is_gone(peer):
            member.absence.asking.add(peer)
            member.spawn(_ask(member, peer))


async def _ask(member: Member, peer: PeerId) -> None:
    absence = member.absence
    try:
        await member.call(peer, rounds_pb2.Request(head=state_pb2.HeadQuery()), member.silence_s())
    except PeerUnreachable:
        absence.refusals[peer] = absence.refusals.get(peer, 0) + 1
        member.changed.notify()
    except PeerError:
        pass
    finally:
        absence.asking.discard(peer)
