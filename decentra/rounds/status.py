"""What a member tells of itself: a heartbeat to its leader, plain values ready for JSON to people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decentra.ledger import intervals
from decentra.ledger.entry import Entry
from decentra.ledger.state import Member as ViewMember
from decentra.types import Digest, RoundReport

if TYPE_CHECKING:
    from decentra.rounds.member import Member


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of a peer in this entry's round."""

    time_s: float
    attempt: int
    member: ViewMember
    newcomer: bool
    leaving: bool
    held: frozenset[Digest]
    sits_out: bool
    steps_done: int
    num_steps: int
    period_s: float = 0.0
    """How soon it was told to speak again."""


def status_of(member: Member) -> dict[str, Any]:
    """Where this member stands: state, view, waiting, losses, bytes and the reports of its rounds."""
    state = member.state
    up, down = member.ports.transport.counters()
    done, planned = member.ports.trainer.progress()
    return {
        "peer": member.peer,
        "run": member.run.config.name,
        "run_id": member.run.run_id.hex(),
        "entry": state.r,
        "lineage": state.lineage,
        "forced_views": len(state.forks),
        "sync": state.sync,
        "state_hash": member.hash.hex(),
        "tokens_committed": state.tokens,
        "view": list(state.peers()),
        "dialable": [m.peer for m in state.members if m.dialable],
        "in_view": member.in_view(),
        "heard": list(member.heard() if member.leading else member.leader_heard),
        "attempt": member.attempt,
        "leading": member.leading,
        "owns": [p.num_blocks for p in state.parts if p.owner == member.peer],
        "waiting_for": member.waiting_for,
        "waiting_s": round(member.now() - member.waiting_since_s, 3),
        "steps_done": done,
        "num_steps": planned,
        "compute_s": member.compute_s,
        "trained_s": member.trained_s,
        "lived_s": member.now() - member.born_s,
        "heldout_loss": {str(k): v for k, v in member.heldout_loss.items()},
        "train_loss": {str(k): v for k, v in member.train_loss.items()},
        "bytes_up": up,
        "bytes_down": down,
        "leases": {peer: intervals.total(lease) for peer, lease in state.leases.items()},
        "pool_samples": intervals.total(state.pool),
        "fresh_sample": state.fresh_sample,
        "rounds": [dataclasses.asdict(report) for report in member.history],
        "done": member.is_done(),
    }


def report_of(member: Member, entry: Entry, ballot: int) -> RoundReport:
    """What the round of an entry did, as this member saw it; the entry has just been applied."""
    marks, now = member.marks, member.now()
    made, last = marks.get("offered", now), marks.get("last_offer", now)
    closed = marks.get("closed", marks.get("proposed", now))
    proposed, certified = marks.get("proposed", now), marks.get("certified", now)
    up, down = member.ports.transport.counters()
    counted = {c.sender for c in entry.counted}
    left_out = {p: "not heard" if p not in entry.heard else "not offered in time" for p in member.state.expected() if p not in counted}
    report = RoundReport(
        entry=entry.r,
        sync=entry.sync,
        state_hash=member.hash.hex(),
        at_s=now,
        alive=len(entry.heard),
        in_view=len(member.state.members),
        averaged=len(counted),
        tokens=sum(c.weight_tokens for c in entry.counted),
        bytes_up=up - member.bytes_seen[0],
        bytes_down=down - member.bytes_seen[1],
        attempts=ballot + 1,
    )
    if entry.sync is not None:
        report.times_s = {
            "compute": marks.get("trained", now) - marks.get("slot", marks.get("trained", now)),
            "encode": made - marks.get("trained", made),
            "wait": max(0.0, last - made),
            "transfer": max(0.0, closed - max(made, last)),
            "reduce": max(0.0, proposed - closed),
            "ballot": max(0.0, certified - proposed),
            "apply": max(0.0, now - certified),
            "round": now - member.round_start_s,
        }
        report.left_out = left_out
        report.heldout_loss = member.heldout_loss.get(entry.sync)
        member.bytes_seen = (up, down)
    return report
