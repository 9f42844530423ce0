"""Cells against the reference of the same seed: a table, a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from sims.experiments.codec_sweep.arms import ARMS, REFERENCE
from sims.experiments.paired.cells import Record
from sims.experiments.paired.figures import Styles, draw_bars, draw_curves, draw_pairs, panels
from sims.experiments.paired.intervals import Interval, by_arm, differences, intervals


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


def lines_of(records: Sequence[Record]) -> list[str]:
    """The table for people, and what error feedback is worth."""
    found, of_arms = intervals(records, ARMS, REFERENCE), by_arm(records, ARMS)
    fp32_bytes = of_arms[REFERENCE][0].bytes_a_round
    lines = [f"{'':17}{'loss':>7}  {'to fp32, 95 %':16}{'asked':9}{'':8}{'MB a round':>10}{'fp32 /':>9}"]
    for arm, interval in found.items():
        loss = statistics.fmean(record.losses[-1] for record in of_arms[arm])
        limit, num_bytes = ARMS[arm].limit_percent, of_arms[arm][0].bytes_a_round
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


STYLES: Styles = {
    REFERENCE: ("#1f1f1f", "-", 4.0),
    "bf16": ("#8ecae6", "-", 2.0),
    "int8": ("#4878a8", "--", 1.6),
    "int4": ("#e8a33d", "-", 1.6),
    "fp4": ("#8c6bb1", ":", 2.0),
    "topk": ("#2a9d5c", "-", 1.6),
    "topk-no-feedback": ("#d6604d", "-", 1.6),
    "data-parallel": ("#999999", "--", 1.6),
}


def plot(path: Path, records: Sequence[Record], title: str) -> None:
    """Loss curves on the left; on the right, an arm a row, paired differences with their intervals, and bytes.

    records: a pair of each arm at least.
    """
    of_arms, limits = by_arm(records, ARMS), {name: arm.limit_percent for name, arm in ARMS.items()}
    with panels(path, title) as (curves, paired, volume):
        draw_curves(curves, of_arms, STYLES)
        draw_pairs(paired, intervals(records, ARMS, REFERENCE), REFERENCE, STYLES, limits)
        megabytes = {arm: of_arms[arm][0].bytes_a_round / 1e6 for arm in of_arms}
        draw_bars(volume, megabytes, "MB", "MB a replica encodes a round", STYLES)
