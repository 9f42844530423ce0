"""Whom a member believes when it says that it is ahead: who led it nowhere is not followed again for a while. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from decentra.types import PeerId

MAX_DOUBLINGS = 4


@dataclass(slots=True)
class Chases:
    """Per peer that led nowhere: (until when it is not believed, how often in a row it led nowhere)."""

    vain: dict[PeerId, tuple[float, int]] = field(default_factory=dict)

    def believes(self, donor: PeerId, now_s: float) -> bool:
        """Whether to catch up from a donor that says it is ahead."""
        return now_s >= self.vain.get(donor, (0.0, 0))[0]

    def ended(self, donor: PeerId, gained: bool, now_s: float, pause_s: float) -> None:
        """A chase is over; in vain, the donor is not believed for `pause_s`, twice that the next time, up to 16 times."""
        if gained:
            self.vain.pop(donor, None)
            return
        _, times = self.vain.get(donor, (0.0, 0))
        self.vain[donor] = (now_s + pause_s * (1 << min(times, MAX_DOUBLINGS)), times + 1)

    def keep_only(self, peers: Collection[PeerId]) -> None:
        """Forget who is not among these peers."""
        self.vain = {peer: what for peer, what in self.vain.items() if peer in peers}
