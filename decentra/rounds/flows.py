"""Bytes under way, for people: what is being pulled, from whom, how much is still to come and how fast it comes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from decentra.types import PeerId

WINDOW_S = 5.0
"""The rate now seen is the mean of this long."""


@dataclass(slots=True, eq=False)
class Flow:
    """One transfer. `peers` may change while it runs. recent: (time, bytes) of what came lately."""

    what: str
    peers: tuple[PeerId, ...]
    total_bytes: int
    begun_s: float
    done_bytes: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=deque)

    def moved(self, num_bytes: int, now_s: float) -> None:
        """Bytes came."""
        self.done_bytes += num_bytes
        self.recent.append((now_s, num_bytes))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self.recent and self.recent[0][0] < now_s - WINDOW_S:
            self.recent.popleft()

    def rate_bytes_per_s(self, now_s: float) -> float:
        """Mean of the last seconds."""
        self._forget(now_s)
        return sum(size for _, size in self.recent) / max(1e-3, min(WINDOW_S, now_s - self.begun_s))

    def sentence(self, now_s: float) -> str:
        """Phase, peers, bytes to come, rate."""
        to_come = (self.total_bytes - self.done_bytes) / 1e6
        rate = self.rate_bytes_per_s(now_s) / 1e6
        return f"{self.what} from {names(self.peers)}: {to_come:.2f} MB to come at {rate:.2f} MB/s"


class Flows:
    """The transfers of a node that are under way, in the order in which they began."""

    def __init__(self) -> None:
        self._running: dict[Flow, None] = {}

    @contextmanager
    def flow(self, what: str, peers: tuple[PeerId, ...], total_bytes: int, now_s: float) -> Iterator[Flow]:
        """A transfer, known for as long as the context lasts."""
        flow = Flow(what, peers, total_bytes, now_s)
        self._running[flow] = None
        try:
            yield flow
        finally:
            self._running.pop(flow)

    def sentences(self, now_s: float, at_least_s: float = 0.0, limit: int = 4) -> list[str]:
        """What is under way since `at_least_s`, the longest first."""
        found = [flow.sentence(now_s) for flow in self._running if now_s - flow.begun_s >= at_least_s]
        return [*found[:limit], f"{len(found) - limit} more transfers"] if len(found) > limit else found


def names(peers: tuple[PeerId, ...], limit: int = 4) -> str:
    """Short names of peers."""
    shown = ", ".join(peer[:8] for peer in peers[:limit]) or "nobody"
    return f"{shown} and {len(peers) - limit} more" if len(peers) > limit else shown
