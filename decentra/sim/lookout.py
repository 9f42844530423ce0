"""What a swarm of processes does, watched peer by peer: one that sleeps keeps nobody waiting. Remembers every commit and hash."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from decentra.node.status import Watcher
from decentra.node.wiring import Wiring
from decentra.sim.daemons import Daemon
from decentra.sim.faults import Standing
from decentra.sim.processes import ProcessSwarm

PERIOD_S = 1.0
FRESH_S = 10.0
"""A node that has not told its status for so long does not count as up."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A status, when it came, and the process that told it."""

    at_s: float
    pid: int
    status: dict[str, Any]


@dataclass(slots=True)
class Lookout:
    """Asks every daemon of a swarm for its status. Use as an async context.

    commits: sync -> when the first peer had applied it, on the machine's monotonic clock. chain: entry number r -> hashes h_r told.
    """

    swarm: ProcessSwarm
    wiring: Wiring
    seen: dict[int, Seen] = field(default_factory=dict)
    commits: dict[int, float] = field(default_factory=dict)
    chain: dict[int, set[str]] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    _asking: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _watcher: Watcher = field(init=False)

    async def __aenter__(self) -> Lookout:
        self._watcher = Watcher(self.wiring.decode_door(self.swarm.join_string), self.wiring)
        await self._watcher.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._watcher.__aexit__(kind, error, trace)

    def look(self) -> None:
        """See that every daemon is being asked. Raises what asking raised, and SetupError where a daemon ended by itself."""
        self.swarm.raise_early_ends()
        for daemon in self.swarm.daemons:
            task = self._asking.get(daemon.number)
            if task is not None and task.done():
                task.result()
            if task is None:
                self._asking[daemon.number] = asyncio.create_task(self._ask(daemon))

    async def _ask(self, daemon: Daemon) -> None:
        dialled = ""
        while True:
            pid, path = daemon.process.pid, daemon.state / "join.txt"
            string = path.read_text() if path.exists() else ""
            if string != dialled and await self._watcher.dial(self.wiring.decode_door(string)):
                dialled = string
            status = await self._watcher.status(daemon.peer()) if dialled else None
            if status is not None and pid == daemon.process.pid:
                self.take_in(daemon.number, Seen(time.monotonic(), pid, status))
            await asyncio.sleep(PERIOD_S)

    def take_in(self, number: int, seen: Seen) -> None:
        """Remember what a peer told."""
        self.seen[number] = seen
        self.losses |= {int(sync): loss for sync, loss in seen.status["heldout_loss"].items()}
        self.chain.setdefault(seen.status["entry"], set()).add(seen.status["state_hash"])
        for report in seen.status["rounds"]:
            self.chain.setdefault(report["entry"] + 1, set()).add(report["state_hash"])
            if report["sync"] is not None:
                self.commits[report["sync"]] = min(report["at_s"], self.commits.get(report["sync"], report["at_s"]))

    # -- what is known ----------------------------------------------------------------------------------------------

    def newest(self) -> dict[str, Any]:
        """The status of whoever is furthest."""
        return max((seen.status for seen in self.seen.values()), key=lambda status: int(status["entry"]))

    def standings(self) -> dict[int, Standing]:
        """How every node stands."""
        return {daemon.number: self._standing(daemon) for daemon in self.swarm.daemons}

    def _standing(self, daemon: Daemon) -> Standing:
        if not daemon.running():
            return Standing.DEAD
        if daemon.asleep:
            return Standing.ASLEEP
        seen = self.seen.get(daemon.number)
        if seen is None or seen.pid != daemon.process.pid or time.monotonic() - seen.at_s > FRESH_S:
            return Standing.COMING
        level = seen.status["entry"] >= self.newest()["entry"] - 1
        return Standing.UP if level and seen.status["in_view"] else Standing.COMING

    def rounds(self) -> int:
        """Syncs committed so far."""
        return max(self.commits, default=-1) + 1

    def agreed(self) -> tuple[int, str]:
        """(r, h_r) of the newest entry number of which every daemon tells, and tells the same; (-1, "") where there is none."""
        told = [{r["entry"] + 1: r["state_hash"] for r in seen.status["rounds"]} for seen in self.seen.values()]
        common = set.intersection(*(set(hashes) for hashes in told)) if len(told) == len(self.swarm.daemons) else set()
        newest = max(common, default=-1)
        hashes = {hashes[newest] for hashes in told if newest in hashes}
        return (newest, hashes.pop()) if len(hashes) == 1 else (-1, "")

    def forks(self) -> dict[int, set[str]]:
        """Entries after which peers told different hashes: there must be none."""
        return {r: hashes for r, hashes in self.chain.items() if len(hashes) > 1}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time between two commits: the syncs that followed its first commit, and its length."""

    rounds: int
    seconds: float


def window(commits: Sequence[float], start_s: float, stop_s: float) -> Window:
    """The window from the first commit after `start_s` to the first after `stop_s`: begun and ended by a commit, none is cut."""
    times = sorted(commits)
    first = next(n for n, at_s in enumerate(times) if at_s >= start_s)
    last = next(n for n, at_s in enumerate(times) if at_s >= stop_s)
    return Window(last - first, times[last] - times[first])


def rate(windows: Sequence[Window]) -> float:
    """Syncs a second over several windows."""
    return sum(w.rounds for w in windows) / sum(w.seconds for w in windows)


def longest_gap_s(commits: Sequence[float]) -> float:
    """The longest time between two commits."""
    return max((b - a for a, b in itertools.pairwise(sorted(commits))), default=0.0)
