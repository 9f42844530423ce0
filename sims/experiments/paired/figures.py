"""The panels of a figure: loss curves, paired differences with their intervals, bars."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sims.experiments.paired.cells import Record
from sims.experiments.paired.intervals import Interval

Styles = Mapping[str, tuple[str, str, float]]
"""Colour, line and width by arm. Most curves lie on one another: a thin one over a thick one shows both."""


@contextlib.contextmanager
def panels(path: Path, title: str) -> Iterator[tuple[Any, Any, Any]]:
    """Three axes side by side, for curves, pairs and bars, saved as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 5.6), width_ratios=(6, 4, 3), layout="constrained")
    yield tuple(axes)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_curves(axes: Any, of_arms: Mapping[str, Sequence[Record]], styles: Styles) -> None:
    """Mean over seeds by tokens, and by rounds on top."""
    tokens_a_round = next(iter(of_arms.values()))[0].tokens_a_round / 1e6
    for arm, records in of_arms.items():
        mean = [statistics.fmean(losses) for losses in zip(*(record.losses for record in records), strict=True)]
        colour, line, width = styles[arm]
        axes.plot([tokens_a_round * round_ for round_ in range(len(mean))], mean, line, color=colour, linewidth=width, label=arm)
    axes.set(xlabel="million tokens of all replicas", ylabel="held-out loss of the anchor, nats a token")
    axes.secondary_xaxis("top", (lambda x: x / tokens_a_round, lambda x: x * tokens_a_round)).set_xlabel("round")
    axes.legend()


def draw_pairs(axes: Any, found: Mapping[str, Interval], base: str, styles: Styles, limits: Mapping[str, float | None]) -> None:
    """An arm a row. Linear within 1 %, logarithmic beyond: half a percent shows beside tens. limits: drawn in red."""
    for row, (arm, interval) in enumerate(found.items()):
        if (limit := limits.get(arm)) is not None:
            axes.plot([limit, limit], [row - 0.4, row + 0.4], color="#c00000", linewidth=1.5)
        half_width = interval.half_width if math.isfinite(interval.half_width) else None
        axes.errorbar(interval.mean, row, xerr=half_width, fmt="o", color=styles[arm][0], capsize=4)
    axes.axvline(0.0, color="#888888", linewidth=1, zorder=0)
    axes.set_yticks(range(len(found)), [arm if arm == base else f"{arm}\n{interval}" for arm, interval in found.items()])
    axes.set_xscale("symlog", linthresh=1.0, linscale=1.5)
    low, high = axes.get_xlim()
    low, high = min(1.2 * low, -0.6), max(1.2 * high, 1.2)
    ticks = [tick for tick in (-50, -20, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 20, 50) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    asked = " (red: asked)" if any(limit is not None for limit in limits.values()) else ""
    axes.set(xlabel=f"% of {base}'s loss at the same seed{asked}", xlim=(low, high), ylim=(len(found) - 0.5, -0.5))
    axes.grid(axis="x", color="#eeeeee", zorder=-1)


def draw_bars(axes: Any, values: Mapping[str, float], unit: str, label: str, styles: Styles) -> None:
    """An arm a row, on a logarithmic axis, in the order of draw_pairs."""
    for row, (arm, value) in enumerate(values.items()):
        axes.barh(row, value, color=styles[arm][0], height=0.6)
        axes.annotate(f" {value:.3g} {unit}", (value, row), va="center", fontsize=9)
    axes.set_yticks(range(len(values)), [""] * len(values))
    axes.set(xscale="log", xlabel=label, ylim=(len(values) - 0.5, -0.5))
    axes.set_xlim(right=axes.get_xlim()[1] * 20)
