"""What a lookout makes of what peers tell: commits, hashes, standings, rates. No process runs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from decentra.sim.faults import Standing
from decentra.sim.lookout import FRESH_S, Lookout, Seen, Window, longest_gap_s, rate, window


@dataclasses.dataclass
class FakeProcess:
    pid: int
    code: int | None = None


@dataclasses.dataclass
class FakeDaemon:
    number: int
    process: FakeProcess
    asleep: bool = False

    def running(self) -> bool:
        return self.process.code is None


@dataclasses.dataclass
class FakeSwarm:
    daemons: list[FakeDaemon]


def told(entry: int, hashes: str, in_view: bool = True) -> dict[str, Any]:
    """The status of a peer at `entry`; hashes: one letter after each entry so far, the last being its own."""
    rounds = [{"entry": r, "state_hash": h, "sync": r if r % 2 == 0 else None, "at_s": 10.0 * r} for r, h in enumerate(hashes)]
    return {"entry": entry, "state_hash": hashes[-1], "in_view": in_view, "rounds": rounds, "heldout_loss": {"0": 5.0}}


@pytest.fixture()
def lookout() -> Lookout:
    swarm = FakeSwarm([FakeDaemon(n, FakeProcess(100 + n)) for n in range(3)])
    return Lookout(swarm, None)  # type: ignore[arg-type]


def see(lookout: Lookout, number: int, status: dict[str, Any], ago_s: float = 0.0, pid: int = 0) -> None:
    lookout.take_in(number, Seen(time.monotonic() - ago_s, pid or 100 + number, status))


def test_standings_follow_what_was_last_told_by_the_present_process(lookout: Lookout) -> None:
    daemons = lookout.swarm.daemons
    for number in range(3):
        see(lookout, number, told(4, "abcd"))
    assert set(lookout.standings().values()) == {Standing.UP}
    see(lookout, 0, told(2, "ab"))
    see(lookout, 1, told(4, "abcd", in_view=False))
    see(lookout, 2, told(4, "abcd"), ago_s=2 * FRESH_S)
    assert set(lookout.standings().values()) == {Standing.COMING}
    see(lookout, 2, told(3, "abc"), pid=99)
    assert lookout.standings()[2] is Standing.COMING, "its former life told that"
    daemons[0].asleep, daemons[1].process.code = True, -9  # type: ignore[attr-defined]
    assert lookout.standings() == {0: Standing.ASLEEP, 1: Standing.DEAD, 2: Standing.COMING}


def test_commits_are_dated_by_who_applied_first_and_forks_are_seen(lookout: Lookout) -> None:
    late = told(4, "abcd")
    for report in late["rounds"]:
        report["at_s"] += 3.0
    see(lookout, 0, late)
    assert lookout.commits == {0: 3.0, 2: 23.0}
    see(lookout, 1, told(4, "abcd"))
    assert lookout.commits == {0: 0.0, 2: 20.0} and lookout.rounds() == 3 and lookout.losses == {0: 5.0}
    assert lookout.forks() == {} and lookout.agreed() == (-1, "")
    see(lookout, 2, told(3, "abc"))
    assert lookout.agreed() == (3, "c")
    see(lookout, 2, told(4, "abcX"))
    assert lookout.forks() == {4: {"d", "X"}} and lookout.agreed() == (-1, "")


def test_a_window_begins_and_ends_with_a_commit() -> None:
    commits = [5.0, 1.0, 9.0, 14.0, 20.0]
    assert window(commits, 4.0, 10.0) == Window(2, 9.0)
    assert window(commits, 5.0, 14.0) == Window(2, 9.0)
    assert rate([Window(2, 9.0), Window(1, 3.0)]) == 0.25
    assert longest_gap_s(commits) == 6.0 and longest_gap_s([]) == 0.0
    with pytest.raises(StopIteration):
        window(commits, 4.0, 21.0)
