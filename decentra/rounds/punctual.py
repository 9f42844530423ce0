"""A member and the time of its slots: it begins where the others are, and says where a slot by time cannot be what it should."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from decentra.ledger import intervals
from decentra.rounds.phase import LEAST_SHARE
from decentra.types import SlotResult

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def land(member: Member, share_done: float) -> None:
    """A member that came to the due sync after the others begins where they are, or sits it out where too little is left.

    share_done: how far they are with their slots. Asked once, when they are first heard, and waited for before a slot begins.
    """
    if not member.came_back:
        return
    member.came_back = False
    if member.own is not None or member.slot_sync == member.state.sync:
        return
    outer = member.run.config.outer
    member.phase.lands(share_done, member.now(), outer.budget_s)
    # Others who begin their slots ahead are as far in every round: who comes to it then takes one step at least.
    if share_done > 1.0 - LEAST_SHARE and not outer.ahead_steps:
        member.ports.note(f"sync {member.state.sync}: the others have done {share_done:.0%} of it; this node sits it out")
        member.sits_out_sync = max(member.sits_out_sync, member.state.sync)
    member.changed.notify()


def mind_step_time(member: Member, result: SlotResult) -> None:
    """Note what a step takes here; say so where the run's budget is shorter."""
    if not result.num_steps:
        return
    first, budget_s = not member.phase.step_s, member.run.config.outer.budget_s
    member.phase.step_s = step_s = result.compute_s / result.num_steps
    if first and 0.0 < budget_s < step_s:
        member.ports.note(
            f"outer.budget_s = {budget_s:g} is shorter than an inner step of this machine, which takes one a sync; "
            f"with {math.ceil(step_s * 1000) / 1000:g} at least it fits"
        )


def mind_lease(member: Member, sync: int) -> None:
    """Say so where a slot by time has ended because there was nothing left to train on."""
    lease = intervals.total(member.state.leases.get(member.peer, ()))
    if member.run.config.outer.sync == "time" and lease - member.carried.samples < member.run.config.inner.batch_samples:
        member.say_once(f"sync {sync}: the lease of {lease} samples ran dry before the time did; the next is twice what this node claims")
