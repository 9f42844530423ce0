"""Storms: seeded, never against the quorum, over with everybody up. Kills of the demo: in the middle of a round only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra.sim.faults import Fault, Kind, Standing, Storm, can_fall
from decentra.sim.kills import Kill, kills, victim

AFTER = {Kind.KILL: Standing.DEAD, Kind.STOP: Standing.ASLEEP, Kind.WAKE: Standing.COMING, Kind.RESTART: Standing.COMING}
BACK_S = 12.0
"""How long the nodes of these tests take to be up again."""


class Sky:
    """Nodes that obey a storm, and come up again BACK_S after they were woken or restarted."""

    def __init__(self, num_nodes: int) -> None:
        self.standings = dict.fromkeys(range(num_nodes), Standing.UP)
        self.coming_since_s: dict[int, float] = {}
        self.faults: list[tuple[float, Fault]] = []

    def second(self, storm: Storm, now_s: float) -> None:
        for node, since_s in list(self.coming_since_s.items()):
            if now_s >= since_s + BACK_S:
                self.standings[node] = Standing.UP
                del self.coming_since_s[node]
        for fault in storm.due(now_s, self.standings, len(self.standings)):
            self.strike(fault, now_s)

    def strike(self, fault: Fault, now_s: float) -> None:
        before = self.standings[fault.node]
        assert before is {Kind.WAKE: Standing.ASLEEP, Kind.RESTART: Standing.DEAD}.get(fault.kind, Standing.UP)
        self.standings[fault.node] = AFTER[fault.kind]
        if fault.kind in (Kind.WAKE, Kind.RESTART):
            self.coming_since_s[fault.node] = now_s
        self.faults.append((now_s, fault))

    def num_up(self) -> int:
        return sum(standing is Standing.UP for standing in self.standings.values())


def weather(seed: int, num_nodes: int, seconds: int) -> Sky:
    storm, sky = Storm(seed), Sky(num_nodes)
    for second in range(seconds):
        sky.second(storm, float(second))
        assert 2 * sky.num_up() > num_nodes, f"no quorum is left at {second} s: {sky.standings}"
    for fault in storm.calm(sky.standings):
        sky.strike(fault, float(seconds))
    assert {Standing.DEAD, Standing.ASLEEP} & set(sky.standings.values()) == set()
    return sky


@given(seed=st.integers(0, 2**32), num_nodes=st.integers(1, 9))
def test_a_quorum_is_up_at_every_moment_and_nobody_stays_down(seed: int, num_nodes: int) -> None:
    weather(seed, num_nodes, 200)


def test_ten_minutes_strike_every_fifteen_seconds_with_everything() -> None:
    sky = weather(4, 8, 600)
    struck = [(at_s, fault) for at_s, fault in sky.faults[:-8] if fault.kind is not Kind.WAKE]
    assert len(struck) >= 30 and all(at_s % 15 == 0 for at_s, _ in struck)
    assert {fault.kind for _, fault in sky.faults} == set(Kind)
    assert len({fault.node for _, fault in struck}) == 8


def test_sleepers_wake_after_their_sleep() -> None:
    faults = weather(4, 8, 600).faults
    for at_s, fault in faults:
        if fault.kind is Kind.STOP:
            woken = min(s for s, other in faults if other == Fault(Kind.WAKE, fault.node) and s > at_s)
            assert woken == min(at_s + 20, 600)


def test_the_same_seed_is_the_same_storm_and_another_is_another() -> None:
    assert weather(7, 8, 300).faults == weather(7, 8, 300).faults != weather(8, 8, 300).faults


def test_who_is_not_up_or_not_in_the_view_does_not_count() -> None:
    standings = {0: Standing.UP, 1: Standing.UP, 2: Standing.UP, 3: Standing.COMING, 4: Standing.DEAD}
    assert can_fall(standings, 5) == []
    assert can_fall(standings, 3) == [0, 1, 2]
    assert can_fall(dict.fromkeys(range(4), Standing.UP), 4) == [0, 1, 2, 3]
    assert can_fall(dict.fromkeys(range(2), Standing.UP), 2) == []


# -- the demo's kills ---------------------------------------------------------------------------------------------------


def statuses(phase: str = "reduce", offers: int = 3) -> list[dict[str, object]]:
    """Four members; b leads, b and c own parts."""
    common = {"entry": 9, "in_view": True, "view": ["a", "b", "c", "d"], "phase": "train", "offers": offers}
    told = [{**common, "peer": peer, "leading": peer == "b", "owns": [2] if peer in "bc" else []} for peer in "abcd"]
    told[1]["phase"] = phase
    return told


@pytest.mark.parametrize("phase", ["transfer", "reduce", "ballot"])
def test_in_the_middle_of_a_round_its_leader_or_another_owner_is_chosen(phase: str) -> None:
    for role, peer in (("leader", "b"), ("reducer", "c")):
        chosen = victim(role, statuses(phase), ())
        assert chosen is not None and (chosen["peer"], chosen["phase"]) == (peer, phase)
        assert victim(role, statuses(phase), (peer,)) is None


def test_nobody_is_killed_before_the_offers_or_where_the_rest_is_no_quorum() -> None:
    assert victim("leader", statuses("train"), ()) is None
    assert victim("leader", statuses("ballot", offers=0), ()) is None, "an entry without contributions is no round of a sync"
    assert victim("leader", statuses()[:3], ()) is None
    assert victim("leader", [], ()) is None
    behind = [{**status, "entry": 8} if status["peer"] == "b" else status for status in statuses()]
    assert victim("leader", behind, ()) is None, "its round is over"


def test_kills_are_spread_over_the_syncs_after_the_late_join() -> None:
    assert kills(["leader", "reducer"], 6, 20) == (Kill("leader", 10), Kill("reducer", 15))
    assert kills(["leader"], 6, 20) == (Kill("leader", 13),)
    assert kills(["leader", "reducer"], 1, 3) == (Kill("leader", 2), Kill("reducer", 2))
    assert kills([], 6, 20) == ()
