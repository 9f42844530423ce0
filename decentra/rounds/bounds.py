"""How much a peer may send: its size, its sender and its counts are judged before anything is verified or kept.

A refusal is a sentence; "" where the message may be read on. What each kind may weigh is in docs/protocol.md, "What a peer may send".
"""

from __future__ import annotations

from collections.abc import Sized

from decentra.ledger.state import State
from decentra.transport.base import MAX_CALL_BYTES
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

LENGTH_DELIMITED = 2
MAX_FIELDS = 4
"""Top-level fields of a request: its run, its kind, and what a later version may add."""

MAX_SMALL_BYTES = 1 << 10
MAX_RECORDS_BYTES = 128 << 10
MAX_OFFER_BYTES = 16 << 10
MAX_WISH_BYTES = 4 << 10
BASE_BYTES = 64 << 10
"""A message about the round may weigh this, and MAX_OFFER_BYTES more for each member of the view."""

MAX_RECORDS_A_CALL = 16
MAX_NEWCOMERS = 64
"""Newcomers whose heartbeats are kept at a time; an entry admits at most as many as the view has members."""

MAX_STEPS = 1 << 32
MAX_ATTEMPT_JUMP = 1 << 20
"""How far above a member's own attempt another may lie: it can be reached by waiting, and none is the last."""

MAX_ASIDE = 256
"""Messages under way whose answer does not matter."""

MAX_PHASE_CHARS = 200
MAX_LIST = 1 << 14
"""Elements of any one list of an entry or certificate; the next check is exact, and knows the view."""

OF_MEMBERS = frozenset(("offer", "close", "prepare", "proposal"))
_SMALL = frozenset(("prepare", "head", "entries", "status"))
_OF_DONORS = frozenset(("hello", "head", "entries", "records", "status"))
REPLY_TO = {
    "hello": "welcome", "heartbeat": "heartbeat", "offer": "done", "close": "report", "prepare": "promise", "proposal": "accept",
    "commit": "done", "head": "head", "entries": "entries", "records": "records", "status": "status", "probe": "probed",
}  # fmt: skip
_KIND_OF = {f.number: f.name for f in rounds_pb2.Request.DESCRIPTOR.oneofs_by_name["kind"].fields}


def kind_of(request: bytes) -> str:
    """The kind of a request, by its top-level tags alone. Raises ValueError where they are not those of one request."""
    kinds, at, fields = [], 0, 0
    while at < len(request) and fields < MAX_FIELDS:
        tag, after = _varint(request, at)
        if tag & 7 != LENGTH_DELIMITED:
            break
        size, at = _varint(request, after)
        kinds += [_KIND_OF[tag >> 3]] if tag >> 3 in _KIND_OF else []
        at, fields = at + size, fields + 1
    if at != len(request) or len(kinds) != 1:
        raise ValueError(f"{len(request)} bytes are not one request of a known kind")
    return kinds[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise ValueError(f"{len(data)} bytes are not one request: a number at byte {at} does not end")


def request_fault(kind: str, size_bytes: int, sender: PeerId, state: State) -> str:
    """Why a request of this kind and size is not read from this sender."""
    if kind in OF_MEMBERS and state.member(sender) is None:
        return f"only a member of the view may send a {kind}, and {sender[:8]} is none at entry {state.r}"
    limit = max_request_bytes(kind, len(state.members))
    return f"a {kind} of {size_bytes} bytes is over the limit of {limit}" if size_bytes > limit else ""


def max_request_bytes(kind: str, num_members: int) -> int:
    """What a request of a kind may weigh in a view of `num_members`."""
    if kind in _SMALL:
        return MAX_SMALL_BYTES
    if kind in ("hello", "records"):
        return MAX_RECORDS_BYTES
    if kind == "offer":
        return MAX_OFFER_BYTES + MAX_SMALL_BYTES
    return BASE_BYTES + MAX_OFFER_BYTES * num_members


def reply_fault(kind: str, reply: bytes, num_members: int) -> str:
    """Why a reply to a request of `kind` is not read: what is asked of donors may fill a message, what a round asks for may not."""
    limit = MAX_CALL_BYTES if kind in _OF_DONORS else 2 * (BASE_BYTES + MAX_OFFER_BYTES * num_members)
    return f"its reply of {len(reply)} bytes to a {kind} is over the limit of {limit}" if len(reply) > limit else ""


def lists_fault(entry: swarm_pb2.Entry) -> str:
    """Why an entry is not made into plain values: they cost many times the bytes they came in."""
    outer: tuple[Sized, ...] = (
        entry.counted, entry.sums, entry.heard, entry.admitted, entry.removed, entry.returned, entry.granted, entry.next_parts,
        entry.wishes,
    )  # fmt: skip
    size = max(map(len, outer))
    if size <= MAX_LIST:
        leases = sum(len(lease.intervals) for lease in (*entry.returned, *entry.granted))
        size = leases + sum(len(each.claim) for each in entry.counted) + sum(len(each.terms) for each in entry.sums)
    return f"an entry with a list of {size} elements is over the limit of {MAX_LIST}" if size > MAX_LIST else ""


def beat_fault(beat: rounds_pb2.Heartbeat, state: State, attempt: int, num_newcomers: int) -> str:
    """Why a heartbeat of the due entry is not noted. attempt: the judge's own; num_newcomers: others whose beats it keeps."""
    known = state.member(beat.member.peer)
    is_member = known is not None and known.incarnation == beat.member.incarnation
    if beat.newcomer is is_member:
        return f"{beat.member.peer[:8]} says that it is {'no' if beat.newcomer else 'a'} member of the view at entry {state.r}"
    if beat.newcomer and num_newcomers >= MAX_NEWCOMERS:
        return f"{num_newcomers} newcomers wait already; ask again later"
    if len(beat.held) > len(state.members) or any(len(root) != 32 for root in beat.held):
        return f"it holds {len(beat.held)} roots, or they are none, in a view of {len(state.members)}"
    if max(beat.steps_done, beat.num_steps) > MAX_STEPS:
        return f"it has done {beat.steps_done} of {beat.num_steps} steps"
    if beat.HasField("wish") and beat.wish.ByteSize() > MAX_WISH_BYTES:
        return f"its wish of {beat.wish.ByteSize()} bytes is over the limit of {MAX_WISH_BYTES}"
    return attempt_fault(beat.attempt, attempt)


def attempt_fault(attempt: int, own: int) -> str:
    """Why a member at attempt `own` does not follow another to `attempt`: the last number would end the round for good."""
    return f"attempt {attempt} is absurd: this member is at {own}" if attempt > own + MAX_ATTEMPT_JUMP else ""
