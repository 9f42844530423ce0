"""A seeded storm: which fault strikes which node when, so that those left are a quorum. Pure: it is told the time and what is seen."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """What can happen to a process."""

    KILL = "kill"
    STOP = "stop"
    WAKE = "wake"
    RESTART = "restart"


class Standing(enum.StrEnum):
    """How a node stands: UP takes part in the round; COMING runs, but is not in the view at the newest entry yet."""

    UP = "up"
    COMING = "coming"
    ASLEEP = "asleep"
    DEAD = "dead"


STRIKES = (Kind.KILL, Kind.STOP, Kind.RESTART)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done to one node, by its number."""

    kind: Kind
    node: int


@dataclass(slots=True)
class Storm:
    """Strikes every `period_s`: a kill, a stop, or the restart of a dead node; sleepers wake after `sleep_s`.

    What strike number k wants comes from the seed and k alone; what is not possible then (it would cost the quorum, or nobody
    is dead) gives way to the next kind that the seed drew, so the same seed gives the same storm to the same answers.
    """

    seed: int
    period_s: float = 15.0
    sleep_s: float = 20.0
    strikes: int = 0
    asleep_since_s: dict[int, float] = field(default_factory=dict)

    def due(self, now_s: float, standings: Mapping[int, Standing], view_size: int) -> list[Fault]:
        """What to do now, `now_s` after the storm began. view_size: members that the newest entry names."""
        faults = [Fault(Kind.WAKE, node) for node, since_s in self.asleep_since_s.items() if now_s >= since_s + self.sleep_s]
        for fault in faults:
            del self.asleep_since_s[fault.node]
        if now_s >= (self.strikes + 1) * self.period_s:
            self.strikes += 1
            struck = self._strike(standings, view_size)
            if struck is not None and struck.kind is Kind.STOP:
                self.asleep_since_s[struck.node] = now_s
            faults += [struck] if struck is not None else []
        return faults

    def _strike(self, standings: Mapping[int, Standing], view_size: int) -> Fault | None:
        rng = random.Random(f"{self.seed}/{self.strikes}")
        dead = [node for node in sorted(standings) if standings[node] is Standing.DEAD]
        targets = {Kind.RESTART: dead, Kind.KILL: can_fall(standings, view_size)}
        targets[Kind.STOP] = targets[Kind.KILL]
        for kind in rng.sample(STRIKES, len(STRIKES)):
            if targets[kind]:
                return Fault(kind, rng.choice(targets[kind]))
        return None

    def calm(self, standings: Mapping[int, Standing]) -> list[Fault]:
        """What ends the storm: the sleeping wake, the dead are started again."""
        self.asleep_since_s.clear()
        ends = {Standing.ASLEEP: Kind.WAKE, Standing.DEAD: Kind.RESTART}
        return [Fault(ends[standing], node) for node, standing in sorted(standings.items()) if standing in ends]


def can_fall(standings: Mapping[int, Standing], view_size: int) -> list[int]:
    """Nodes without any one of which more than half of the view is still up."""
    up = [node for node in sorted(standings) if standings[node] is Standing.UP]
    return up if 2 * (len(up) - 1) > view_size else []
