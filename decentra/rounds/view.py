"""Views: quorums, the order of leaders, which next views are valid. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from decentra.ledger.chain import digest
from decentra.ledger.state import UNHEARD_SYNCS_TO_REMOVE, Member, State
from decentra.types import Digest, PeerId

FEW_DIALABLE = 3
MAX_ANNOUNCED_SAMPLES = 1 << 24
MAX_RATE_BYTES_PER_S = 1 << 40
MAX_INCARNATION = 1 << 63


def announcement_fault(member: Member) -> str:
    """Why a node may not be a member with these numbers; "" where it may: leases and the partition are made from them."""
    if not 0 < member.announced_samples <= MAX_ANNOUNCED_SAMPLES:
        return f"{member.peer[:8]} announces {member.announced_samples} samples a sync, not 1 to {MAX_ANNOUNCED_SAMPLES}"
    if max(member.up_bytes_per_s, member.down_bytes_per_s) > MAX_RATE_BYTES_PER_S:
        rates = f"{member.up_bytes_per_s} bytes/s up and {member.down_bytes_per_s} down"
        return f"{member.peer[:8]} announces {rates}, over {MAX_RATE_BYTES_PER_S}"
    return "" if member.incarnation < MAX_INCARNATION else f"{member.peer[:8]} announces incarnation {member.incarnation}"


def is_quorum(members: Sequence[Member], peers: Collection[PeerId]) -> bool:
    """More than half of the view, or exactly half including its oldest member."""
    present = sum(1 for m in members if m.peer in peers)
    if 2 * present > len(members):
        return True
    return bool(members) and 2 * present == len(members) and members[0].peer in peers


def leader_order(state_hash: Digest, members: Sequence[Member]) -> tuple[PeerId, ...]:
    """The order in which members lead the attempts of a round: seeded by h_r, members that can be dialled only."""
    dialable = [m.peer for m in members if m.dialable]
    return tuple(sorted(dialable, key=lambda peer: digest("decentra/leader", state_hash, peer.encode())))


def dialable_shortage(members: Sequence[Member]) -> str:
    """What to say of a view that stands on few members that can be dialled; "" where there is nothing to say."""
    dialable = [m.peer for m in members if m.dialable]
    if len(dialable) >= min(FEW_DIALABLE, len(members)):
        return ""
    names = ", ".join(peer[:8] for peer in dialable)
    few = f"only {len(dialable)} of {len(members)} members can be dialled ({names})"
    return f"{few}: the run waits when they are gone; open the port of another"


def overdue(state: State, heard: Collection[PeerId], is_sync: bool) -> tuple[PeerId, ...]:
    """Members to remove: unheard for three syncs, this one included."""
    if not is_sync:
        return ()
    return tuple(m.peer for m in state.members if m.peer not in heard and m.unheard_syncs + 1 >= UNHEARD_SYNCS_TO_REMOVE)


def next_view_stands(members: Sequence[Member], heard: Collection[PeerId], newcomers: Collection[PeerId]) -> bool:
    """Whether the members known to be alive can go on in this next view: they form its quorum and one can be dialled.

    members: of the next view. heard: members of the present view that answered this attempt. newcomers: admitted now.
    """
    staying = [m.peer for m in members if m.peer in heard and m.peer not in newcomers]
    return is_quorum(members, staying) and any(m.dialable for m in members if m.peer in staying)


def admissible(
    staying: Sequence[Member], heard: Collection[PeerId], newcomers: Sequence[Member]
) -> tuple[Member, ...]:
    """As many newcomers as the next view stands with, who come back first, else in their order; a storm at most doubles the view.

    staying: members of the next view, but for former selves of the newcomers, which these replace.
    """
    members = {m.peer for m in staying}
    ordered = sorted(newcomers, key=lambda m: m.peer not in members)
    for count in range(len(ordered), 0, -1):
        chosen = {m.peer: m for m in ordered[:count]}
        if next_view_stands((*(m for m in staying if m.peer not in chosen), *chosen.values()), heard, chosen):
            return tuple(chosen.values())
    return ()
