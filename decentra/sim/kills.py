"""Whom the demo kills, and when: the leader or a reducer of a round, between its offers and its commit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Status = Mapping[str, Any]

ROLES = ("leader", "reducer")
MID_ROUND = ("transfer", "reduce", "ballot")


@dataclass(frozen=True, slots=True)
class Kill:
    """A peer to kill in mid-round once `at_sync` outer steps are committed. role: leader, or reducer, an owner that does not lead."""

    role: str
    at_sync: int


def kills(roles: Sequence[str], join_at: int, rounds: int) -> tuple[Kill, ...]:
    """These roles' kills spread over the syncs after the late join, each before the last."""
    left = rounds - join_at
    return tuple(Kill(role, min(rounds - 1, join_at + max(1, left * (n + 1) // (len(roles) + 1)))) for n, role in enumerate(roles))


def victim(role: str, statuses: Sequence[Status], spared: Collection[str]) -> Status | None:
    """Who is to die now, by what the peers tell, with the phase as the leader sees it.

    None while no round is in its middle, and where those left would be no quorum.
    """
    newest = max((s["entry"] for s in statuses), default=0)
    here = [s for s in statuses if s["entry"] == newest and s["in_view"]]
    leaders = [s for s in here if s["leading"] and s["phase"] in MID_ROUND and s["offers"] > 1]
    if not leaders or 2 * (len(here) - 1) <= len(leaders[0]["view"]):
        return None
    chosen = leaders if role == "leader" else [s for s in here if s["owns"] and not s["leading"]]
    return next(({**s, "phase": leaders[0]["phase"]} for s in chosen if s["peer"] not in spared), None)
