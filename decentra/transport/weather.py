"""What goes wrong on the links of a memory network: lateness, doubled requests, flipped bits. Drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from decentra.types import PeerId


@dataclass(slots=True)
class LinkWeather:
    """One direction of one link. Each message takes delay_s and up to jitter_s more, so that calls overtake one another.

    Shares are of messages: doubled_share of requests are handled twice, broken_share of control messages arrive damaged,
    spoiled_share of bulk frames leave with one bit flipped.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    doubled_share: float = 0.0
    broken_share: float = 0.0
    spoiled_share: float = 0.0


@dataclass(slots=True)
class Weather:
    """The weather of every link; fair where nothing else was set. Asked by MemoryNetwork for each message."""

    rng: random.Random
    links: dict[tuple[PeerId, PeerId], LinkWeather] = field(default_factory=dict)

    def on(self, sender: PeerId, receiver: PeerId) -> LinkWeather:
        """The weather from one peer to another, to be changed."""
        return self.links.setdefault((sender, receiver), LinkWeather())

    def clear(self) -> None:
        """Fair weather everywhere."""
        self.links.clear()

    def delay_s(self, sender: PeerId, receiver: PeerId) -> float:
        """How long a message takes to cross, beyond what the shapers of both ends charge."""
        link = self.links.get((sender, receiver))
        return 0.0 if link is None else link.delay_s + link.jitter_s * self.rng.random()

    def doubles(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether this request is handled twice."""
        link = self.links.get((sender, receiver))
        return link is not None and self._happens(link.doubled_share)

    def breaks(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether this control message arrives damaged."""
        link = self.links.get((sender, receiver))
        return link is not None and self._happens(link.broken_share)

    def spoiled(self, sender: PeerId, receiver: PeerId, frame: bytes) -> bytes:
        """The frame as it leaves its sender."""
        link = self.links.get((sender, receiver))
        if link is None or not frame or not self._happens(link.spoiled_share):
            return frame
        damaged = bytearray(frame)
        damaged[self.rng.randrange(len(frame))] ^= 1 << self.rng.randrange(8)
        return bytes(damaged)

    def _happens(self, share: float) -> bool:
        return share > 0.0 and self.rng.random() < share
