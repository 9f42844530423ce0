"""Differences of paired seeds, and what is known of their mean."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from sims.experiments.paired.cells import Record
from sims.experiments.paired.intervals import Interval, by_arm, differences, intervals


def record(arm: str, seed: int, *losses: float) -> Record:
    """A finished cell."""
    return Record(arm, seed, "c0ffee", 1000, losses, 1000, 1.0)


def test_the_interval_is_students() -> None:
    # Three values of mean 2 and standard deviation 1: 4.303 / sqrt(3).
    assert Interval.of([1.0, 2.0, 3.0]) == Interval(2.0, pytest.approx(2.4843, abs=1e-4))
    assert Interval.of([1.0, 1.0]) == Interval(1.0, 0.0)
    assert Interval.of([1.5]).mean == 1.5 and math.isnan(Interval.of([1.5]).half_width)
    generator = np.random.default_rng(0)
    for count in (2, 3, 5, 10):
        found = [Interval.of(list(row)) for row in generator.standard_normal((4000, count))]
        held = statistics.fmean(abs(interval.mean) <= interval.half_width for interval in found)
        assert 0.94 < held < 0.96, f"{count} values: {held}"


def test_differences_are_between_cells_of_one_seed() -> None:
    records = [record("fp32", 0, 9.0, 4.0), record("fp32", 1, 9.0, 5.0), record("int4", 1, 9.0, 5.1), record("int4", 0, 9.0, 4.04)]
    records.append(record("int4", 2, 9.0, 4.0))  # without a pair
    assert differences(records, "int4", "fp32") == {0: pytest.approx(1.0), 1: pytest.approx(2.0)}
    assert intervals(records, ["int4"], "fp32")["int4"].mean == pytest.approx(1.5)
    # A spread between seeds that both arms share is no spread of the difference.
    alike = [record(arm, seed, 9.0, (4.0 + seed) * factor) for arm, factor in (("fp32", 1.0), ("fp4", 1.01)) for seed in range(3)]
    assert intervals(alike, ["fp4"], "fp32")["fp4"] == Interval(pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_arms_come_in_the_order_asked_for_and_seeds_in_theirs() -> None:
    records = [record("b", 1, 1.0), record("a", 0, 1.0), record("b", 0, 1.0)]
    assert [(arm, [each.seed for each in found]) for arm, found in by_arm(records, ["b", "c", "a"]).items()] == [("b", [0, 1]), ("a", [0])]
