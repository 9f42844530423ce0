"""Where in its slot a member is to be: who comes late begins where the others are, and by time a slot ends with its budget. Pure.

All times are seconds of this machine's own clock; nobody's clock is compared with another's.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque
from dataclasses import dataclass, field

from decentra.config import OuterConfig
from decentra.types import SlotPlan

LEAST_SHARE = 0.125
"""Who would take a smaller share of a slot sits it out: its bytes cost the others as much as those of a whole one."""

ROUNDS_SEEN = 5
MOST_LEAD = 0.5
"""Of a budget: what encoding and upload may take of it. Where they take longer, offers come late rather than empty."""


@dataclass(slots=True)
class Phase:
    """began_s: when the due slot began, which is when the certificate of the last sync came. landed: the share of it that others
    had done when this member came to it; 0 for who was there from the beginning.

    last_s: how long the slot before was due, from certificate to certificate; 0: not known. step_s: what an inner step took in
    the last slot; 0: not known. leads_s: how long encoding and upload took in the last rounds.
    """

    began_s: float
    landed: float = 0.0
    last_s: float = 0.0
    step_s: float = 0.0
    leads_s: deque[float] = field(default_factory=lambda: deque(maxlen=ROUNDS_SEEN))

    def begins(self, now_s: float) -> None:
        """Another slot is due."""
        self.last_s, self.began_s, self.landed = now_s - self.began_s, now_s, 0.0

    def lands(self, share_done: float, now_s: float, budget_s: float) -> None:
        """The others have done this share of the due slot."""
        self.began_s, self.landed = now_s - share_done * budget_s, share_done

    def lead_s(self, budget_s: float) -> float:
        """How long before the end of its budget a slot ends, so that the offer is with the others at the end."""
        return min(statistics.median(self.leads_s) if self.leads_s else 0.0, MOST_LEAD * budget_s)

    def share(self, now_s: float, budget_s: float) -> float:
        """Of the budget, what has passed."""
        return min(1.0, max(0.0, (now_s - self.began_s) / budget_s))

    def planned(self, plan: SlotPlan, outer: OuterConfig, now_s: float, steps_taken: int) -> SlotPlan:
        """The plan as far as this slot is concerned. steps_taken: ahead of the round, where the plan is for the rest of a slot.

        By time, steps are guessed from what one took, and overlap_steps are as many as fit the same share of a slot.
        """
        landed = 0.0 if plan.overlap_steps else self.landed
        if outer.sync != "time":
            return dataclasses.replace(plan, first_step=min(int(landed * plan.num_steps), plan.num_steps - 1))
        budget_s, step_s = outer.budget_s, self.step_s or outer.budget_s / outer.slot_steps
        timed = dataclasses.replace(plan, budget_s=budget_s, step_s=self.step_s)
        if plan.overlap_steps:
            overlap = max(1, int(budget_s * outer.ahead_steps / outer.slot_steps / step_s))
            began_s = self.began_s + max(self.last_s, budget_s)
            return dataclasses.replace(
                timed, num_steps=overlap + max(1, int(budget_s / step_s)), overlap_steps=overlap, began_s=began_s
            )
        ends_s = self.began_s + budget_s - self.lead_s(budget_s)
        first = int(landed * budget_s / step_s)
        to_take = max(0 if steps_taken else 1, int((ends_s - now_s) / step_s))
        num_steps = first + steps_taken + to_take
        return dataclasses.replace(timed, num_steps=num_steps, first_step=first, began_s=self.began_s, ends_s=ends_s)
