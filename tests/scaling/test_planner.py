"""The planner: what it chooses keeps to its bounds and its order of preference, and the rounds of ours do what it says."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra import build
from decentra.rounds.download import DIGEST_BYTES
from decentra.scaling.planner import LOSS_ORDER, ROUND_DELAYS, Bounds, Choice, Measured, plan, round_s, sentences, utilization
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS
from sims.experiments.utilization_table.swarm import Setting, measure

SHARE = {name: (codec.chunk_bytes + DIGEST_BYTES / BLOCK_CHUNKS) / CHUNK_ELEMENTS for name, codec in build.codecs().items()}

MEASURED = st.builds(
    Measured,
    step_s=st.floats(1e-3, 10),
    rate_bytes_per_s=st.floats(1e4, 1e10),
    one_way_s=st.floats(0, 0.5),
    num_elements=st.integers(10**5, 10**10),
    num_layers=st.integers(1, 8),
    num_members=st.integers(2, 64),
    work_s=st.floats(0, 10),
)
BOUNDS = st.builds(
    lambda least, more, fragments, overlap, codecs: Bounds(
        least, least + more, 1, fragments, overlap, tuple(sorted(codecs, key=LOSS_ORDER.index))
    ),
    st.integers(1, 20),
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sets(st.sampled_from(LOSS_ORDER), min_size=1),
)
WANTED = st.floats(0.05, 1.0)


def every(measured: Measured, bounds: Bounds) -> list[Choice]:
    """All that the bounds allow."""
    return [
        Choice(codec, steps, overlap, fragments)
        for codec in bounds.codecs
        for steps in range(bounds.min_steps, bounds.max_steps + 1)
        for overlap in range(bounds.max_overlap_steps + 1)
        for fragments in range(bounds.min_fragments, min(bounds.max_fragments, measured.num_layers) + 1)
        if steps % fragments == 0 and overlap < steps // fragments
    ]


def test_a_round_is_its_delays_its_work_and_two_passes_of_its_bytes() -> None:
    measured = Measured(1.0, 1e6, 0.01, 4_000_000, 4, 4, work_s=0.4)
    choice = Choice("int8", 40, 0, 2)
    whole_s = round_s(measured, {"int8": 1.0}, choice)
    assert whole_s == pytest.approx(ROUND_DELAYS * 0.01 + 0.2 + 0.75 * 2 * 2.0)
    assert utilization(measured, {"int8": 1.0}, choice) == pytest.approx(20 / (20 + whole_s))
    assert utilization(measured, {"int8": 1.0}, dataclasses.replace(choice, overlap_steps=3)) == pytest.approx(20 / (17 + whole_s))
    assert utilization(measured, {"int8": 1.0}, dataclasses.replace(choice, overlap_steps=4)) == 1.0


@given(MEASURED, BOUNDS, WANTED)
def test_a_plan_keeps_to_its_bounds_and_says_whether_it_reaches_what_is_wanted(measured: Measured, bounds: Bounds, wanted: float) -> None:
    found = plan(measured, SHARE, bounds, wanted)
    assert found.choice in every(measured, bounds)
    assert found.utilization == utilization(measured, SHARE, found.choice) and found.reached is (found.utilization >= wanted)


@given(MEASURED, BOUNDS, WANTED, st.floats(1.0, 100.0))
def test_more_bandwidth_never_gives_more_compression_or_more_steps(measured: Measured, bounds: Bounds, wanted: float, more: float) -> None:
    better = dataclasses.replace(measured, rate_bytes_per_s=measured.rate_bytes_per_s * more)
    slow, fast = (plan(each, SHARE, bounds, wanted) for each in (measured, better))
    assert fast.reached or not slow.reached
    if slow.reached:
        assert LOSS_ORDER.index(fast.choice.codec) <= LOSS_ORDER.index(slow.choice.codec)
        assert fast.choice.inner_steps <= slow.choice.inner_steps


@given(MEASURED, BOUNDS)
def test_what_cannot_be_reached_gives_the_best_there_is_and_says_so(measured: Measured, bounds: Bounds) -> None:
    best = max(utilization(measured, SHARE, choice) for choice in every(measured, bounds))
    found = plan(measured, SHARE, bounds, 1.1)
    assert not found.reached and found.utilization == pytest.approx(best)
    present = Choice("int8", 40, 0, 2)
    assert "the best there is within its bounds" in sentences(measured, SHARE, present, found, 0.95)[1]


def test_a_fast_link_changes_nothing_that_costs_and_a_slow_one_takes_steps_and_precision_by_turns() -> None:
    measured = Measured(0.2, 1e9, 0.001, 1_000_000, 4, 4)
    assert plan(measured, SHARE, Bounds()).choice == Choice("fp32", 10, 0, 1)
    links = [dataclasses.replace(measured, rate_bytes_per_s=rate) for rate in (4e6, 2e6, 1e6, 4e5)]
    chosen = [plan(each, SHARE, Bounds(max_overlap_steps=0)) for each in links]
    found = [(each.choice.codec, each.choice.inner_steps) for each in chosen]
    assert found == sorted(found, key=lambda each: (LOSS_ORDER.index(each[0]), each[1])) and len(set(found)) == 4
    assert all(each.reached and each.utilization < 0.97 for each in chosen)


@pytest.mark.parametrize(
    ("bits", "delay_s", "overlap", "wanted"), [(20e9, 0.01, 5, 0.95), (2e9, 0.01, 5, 0.95), (5e9, 0.05, 0, 0.95), (3e9, 0.2, 5, 0.9)]
)
def test_rounds_of_ours_reach_what_the_plan_says(bits: float, delay_s: float, overlap: int, wanted: float) -> None:
    """1B parameters on two replicas, as in the paper's table; simulated utilization within 3 points of the plan."""
    measured = Measured(0.1, bits / 8, delay_s, 10**9, 8, 2)
    found = plan(measured, SHARE, Bounds(max_steps=400, max_overlap_steps=overlap), wanted)
    choice = found.choice
    setting = Setting(
        codec=choice.codec,
        layers=8 // choice.fragments * choice.fragments,
        fragments=choice.fragments,
        slot_s=choice.inner_steps / choice.fragments * measured.step_s,
        slot_ticks=choice.inner_steps // choice.fragments,
        overlap_ticks=choice.overlap_steps,
        contribution_bytes=measured.num_elements * SHARE[choice.codec],
        layer_chunks=4,
        delay_s=delay_s,
    )
    there = measure(setting, measured.rate_bytes_per_s, 3)
    assert there.utilization == pytest.approx(found.utilization, abs=0.03)
    assert found.reached and there.utilization > wanted - 0.03
