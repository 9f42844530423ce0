"""How long a slot goes on, and how much of it each step completes: by the number of steps, or by time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from decentra.types import SlotPlan

Done = tuple[float, float]
"""(done, whole) of a slot at the end of a step: steps, or seconds."""


def steps_to_take(plan: SlotPlan, steps_taken: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Done]:
    """What each further step of the plan will have completed of the slot at its end; to be asked for as the step begins.

    By number it never ends, the caller knows how many there are. By time it ends before the step that would go past the
    plan's end, if it lasts as long as the one before; the first step of a slot is always taken. A slot that begins ahead of the
    certificate from which its time counts has done nothing until that is expected.

    clock: the one that the plan's seconds are of.
    """
    if not plan.budget_s:
        yield from ((plan.first_step + step, plan.num_steps) for step in itertools.count(steps_taken + 1))
    now_s, step_s = clock(), plan.step_s
    while plan.overlap_steps or not steps_taken or now_s + step_s <= plan.ends_s:
        yield max(0.0, now_s + step_s - plan.began_s), plan.budget_s
        begun_s, now_s = now_s, clock()
        step_s, steps_taken = now_s - begun_s, steps_taken + 1
