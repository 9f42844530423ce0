"""Arms against a reference at the same seeds: differences in percent, and what is known of their mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sims.experiments.paired.cells import Record

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""
MAX_SEEDS = len(T_975) + 1


@dataclass(frozen=True, slots=True)
class Interval:
    """mean +- half_width holds the true mean 95 times of 100; half_width is NaN for a single value."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The t interval of independent normal values, two to MAX_SEEDS of them."""
        if len(values) == 1:
            return cls(values[0], math.nan)
        return cls(statistics.fmean(values), T_975[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half_width:.2f} %" if math.isfinite(self.half_width) else f"{self.mean:+.2f} %"


def differences(records: Sequence[Record], arm: str, base: str) -> dict[int, float]:
    """By seed that both have: how far the arm's last loss is above that of `base`, in percent of it."""
    last = {(record.arm, record.seed): record.losses[-1] for record in records}
    seeds = [seed for name, seed in last if name == arm and (base, seed) in last]
    return {seed: 100.0 * (last[arm, seed] / last[base, seed] - 1.0) for seed in sorted(seeds)}


def intervals(records: Sequence[Record], arms: Iterable[str], base: str) -> dict[str, Interval]:
    """Each arm against `base`, in the order of `arms`; arms without a pair are left out."""
    pairs = {arm: differences(records, arm, base) for arm in arms}
    return {arm: Interval.of(list(values.values())) for arm, values in pairs.items() if values}


def by_arm(records: Sequence[Record], arms: Iterable[str]) -> dict[str, list[Record]]:
    """The records of each arm by seed, in the order of `arms`; arms without any are left out."""
    ordered = sorted(records, key=lambda record: record.seed)
    found = {arm: [record for record in ordered if record.arm == arm] for arm in arms}
    return {arm: chosen for arm, chosen in found.items() if chosen}
