"""Round traffic goes before state traffic: when a serving node lets a frame of low priority go. Pure.

Round traffic: contributions, and blobs of the entry that is due or the one before. State traffic: snapshots, files, older
blobs. While nothing of a round moves, state takes the whole link; else it gets a small fixed share, so that it is late but
never starved. All times are seconds of the caller's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LOW_SHARE = 1 / 16
"""Of the link, for all state streams together, while a round needs it."""

STALLED_S = 5.0
"""A round stream that sent nothing for so long waits for its receiver and does not need the link."""

PIN_S = 30.0
"""How long after its last byte a snapshot is still kept for whoever pulls it."""

CONGESTED_RATIO, CONGESTED_FLOOR_S = 2.0, 0.05
IDLE_DRIFT = 0.01
SMOOTHING = 0.2


@dataclass(slots=True)
class RoundTrip:
    """The control round trip, smoothed, and what it is when the link is idle: the least seen, which rises slowly."""

    now_s: float = 0.1
    idle_s: float = math.inf

    def saw(self, measured_s: float) -> None:
        """Take in one measurement."""
        first = math.isinf(self.idle_s)
        self.now_s = measured_s if first else self.now_s + SMOOTHING * (measured_s - self.now_s)
        self.idle_s = measured_s if first else min(measured_s, self.idle_s + IDLE_DRIFT * (self.now_s - self.idle_s))

    def congested(self) -> bool:
        """Whether control waits behind bulk: over twice the idle round trip, and noticeably."""
        return self.now_s > max(CONGESTED_RATIO * self.idle_s, self.idle_s + CONGESTED_FLOOR_S)


@dataclass(slots=True)
class Pacer:
    """What a node sends, by priority. round_streams: open ones; last_round_s: when a frame of one last went.

    next_low_s: when the next state frame may go though the link stays busy; frame_s: how long the last one took to leave.
    """

    round_streams: int = 0
    last_round_s: float = -math.inf
    next_low_s: float = -math.inf
    frame_s: float = 0.0

    def is_busy(self, now_s: float, quiet_s: float, trip: RoundTrip) -> bool:
        """Whether state has to step back. A pause of round traffic shorter than quiet_s, or than two state frames, is none."""
        limit_s = max(quiet_s, 2 * self.frame_s, STALLED_S if self.round_streams else 0.0)
        return now_s - self.last_round_s < limit_s or trip.congested()

    def low_turn_s(self, now_s: float, num_bytes: int, rate_bytes_per_s: float, busy: bool) -> float:
        """When a state frame asked for now may go though the link stays busy; frames asked for together queue up."""
        begin_s = max(self.next_low_s, now_s) if busy else now_s
        self.next_low_s = begin_s + num_bytes / (LOW_SHARE * rate_bytes_per_s)
        return self.next_low_s

    def low_sent(self, asked_s: float, now_s: float) -> None:
        """A state frame took this long: where that is more than the rate says, it is what the share is counted from."""
        self.frame_s = now_s - asked_s
        self.next_low_s = max(self.next_low_s, now_s + self.frame_s * (1 / LOW_SHARE - 1))


@dataclass(slots=True)
class Pins:
    """Snapshots that somebody is pulling, or replaying from: r -> when a byte last went."""

    touched_s: dict[int, float] = field(default_factory=dict)

    def touch(self, r: int, now_s: float) -> None:
        """Bytes of S_r, or of what follows it, go out."""
        self.touched_s = {kept: at_s for kept, at_s in self.touched_s.items() if now_s - at_s < PIN_S} | {r: now_s}

    def oldest(self, now_s: float) -> int | None:
        """The snapshot to keep; None where nobody pulls. First come, first served: the oldest."""
        return min((r for r, at_s in self.touched_s.items() if now_s - at_s < PIN_S), default=None)
