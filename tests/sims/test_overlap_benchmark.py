"""The overlap benchmark counts whole slots by wall time, shapes a link that a round fills half of a slot on, and judges right.

The whole of it by hand: python -m sims.benchmarks.overlap.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from decentra.config import parse_link
from decentra.transport.base import FRAME_BYTES
from sims.benchmarks.overlap import DELAYS, ON_THE_WIRE, WARMUP_SLOTS, Rates, Round, lines_of, link_for, rates_of, run_of


def test_a_slot_lasts_from_the_last_step_before_it_to_its_own_last_step(tmp_path: Path) -> None:
    # Slots of 2 steps of 1 s; a pause of 3 s within the first measured slot, 0.5 s before the second one.
    ends = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 10.5, 11.5, 12.5]
    (tmp_path / "steps").write_text("".join(f"{end} 1.0\n" for end in ends))
    assert WARMUP_SLOTS == 2
    rates = rates_of(tmp_path / "steps", 2, 100)
    assert rates.whole == pytest.approx((200 / 5.0, 200 / 2.5)) and rates.inner == (100.0, 100.0)


def test_the_link_takes_a_round_half_of_a_slot() -> None:
    bytes_per_s, delay_s = parse_link(link_for(2_700_000, 6.0))
    assert (2_700_000 + 2 * FRAME_BYTES) / bytes_per_s + DELAYS * delay_s == pytest.approx(ON_THE_WIRE * 6.0, rel=0.01)


def test_rounds_overlap_with_nearly_all_of_a_slot() -> None:
    outer = run_of(60, 8).outer
    assert (outer.slot_steps, outer.overlap_steps) == (60, 54)


@pytest.mark.parametrize(("swarm", "says"), [(97.0, "97.0% (asked: 97%, holds)"), (96.0, "96.0% (asked: 97%, FAILS)")])
def test_the_verdict_is_of_medians_beside_the_neighbour(swarm: float, says: str) -> None:
    def rates(*whole: float) -> list[Rates]:
        return [Rates(whole, tuple(2 * rate for rate in whole))]

    found = {"solo": rates(110.0, 110.0), "neighbour": rates(10.0, 100.0, 101.0), "swarm": rates(swarm, swarm, 500.0)}
    lines = list(lines_of(found, [Round(3.0, 6.0, 0.0, 1.0, 1.0)], "1mbit,10ms", 2))
    assert any(says in line for line in lines) and any("50% of the 6.00 s" in line for line in lines)


@pytest.mark.parametrize("wire_s", [1.0, 5.5])
def test_a_run_whose_rounds_are_far_from_half_of_a_slot_does_not_count(wire_s: float) -> None:
    found = {name: [Rates((100.0,), (100.0,))] for name in ("solo", "neighbour", "swarm")}
    lines = list(lines_of(found, [Round(wire_s, 6.0, 0.0, 1.0, 1.0)], "1mbit,10ms", 2))
    assert any("does not count" in line for line in lines) and not any("holds" in line for line in lines)
