"""The live table: what a swarm is doing, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from decentra.observe.summary import losses

Status = Mapping[str, Any]

COLUMNS = {"peer": 8, "role": 7, "entry": 5, "state": 8, "steps": 9, "loss": 6, "up": 9, "down": 9}


def swarm_table(statuses: Sequence[Status], target_syncs: int, elapsed_s: float, title: str = "") -> Group:
    """A headline of two lines and a row a peer; readable from 90 columns on."""
    if not statuses:
        return Group(Text("no peer answers yet"))
    best = max(statuses, key=lambda s: s["entry"])
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True, min_width=COLUMNS[name], max_width=COLUMNS[name])
    table.add_column("waiting for", no_wrap=True, overflow="ellipsis", ratio=1)
    for status in statuses:
        table.add_row(*(Text(cell) for cell in _row(status)))
    first, second = headline(statuses, target_syncs, elapsed_s, title or f"run {best['run']}")
    return Group(Text(first, style="bold"), Text(second), table)


def headline(statuses: Sequence[Status], target_syncs: int, elapsed_s: float, title: str) -> tuple[str, str]:
    """Where the swarm stands, and how fast it goes: two lines of fewer than 90 characters."""
    best = max(statuses, key=lambda s: s["entry"])
    heldout = losses(statuses)
    loss = f"{heldout[max(heldout)]:.3f} (sync {max(heldout)})" if heldout else "not measured yet"
    counted = [r for r in best["rounds"] if r["sync"] is not None]
    averaged = counted[-1]["averaged"] if counted else 0
    of = f"/{target_syncs}" if target_syncs else ""
    return (
        f"{title}   outer step {best['sync']}{of}   held-out loss {loss}   {elapsed_s:.0f} s",
        f"{tokens_per_s(best, elapsed_s):,.0f} tokens/s   alive {len(statuses)}, in the view {len(best['view'])}, averaged {averaged}",
    )


def _row(status: Status) -> tuple[str, ...]:
    role = "leads" if status["leading"] else "owns" if status["owns"] else ""
    if not status["in_view"]:
        role = "joining"
    inner = status["train_loss"]
    waits = f"{status['waiting_for']} ({status['waiting_s']:.0f} s)" if status["waiting_s"] > 1 else status["waiting_for"]
    steps = f"{status['steps_done']}/{status['num_steps']}" if status["num_steps"] else "-"
    return (
        status["peer"][:8],
        role,
        str(status["entry"]),
        status["state_hash"][:8],
        steps,
        f"{inner[max(inner, key=int)]:.3f}" if inner else "-",
        amount(status["bytes_up"]),
        amount(status["bytes_down"]),
        waits,
    )


def amount(num_bytes: int) -> str:
    """Bytes for people, in at most nine characters."""
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / 1e9:.3f} GB" if num_bytes < 1e11 else f"{num_bytes / 1e9:.0f} GB"


def tokens_per_s(status: Status, elapsed_s: float) -> float:
    """Committed tokens a second of the last counted rounds; of the whole time before there are two."""
    counted = [r for r in status["rounds"] if r["sync"] is not None][-5:]
    seconds = sum(r["times_s"].get("round", 0.0) for r in counted)
    if len(counted) < 2 or seconds <= 0:
        return float(status["tokens_committed"]) / max(elapsed_s, 1e-9)
    return float(sum(r["tokens"] for r in counted) / seconds)
