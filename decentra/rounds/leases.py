"""What an entry returns and grants: a pure rule, so every validator computes the same."""

from __future__ import annotations

from collections.abc import Sequence

from decentra.ledger import intervals
from decentra.ledger.state import Member, State, Transition
from decentra.types import Intervals, PeerId


def settle(
    state: State, claims: dict[PeerId, Intervals], removed: Sequence[PeerId], next_members: Sequence[Member], least: int = 0
) -> Transition:
    """Claims, returns and grants of an entry, in the order in which apply takes them.

    A lease is topped up to twice its member's last counted claim, never below the announced rate or `least`.

    claims: prefixes of leases, by sender. next_members: the view after the entry, without this entry's claims noted.
    """
    leases = {peer: lease for peer, lease in state.leases.items() if lease}
    claims = {peer: claim for peer, claim in claims.items() if claim}
    for peer, claim in claims.items():
        leases[peer] = intervals.split(leases.get(peer, ()), intervals.total(claim))[1]
    pool, returned = state.pool, {}
    for peer in sorted(removed):
        if lease := leases.pop(peer, ()):
            returned[peer] = lease
            pool = intervals.join(pool, lease)
    fresh, granted = state.fresh_sample, {}
    for member in next_members:
        last = intervals.total(claims[member.peer]) if member.peer in claims else member.last_claim_samples
        need = max(2 * last, member.announced_samples, least) - intervals.total(leases.get(member.peer, ()))
        if need > 0:
            from_pool, pool = intervals.split(pool, need)
            missing = need - intervals.total(from_pool)
            granted[member.peer] = intervals.join(from_pool, ((fresh, fresh + missing),))
            fresh += missing
    return Transition(claims, returned, granted)
