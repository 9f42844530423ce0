"""loss.png: the anchor's held-out loss, and what every peer did when."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Status = Mapping[str, Any]

LANE = 0.38
PHASES = ("wait", "transfer", "reduce", "ballot", "apply")
COLOURS = {"compute": "#4878a8", "wait": "#d8d8d8", "transfer": "#e8a33d", "reduce": "#b6d77a", "ballot": "#8c6bb1", "apply": "#d6604d"}


def plot_run(
    path: Path,
    statuses: Sequence[Status],
    loss: Mapping[int, float],
    unigram: float,
    events: Sequence[tuple[float, str]],
    title: str,
    overlaps: bool = False,
) -> None:
    """statuses: of all peers that were ever seen; loss: by sync, nats a token; events: (seconds, line).

    overlaps: trainers go on beside their rounds; each peer then has a lane for either.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    best = max(statuses, key=lambda s: s["entry"])
    counted = [r for r in best["rounds"] if r["sync"] is not None]
    start = min(r["at_s"] - r["times_s"].get("round", 0.0) for s in statuses for r in s["rounds"] if r["sync"] is not None)
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(9, 7), height_ratios=(3, 2), layout="constrained")
    syncs = sorted(loss)
    top.plot(syncs, [loss[s] for s in syncs], "o-", color=COLOURS["compute"], label="held-out loss of the anchor")
    top.axhline(unigram, color="#888888", linestyle="--", linewidth=1, label=f"unigram entropy of the held-out text, {unigram:.2f}")
    top.set(xlabel="outer step", ylabel="nats a token", title=title)
    top.legend()
    names = [s["peer"][:8] for s in statuses]
    for row, status in enumerate(statuses):
        rounds = [report for report in status["rounds"] if report["sync"] is not None]
        for report in rounds:
            _bar(bottom, row, report, start, not overlaps)
        if overlaps and rounds:
            _trainer_lane(bottom, row, rounds, start)
    bottom.set_yticks(range(len(names)), names, family="monospace", fontsize=8)
    bottom.set(xlabel="seconds", xlim=(0, counted[-1]["at_s"] - start + 1))
    bottom.invert_yaxis()
    handles = [patches.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    bottom.legend(handles, list(COLOURS), ncols=len(COLOURS), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.16), frameon=False)
    if events:
        figure.text(0.01, -0.02, "   ".join(line for _, line in events), fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def _bar(axes: Any, row: int, report: Status, start: float, trains: bool) -> None:
    """One round of one peer, drawn backwards from when it was applied; with the training before it, or as the lower lane."""
    times, end = report["times_s"], report["at_s"] - start
    place = {"y": row, "height": 0.7} if trains else {"y": row + LANE / 2, "height": LANE}
    for phase in reversed(PHASES):
        axes.barh(width=times.get(phase, 0.0), left=end - times.get(phase, 0.0), color=COLOURS[phase], **place)
        end -= times.get(phase, 0.0)
    end -= times.get("encode", 0.0)
    if trains:
        axes.barh(width=times.get("compute", 0.0), left=end - times.get("compute", 0.0), color=COLOURS["compute"], **place)


def _trainer_lane(axes: Any, row: int, rounds: Sequence[Status], start: float) -> None:
    """Training from the first slot of a peer to its last round, but for where a round outlasted its overlap: that ended the wait."""
    place = {"y": row - LANE / 2, "height": LANE}
    first = rounds[0]["at_s"] - sum(rounds[0]["times_s"].get(phase, 0.0) for phase in (*PHASES, "encode", "compute"))
    axes.barh(width=rounds[-1]["at_s"] - first, left=first - start, color=COLOURS["compute"], **place)
    for before, report in itertools.pairwise(rounds):
        waited = report["times_s"].get("overrun", 0.0)
        axes.barh(width=waited, left=before["at_s"] - waited - start, color=COLOURS["wait"], **place)
