"""What a member tells people: plain values, ready for JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from decentra.ledger import intervals

if TYPE_CHECKING:
    from decentra.rounds.member import Member


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
        "sync": state.sync,
        "state_hash": member.hash.hex(),
        "tokens_committed": state.tokens,
        "view": list(state.peers()),
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
