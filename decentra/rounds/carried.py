"""What a replica carries of its lease that no entry has counted yet. Pure.

The next offer claims it all, from the front of the lease. With one fragment a replica whose offer was left out starts at the
anchor, so nothing is carried from one sync to the next; with more, samples that were left out of one sync go into the next
fragment's offer. A slot takes over the fragment of one sync, so a replica that has two to take over starts at the anchor too.

Where merges are eager, a fragment goes on from a provisional point of the replica's own instead of the agreed anchor. That is then
the base of its next contribution, else the last one would be sent twice; it is forgotten with the replica, or once its sync
has left this replica out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from decentra.types import SlotPlan, SlotResult


@dataclass(slots=True)
class Carried:
    """samples, tokens, steps: trained and not counted, a prefix of the lease. fresh: the next slot starts at the anchor as a whole.

    num_fragments, overlaps: of the run; overlaps where a slot begins before the last sync is decided. counted: whether the last
    sync counted this replica's offer. behind: syncs decided that no slot of this replica has taken over and ended since.
    points: by fragment, (n,) fp32, the provisional point that it went on from last; point_sync: the sync that the newest is of.
    """

    num_fragments: int
    overlaps: bool = False
    counted: bool = False
    samples: int = 0
    tokens: int = 0
    steps: int = 0
    behind: int = 0
    fresh: bool = True
    points: dict[int, torch.Tensor] = field(default_factory=dict)
    point_sync: int = -1

    def took(self, plan: SlotPlan, result: SlotResult | None) -> None:
        """A slot has ended; None: it was abandoned, and what the replica holds is not known."""
        if result is None:
            self.restart()
            return
        if plan.fresh:
            self.samples = self.tokens = self.steps = 0
        self.samples += result.num_samples
        self.tokens += result.num_tokens
        self.steps += result.num_steps
        self.behind, self.fresh = 0, False

    def goes_on_from(self, sync: int, point: torch.Tensor) -> None:
        """A provisional point was made of this replica's contribution to a sync."""
        self.points[sync % self.num_fragments], self.point_sync = point, sync

    def decided(self, counted: bool, fragment: int = 0) -> None:
        """A sync of a fragment was committed, with this replica's offer among the counted ones or not."""
        self.counted, self.behind = counted, self.behind + 1
        if counted:
            self.samples = self.tokens = self.steps = 0
        else:
            self.points.pop(fragment, None)
            self.point_sync = -1
        if self.behind > 1 or (self.num_fragments == 1 and not (counted and self.overlaps)):
            self.restart()

    def restart(self) -> None:
        """Start at the anchor again: after a re-sync, outside the view, with one fragment after a sync that left this replica out."""
        self.samples = self.tokens = self.steps = self.behind = 0
        self.fresh, self.point_sync = True, -1
        self.points.clear()
