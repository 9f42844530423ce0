"""Cells against plain DiLoCo of the same seed, with bytes, rates and hours: a table, columns, a figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from decentra.config import RunConfig
from sims.experiments.paired.cells import Record
from sims.experiments.paired.figures import Styles, draw_bars, draw_curves, draw_pairs, panels
from sims.experiments.paired.intervals import by_arm, differences, intervals
from sims.experiments.streaming_quality.arms import ARMS, REFERENCE, run_of
from sims.experiments.streaming_quality.costs import (
    BILLION,
    DELAY_S,
    DELAYS,
    HERE_FLOPS,
    RATES_MBIT,
    LargeModel,
    Workload,
    scaled,
    workload_of,
)


def workloads(size: RunConfig) -> dict[str, Workload]:
    """Of each arm at a size."""
    return {name: workload_of(run_of(name, 0, size)) for name in ARMS}


def columns(size: RunConfig) -> dict[str, dict[str, object]]:
    """What the CSV says beside losses, by arm."""
    found = {}
    for name, here in workloads(size).items():
        sizes = {"": here, "_1b": scaled(ARMS[name], BILLION)}
        found[name] = {
            "sent_bytes": round(here.sent_bytes),
            "sync_bytes": round(max(here.wire_bytes)),
            "peak_mbit": f"{here.peak_mbit:.4f}",
            **{f"hours{tail}_{rate}mbit": f"{work.hours(rate):.5f}" for tail, work in sizes.items() for rate in RATES_MBIT},
        }
    return found


def lines_of(records: Sequence[Record], size: RunConfig) -> Iterator[str]:
    """The table for people."""
    of_arms, found = by_arm(records, ARMS), intervals(records, ARMS, REFERENCE)
    here = workloads(size)
    yield f"{'':14}{'loss':>8}  {'to plain, 95 %':17}{'by seed, %':26}{'MB sent':>9}{'MB a sync':>10}{'peak mbit/s':>12}{_rates()}"
    for arm, interval in found.items():
        loss = statistics.fmean(record.losses[-1] for record in of_arms[arm])
        pairs = "" if arm == REFERENCE else " ".join(f"{value:+.2f}" for value in differences(records, arm, REFERENCE).values())
        shown, work = "" if arm == REFERENCE else str(interval), here[arm]
        volume = f"{work.sent_bytes / 1e6:9.1f}{max(work.wire_bytes) / 1e6:10.3f}{work.peak_mbit:12.2f}"
        yield f"{arm:14}{loss:8.4f}  {shown:17}{pairs:26}{volume}{_hours(work)}"
    yield ""
    yield from _large_lines(list(found), BILLION)
    yield ""
    seeds = ", ".join(str(seed) for seed in sorted({record.seed for record in records}))
    rounds, tokens = len(records[0].losses) - 1, records[0].tokens_a_round
    yield f"{size.start_members} replicas, {rounds} rounds of {tokens:,} tokens, seeds {seeds}; losses are of the agreed anchor."
    yield (
        "MB sent: by one replica in all, 2 (N - 1) / N x its encoded bytes; a sync: the largest. peak: that in the time that it may take, "
        "tau or a slot."
    )
    yield (
        f"Hours are arithmetic: a round takes the bytes' time on the link and {DELAYS} one-way delays of {DELAY_S * 1e3:.0f} ms; a step "
        f"takes 6 flop a parameter and token, {HERE_FLOPS / 1e9:.0f} Gflop/s here and {BILLION.flops / 1e12:.0f} Tflop/s at {BILLION.name}."
    )


def _large_lines(arms: Sequence[str], model: LargeModel) -> Iterator[str]:
    yield f"{model.name + ', arithmetic':14}{'GB sent':>10}{'peak mbit/s':>12}{'H':>6}{'P':>4}{'tau':>5}{_rates()}"
    for arm in arms:
        work = scaled(ARMS[arm], model)
        parts = len(work.sync_bytes)
        schedule = f"{work.slot_steps * parts:6}{parts:4}{work.hidden_steps:5}"
        yield f"{arm:14}{work.sent_bytes / 1e9:10.1f}{work.peak_mbit:12.1f}{schedule}{_hours(work)}"
    yield (
        f"{model.members} replicas, {model.tokens / 1e9:.0f} billion tokens, {model.tokens_a_step:,} tokens a step of "
        f"{scaled(ARMS[REFERENCE], model).step_s:.1f} s; tau of eager: the slot."
    )


def _rates() -> str:
    return "".join(f"{f'h at {rate} mbit':>15}" for rate in RATES_MBIT)


def _hours(work: Workload) -> str:
    return "".join(f"{work.hours(rate):15.4g}" for rate in RATES_MBIT)


STYLES: Styles = {
    REFERENCE: ("#1f1f1f", "-", 4.0),
    "streaming": ("#8ecae6", "-", 2.0),
    "overlap": ("#4878a8", "--", 1.6),
    "overlap-int4": ("#e8a33d", "-", 1.6),
    "eager": ("#d6604d", "-", 1.6),
}


def plot(path: Path, records: Sequence[Record], size: RunConfig, title: str) -> None:
    """Loss curves on the left; on the right, an arm a row, paired differences with their intervals, and peak rates.

    records: a pair of each arm at least.
    """
    of_arms, here = by_arm(records, ARMS), workloads(size)
    with panels(path, title) as (curves, paired, rates):
        draw_curves(curves, of_arms, STYLES)
        draw_pairs(paired, intervals(records, ARMS, REFERENCE), REFERENCE, STYLES, {})
        draw_bars(rates, {arm: here[arm].peak_mbit for arm in of_arms}, "mbit/s", "peak rate of a replica, mbit/s", STYLES)
