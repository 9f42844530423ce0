"""Cells against the reference of the same seed: a table, a CSV, a figure."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.experiments.codec_sweep.arms import ARMS, REFERENCE
from sims.experiments.codec_sweep.cells import Record

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""
MAX_SEEDS = len(T_975) + 1

COLUMNS = (
    "arm", "seed", "rounds", "tokens", "heldout_loss", "difference_percent", "mean_percent", "half_width_percent", "limit_percent",
    "bytes_a_round", "config",
)  # fmt: skip
"""difference_percent: to the reference at the same seed. mean and half width: of the arm, over its seeds."""


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


def differences(records: Sequence[Record], arm: str, base: str = REFERENCE) -> dict[int, float]:
    """By seed that both have: how far the arm's last loss is above that of `base`, in percent of it."""
    last = {(record.arm, record.seed): record.losses[-1] for record in records}
    seeds = [seed for name, seed in last if name == arm and (base, seed) in last]
    return {seed: 100.0 * (last[arm, seed] / last[base, seed] - 1.0) for seed in sorted(seeds)}


def intervals(records: Sequence[Record]) -> dict[str, Interval]:
    """Each arm against the reference, in the order of ARMS; arms without a pair are left out."""
    pairs = {arm: differences(records, arm) for arm in ARMS}
    return {arm: Interval.of(list(values.values())) for arm, values in pairs.items() if values}


def rounds_behind(records: Sequence[Record], arm: str) -> float:
    """How long before its end the reference had the arm's last loss, in rounds, a straight line between two; mean over seeds. NaN
    where the reference never had it, or ends above it.
    """
    cells = {(record.arm, record.seed): record.losses for record in records}
    found = []
    for seed in (seed for name, seed in cells if name == arm and (REFERENCE, seed) in cells):
        reference, last = cells[REFERENCE, seed], cells[arm, seed][-1]
        above = [index for index in range(len(reference) - 1) if reference[index] >= last >= reference[index + 1]]
        if not above:
            return math.nan
        before, after = reference[above[-1]], reference[above[-1] + 1]
        found.append(len(reference) - 1 - above[-1] - (before - last) / ((before - after) or 1.0))
    return statistics.fmean(found)


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """A row a cell."""
    found = intervals(records)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for record in _in_order(records):
            interval = found.get(record.arm, Interval(math.nan, math.nan))
            rounds = len(record.losses) - 1
            writer.writerow(
                {
                    "arm": record.arm,
                    "seed": record.seed,
                    "rounds": rounds,
                    "tokens": rounds * record.tokens_a_round,
                    "heldout_loss": f"{record.losses[-1]:.6f}",
                    "difference_percent": f"{differences(records, record.arm).get(record.seed, math.nan):.4f}",
                    "mean_percent": f"{interval.mean:.4f}",
                    "half_width_percent": f"{interval.half_width:.4f}",
                    "limit_percent": ARMS[record.arm].limit_percent,
                    "bytes_a_round": record.bytes_a_round,
                    "config": record.config,
                }
            )


def lines_of(records: Sequence[Record]) -> list[str]:
    """The table for people, and what error feedback is worth."""
    found, by_arm = intervals(records), _by_arm(records)
    fp32_bytes = by_arm[REFERENCE][0].bytes_a_round
    lines = [f"{'':17}{'loss':>7}  {'to fp32, 95 %':16}{'asked':9}{'':8}{'MB a round':>10}{'fp32 /':>9}"]
    for arm, interval in found.items():
        loss = statistics.fmean(record.losses[-1] for record in by_arm[arm])
        limit, num_bytes = ARMS[arm].limit_percent, by_arm[arm][0].bytes_a_round
        asked = ("", "") if limit is None else (f"<= {limit} %", "holds" if interval.mean <= limit else "FAILS")
        shown = "" if arm == REFERENCE else str(interval)
        lines.append(f"{arm:17}{loss:7.4f}  {shown:16}{asked[0]:9}{asked[1]:8}{num_bytes / 1e6:10.3f}{fp32_bytes / num_bytes:9.2f}")
    if worth := differences(records, "topk-no-feedback", "topk"):
        lines.append(f"topk without error feedback, to topk with it: {Interval.of(list(worth.values()))}")
    late = {arm: rounds_behind(records, arm) for arm, interval in found.items() if interval.mean > 0.5}
    if shown_late := [f"{arm} {behind:.1f}" for arm, behind in late.items() if not math.isnan(behind)]:
        lines.append(f"rounds behind {REFERENCE} at the end: {', '.join(shown_late)}")
    seeds = sorted({record.seed for record in records})
    rounds = len(records[0].losses) - 1
    lines.append(f"{rounds} rounds of {records[0].tokens_a_round:,} tokens, seeds {', '.join(map(str, seeds))}")
    return lines


STYLES: Mapping[str, tuple[str, str, float]] = {
    REFERENCE: ("#1f1f1f", "-", 4.0),
    "bf16": ("#8ecae6", "-", 2.0),
    "int8": ("#4878a8", "--", 1.6),
    "int4": ("#e8a33d", "-", 1.6),
    "fp4": ("#8c6bb1", ":", 2.0),
    "topk": ("#2a9d5c", "-", 1.6),
    "topk-no-feedback": ("#d6604d", "-", 1.6),
    "data-parallel": ("#999999", "--", 1.6),
}
"""Colour, line, width. Most curves lie on one another: a thin one over a thick one shows both."""


def plot(path: Path, records: Sequence[Record], title: str) -> None:
    """Loss curves on the left; on the right, an arm a row, paired differences with their intervals, and bytes.

    records: a pair of each arm at least.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_arm = _by_arm(records)
    figure, (curves, paired, volume) = pyplot.subplots(1, 3, figsize=(14, 5.6), width_ratios=(6, 4, 3), layout="constrained")
    _plot_curves(curves, by_arm)
    _plot_pairs(paired, intervals(records))
    for row, arm in enumerate(by_arm):
        num_megabytes = by_arm[arm][0].bytes_a_round / 1e6
        volume.barh(row, num_megabytes, color=STYLES[arm][0], height=0.6)
        volume.annotate(f" {num_megabytes:.3g} MB", (num_megabytes, row), va="center", fontsize=9)
    volume.set_yticks(range(len(by_arm)), [""] * len(by_arm))
    volume.set(xscale="log", xlabel="MB a replica encodes a round", ylim=(len(by_arm) - 0.5, -0.5))
    volume.set_xlim(right=volume.get_xlim()[1] * 20)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_pairs(axes: Any, found: Mapping[str, Interval]) -> None:
    """Linear within 1 %, logarithmic beyond: half a percent shows beside tens."""
    for row, (arm, interval) in enumerate(found.items()):
        if (limit := ARMS[arm].limit_percent) is not None:
            axes.plot([limit, limit], [row - 0.4, row + 0.4], color="#c00000", linewidth=1.5)
        half_width = interval.half_width if math.isfinite(interval.half_width) else None
        axes.errorbar(interval.mean, row, xerr=half_width, fmt="o", color=STYLES[arm][0], capsize=4)
    axes.axvline(0.0, color="#888888", linewidth=1, zorder=0)
    axes.set_yticks(range(len(found)), [arm if arm == REFERENCE else f"{arm}\n{interval}" for arm, interval in found.items()])
    axes.set_xscale("symlog", linthresh=1.0, linscale=1.5)
    low, high = axes.get_xlim()
    low, high = min(1.2 * low, -0.6), max(1.2 * high, 1.2)
    ticks = [tick for tick in (-50, -20, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 20, 50) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="% of fp32's loss at the same seed (red: asked)", xlim=(low, high), ylim=(len(found) - 0.5, -0.5))
    axes.grid(axis="x", color="#eeeeee", zorder=-1)


def _plot_curves(axes: Any, by_arm: Mapping[str, Sequence[Record]]) -> None:
    """Mean over seeds by tokens, and by rounds on top."""
    tokens_a_round = next(iter(by_arm.values()))[0].tokens_a_round / 1e6
    for arm, records in by_arm.items():
        mean = [statistics.fmean(losses) for losses in zip(*(record.losses for record in records), strict=True)]
        colour, line, width = STYLES[arm]
        axes.plot([tokens_a_round * round_ for round_ in range(len(mean))], mean, line, color=colour, linewidth=width, label=arm)
    axes.set(xlabel="million tokens of all replicas", ylabel="held-out loss of the anchor, nats a token")
    axes.secondary_xaxis("top", (lambda x: x / tokens_a_round, lambda x: x * tokens_a_round)).set_xlabel("round")
    axes.legend()


def _in_order(records: Sequence[Record]) -> list[Record]:
    order = list(ARMS)
    return sorted(records, key=lambda record: (order.index(record.arm), record.seed))


def _by_arm(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in _in_order(records):
        found.setdefault(record.arm, []).append(record)
    return found
