"""What a member tells of itself: a heartbeat to its leader, plain values ready for JSON to people."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decentra.ledger import intervals
from decentra.ledger.entry import Entry
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import Part, State
from decentra.rounds.flows import names
from decentra.types import Digest, PeerId, RoundReport

if TYPE_CHECKING:
    from decentra.rounds.member import Member


ROUNDS_MEASURED = 8


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
    wish: bytes = b""
    """Signed, not verified."""


def waiting_sentence(member: Member, moving_for_s: float = 0.0) -> str:
    """For what and whom a member waits, and which bytes are under way (since `moving_for_s` at least) from whom, how fast."""
    detail = f" ({member.waiting_detail})" if member.waiting_detail else ""
    return "; ".join([member.waiting_for + detail, *member.ports.flows.sentences(member.now(), moving_for_s)])


def link_says(member: Member) -> str:
    """What the due sync moves to each member, and how fast this node's link is: how long what others do may take."""
    machine = member.run.machine
    codec = machine.codecs[machine.up if machine.gather else machine.down]
    size = machine.due(member.state.sync).num_chunks * codec.chunk_bytes
    return f"up to {size / 1e6:.2f} MB each, {member.fetcher.rate_bytes_per_s / 1e6:.2f} MB/s here"


def status_of(member: Member) -> dict[str, Any]:
    """Where this member stands: state, view, waiting, losses, bytes and the reports of its rounds."""
    state = member.state
    up, down = member.ports.transport.counters()
    done, planned = member.ports.trainer.progress()
    return {
        "peer": member.peer,
        "incarnation": member.me.incarnation,
        "run": member.run.config.name,
        "run_id": member.run.run_id.hex(),
        "entry": state.r,
        "lineage": state.lineage,
        "forced_views": len(state.forks),
        "sync": state.sync,
        "state_hash": member.hash.hex(),
        "tokens_committed": state.tokens,
        "settings": state.settings,
        "wish": member.wish,
        "measured": measured_of(member),
        "view": list(state.peers()),
        "dialable": [m.peer for m in state.members if m.dialable],
        "in_view": member.in_view(),
        "heard": list(member.heard() if member.leading else member.leader_heard),
        "attempt": member.attempt,
        "leading": member.leading,
        "phase": phase_of(member),
        "offers": len(member.book.offers),
        "owns": [p.num_blocks for p in state.parts if p.owner == member.peer],
        "waiting_for": waiting_sentence(member),
        "waiting_s": round(member.now() - member.waiting_since_s, 3),
        "steps_done": done,
        "num_steps": planned,
        "compute_s": member.compute_s,
        "trained_s": member.trained_s,
        "lived_s": max(0.0, (member.trained_until_s if member.is_done() else member.now()) - member.began_s),
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


def measured_of(member: Member) -> dict[str, float]:
    """What this node has measured of itself, for planning: seconds of a step and of one way to a leader (0 before any),
    bytes a second of its link, seconds of work in a round.
    """
    times = [report.times_s for report in member.history if report.times_s][-ROUNDS_MEASURED:]
    work_s = sum(each["encode"] + each["apply"] for each in times) / max(1, len(times))
    announced = [rate for rate in (member.me.up_bytes_per_s, member.me.down_bytes_per_s) if rate]
    return {
        "step_s": member.compute_s / max(1, member.steps_taken),
        "rate_bytes_per_s": float(min(announced, default=member.fetcher.rate_bytes_per_s)),
        "one_way_s": 0.0 if math.isinf(member.trip.idle_s) else member.trip.idle_s / 2,
        "work_s": work_s,
        "num_elements": member.run.layout.num_elements,
    }


def phase_of(member: Member) -> str:
    """Where the round of the due entry stands, as this member sees it: train (offers are missing), transfer, reduce, ballot."""
    if "proposed" in member.marks:
        return "ballot"
    if "closed" in member.marks:
        return "reduce"
    heard = member.heard() if member.leading else member.leader_heard
    awaited = [p for p in member.state.expected() if p in heard]
    return "transfer" if awaited and all(p in member.book.offers for p in awaited) else "train"


def report_of(member: Member, before: State, entry: Entry, ballot: int) -> RoundReport:
    """What the round of an entry did, as this member saw it; the entry has just been applied to `before`."""
    marks, now = member.marks, member.now()
    made, last = marks.get("offered", now), marks.get("last_offer", now)
    closed = marks.get("closed", marks.get("proposed", now))
    proposed, certified = marks.get("proposed", now), marks.get("certified", now)
    up, down = member.ports.transport.counters()
    counted = {c.sender for c in entry.counted}
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
            "overrun": member.overrun_s.get(entry.sync, 0.0),
        }
        report.left_out = {p: _why_left_out(member, before, entry, p) for p in before.expected() if p not in counted}
        report.heldout_loss = member.heldout_loss.get(entry.sync)
        member.bytes_seen = (up, down)
    return report


def _why_left_out(member: Member, before: State, entry: Entry, peer: PeerId) -> str:
    """Why a contribution was not counted, as far as this member knows; a leader knows most."""
    beat, offer = member.beats.get(peer), member.book.offers.get(peer)
    if (beat is not None and beat.sits_out) or (peer == member.peer and offer is None and member.sits_out_sync >= before.sync):
        return "sat the sync out"
    if peer not in entry.heard:
        if not member.leading:
            return "not heard by the leader"
        return f"not heard since {member.now() - (beat.time_s if beat else member.round_start_s):.0f} s{'' if beat else ' or longer'}"
    if offer is None:
        steps = f" ({max(0, beat.num_steps - beat.steps_done)} steps to go)" if beat is not None and beat.num_steps else ""
        return f"did not offer in time{steps}"
    lacking = dict.fromkeys(p.owner for p in before.parts if _lacks(member, offer.root, p))
    return f"its parts were not held by {names(tuple(lacking))}" if lacking else "its parts were not held by all owners in time"


def _lacks(member: Member, root: Digest, part: Part) -> bool:
    """Whether an owner is known not to hold its part."""
    if part.owner == member.peer:
        return not member.parts.holds(root, [part])
    beat = member.beats.get(part.owner)
    return root not in beat.held if beat is not None else member.leading
