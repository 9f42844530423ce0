"""summary.json: the same keys from a demo, a node or a simulation, out of the status of its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Status = Mapping[str, Any]


def summarize(
    statuses: Sequence[Status],
    *,
    seed: int,
    config_hash: str,
    loss_last: float | None,
    joined_late: Sequence[str],
    killed: Sequence[str],
    contribution_bytes: tuple[int, int],
    wall_s: float,
    virtual_s: float | None = None,
    stopped: Sequence[Status] = (),
) -> dict[str, Any]:
    """statuses: of the live peers; stopped: last words of peers that left or were killed.

    contribution_bytes: (fp32, encoded with headers). loss_last: held-out loss of the final anchor, nats a token.
    """
    best = max(statuses, key=lambda s: s["entry"])
    rounds = [r for r in best["rounds"] if r["sync"] is not None]
    heldout = losses((*stopped, *statuses))
    hashes = {s["peer"]: s["state_hash"] for s in statuses}
    sent = {s["peer"]: s["bytes_up"] for s in (*stopped, *statuses)}
    last = rounds[-1] if rounds else None
    summary: dict[str, Any] = {
        "peers": sorted(sent),
        "rounds_committed": best["sync"],
        "entries_committed": best["entry"],
        "tokens_committed": best["tokens_committed"],
        "loss_first": heldout.get(min(heldout)) if heldout else None,
        "loss_last": loss_last,
        "heldout_loss": {str(sync): heldout[sync] for sync in sorted(heldout)},
        "state_hash": hashes,
        "hashes_equal": agree(statuses),
        "alive": last["alive"] if last else len(statuses),
        "in_view": last["in_view"] if last else len(best["view"]),
        "averaged": last["averaged"] if last else 0,
        "bytes_sent": sent,
        "bytes_per_round_per_peer": bytes_per_round_per_peer(statuses),
        "compression_ratio": contribution_bytes[0] / contribution_bytes[1],
        "compute_utilization": share(sum(s["compute_s"] for s in statuses), sum(s["lived_s"] for s in statuses)),
        "joined_late": list(joined_late),
        "killed": list(killed),
        "round_times_s": mean_times(rounds),
        "wall_s": wall_s,
        "seed": seed,
        "config_hash": config_hash,
    }
    if virtual_s is not None:
        summary["virtual_s"] = virtual_s
    return summary


def losses(statuses: Sequence[Status]) -> dict[int, float]:
    """Held-out loss of the anchor by sync, from whichever peer measured it."""
    return {int(sync): loss for status in statuses for sync, loss in status["heldout_loss"].items()}


def agree(statuses: Sequence[Status]) -> bool:
    """Whether no two peers have different hashes after the same entry."""
    seen: dict[int, str] = {}
    return all(seen.setdefault(r["entry"], r["state_hash"]) == r["state_hash"] for s in statuses for r in s["rounds"])


def bytes_per_round_per_peer(statuses: Sequence[Status]) -> float:
    """Mean bytes up of a peer in a counted round, its first round left out (it carries files and snapshots)."""
    found = [r["bytes_up"] for s in statuses for r in [r for r in s["rounds"] if r["sync"] is not None][1:]]
    return share(sum(found), len(found))


def mean_times(rounds: Sequence[Status]) -> dict[str, float]:
    """Mean seconds of each phase over rounds."""
    names = sorted({name for r in rounds for name in r["times_s"]})
    return {name: share(sum(r["times_s"].get(name, 0.0) for r in rounds), len(rounds)) for name in names}


def share(part: float, whole: float) -> float:
    """part / whole, 0 where there is nothing."""
    return part / whole if whole else 0.0
