"""The live table: what a swarm is doing, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from decentra.observe.summary import losses

Status = Mapping[str, Any]


def swarm_table(statuses: Sequence[Status], target_syncs: int, elapsed_s: float, title: str = "") -> Group:
    """A headline and a row a peer."""
    best = max(statuses, key=lambda s: s["entry"], default=None)
    if best is None:
        return Group(Text("no peer answers yet"))
    heldout = losses(statuses)
    loss = f"{heldout[max(heldout)]:.3f} (sync {max(heldout)})" if heldout else "not measured yet"
    counted = [r for r in best["rounds"] if r["sync"] is not None]
    averaged = counted[-1]["averaged"] if counted else 0
    of = f"/{target_syncs}" if target_syncs else ""
    head = Text.assemble(
        (title or f"run {best['run']}", "bold"),
        f"   outer step {best['sync']}{of}   held-out loss {loss}   {tokens_per_s(best, elapsed_s):,.0f} tokens/s"
        f"   alive {len(statuses)} / in the view {len(best['view'])} / averaged {averaged}   {elapsed_s:.0f} s",
    )
    table = Table(box=None, padding=(0, 1))
    for name in ("peer", "role", "entry", "state", "steps", "loss", "up", "down", "waiting for"):
        table.add_column(name, no_wrap=True)
    for status in statuses:
        table.add_row(*_row(status, best))
    return Group(head, table)


def _row(status: Status, best: Status) -> tuple[str, ...]:
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
        f"{status['bytes_up'] / 1e6:.1f} MB",
        f"{status['bytes_down'] / 1e6:.1f} MB",
        waits[:60],
    )


def tokens_per_s(status: Status, elapsed_s: float) -> float:
    """Committed tokens a second of the last counted rounds; of the whole time before there are two."""
    counted = [r for r in status["rounds"] if r["sync"] is not None][-5:]
    seconds = sum(r["times_s"].get("round", 0.0) for r in counted)
    if len(counted) < 2 or seconds <= 0:
        return status["tokens_committed"] / max(elapsed_s, 1e-9)
    return float(sum(r["tokens"] for r in counted) / seconds)
