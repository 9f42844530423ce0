"""Hostile messages: real ones, recorded from a live swarm, with one or several things changed.

A `Case` is drawn before its message exists: it names a kind, a sender, and changes by numbers that are taken modulo what
there is to change. So an example of hypothesis is a list of small values, replays exactly and shrinks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st

from decentra.identity.keys import Identity
from decentra.identity.signing import sign
from decentra.rounds import records
from decentra.transport.base import MAX_CALL_BYTES
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

REQUESTS = ("hello", "heartbeat", "offer", "close", "prepare", "proposal", "commit", "head", "entries", "records", "status")
PULLS = ("contribution_root", "object_digest")
SENDERS = ("stranger", "member", "leader", "leader")
IN_TRAFFIC = ("heartbeat", "offer", "close", "proposal", "commit")
CHANGES = ("value",) * 8 + ("list", "list", "drop", "swap", "flip", "cut", "header")
STREAMS = ("cut", "silence", "empty", "extra", "long", "flip", "short", "none")

NUMBERS = (0, 1, 2, 7, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63))
FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e38, -1.5)
HUGE_BYTES = 1 << 18
HEADERS = (
    b"", b"[]", b"null", b"{}", b"[" * 20000, b'{"a":' * 5000, b"1" * 5000, b'"\\ud800"', b"\xff\xfe", b"NaN", b'{"r":1e999}',
    b'{"r":' + b"9" * 4000 + b"}",
)  # fmt: skip
_INTEGERS = {
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1), FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1), FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
}  # fmt: skip
_INNER: dict[tuple[str, str], type[Message]] = {
    ("Proposal", "entry"): swarm_pb2.Entry, ("CertifiedEntry", "entry"): swarm_pb2.Entry, ("Promise", "accepted_entry"): swarm_pb2.Entry,
    ("CertifiedEntry", "certificate"): swarm_pb2.Certificate, ("Hello", "record"): swarm_pb2.Signed,
    ("Records", "records"): swarm_pb2.Signed, ("Welcome", "records"): swarm_pb2.Signed, ("Welcome", "manifest"): swarm_pb2.Signed,
}  # fmt: skip
_SIGNED: dict[str, tuple[type[Message], bytes]] = {
    "contribution": (swarm_pb2.Contribution, records.DOMAIN_OFFER), "offer": (swarm_pb2.Contribution, records.DOMAIN_OFFER),
    "offers": (swarm_pb2.Contribution, records.DOMAIN_OFFER), "vote": (swarm_pb2.Vote, records.DOMAIN_VOTE),
    "votes": (swarm_pb2.Vote, records.DOMAIN_VOTE), "record": (swarm_pb2.Record, records.DOMAIN_RECORD),
    "records": (swarm_pb2.Record, records.DOMAIN_RECORD), "manifest": (swarm_pb2.Manifest, records.DOMAIN_MANIFEST),
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One change: how, where (an index into all places, modulo their number) and to what (the same for values)."""

    how: str
    where: int
    what: int


@dataclass(frozen=True)
class Case:
    """One hostile message. live: a copy of one on its way, else of one seen before; signer: whose key signs what was changed inside."""

    kind: str
    sender: str
    target: int
    live: bool
    signer: int
    changes: tuple[Change, ...]
    pause_ms: int
    stream: str


def _changes() -> st.SearchStrategy[Change]:
    return st.builds(Change, st.sampled_from(CHANGES), st.integers(0, 999), st.integers(0, 999))


def cases(kinds: tuple[str, ...] = REQUESTS + PULLS) -> st.SearchStrategy[Case]:
    """One case of these kinds."""
    return st.builds(
        Case, st.sampled_from(kinds), st.sampled_from(SENDERS), st.integers(0, 7), st.booleans(), st.integers(0, 3),
        st.lists(_changes(), min_size=1, max_size=3).map(tuple), st.integers(0, 80), st.sampled_from(STREAMS),
    )  # fmt: skip


# -- changing a message -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A field of a message somewhere in the whole; `done` carries what was changed up to the outermost bytes."""

    message: Message
    field: FieldDescriptor
    done: Callable[[], None]


@dataclass(frozen=True)
class Keys:
    """Who may sign what was changed: the signature is kept (None), or made with a key, rightful or not."""

    identity: Identity | None


def places(message: Message, keys: Keys, done: Callable[[], None] = lambda: None, name: str = "") -> Iterator[Place]:
    """Every field of a message, of what it holds, and of what its opaque bytes hold."""
    for field in message.DESCRIPTOR.fields:
        yield Place(message, field, done)
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inside = list(value)[:3] if field.is_repeated else [value] if message.HasField(field.name) else []
            for each in inside:
                yield from places(each, keys, done, field.name)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            yield from _opaque(message, field, keys, done, name)


def _opaque(message: Message, field: FieldDescriptor, keys: Keys, done: Callable[[], None], name: str) -> Iterator[Place]:
    here = (message.DESCRIPTOR.name, field.name)
    kind, domain = _SIGNED.get(name, (None, b"")) if here == ("Signed", "payload") else (_INNER.get(here), b"")
    raw = getattr(message, field.name)
    if field.is_repeated:
        raw = raw[0] if raw else b""
    if kind is None or not raw:
        return
    try:
        inner = kind.FromString(raw)
    except DecodeError:
        return

    def written() -> None:
        data = inner.SerializeToString()
        if field.is_repeated:
            getattr(message, field.name)[0] = data
        elif domain and keys.identity is not None:
            message.CopyFrom(swarm_pb2.Signed.FromString(sign(keys.identity, domain, data)))
        else:
            setattr(message, field.name, data)
        done()

    yield from places(inner, keys, written, field.name if here[0] != "Signed" else name)


def changed(message: Message, case: Case, keys: Keys, ids: list[str], others: list[Message]) -> bytes:
    """The message of a case as bytes, at most MAX_CALL_BYTES. ids: peers a string may be set to; others: to swap parts with."""
    after: list[Change] = []
    for change in case.changes:
        if change.how in ("flip", "cut"):
            after.append(change)
        else:
            _change(message, change, keys, ids, others)
    data = bytearray(message.SerializeToString())
    for change in after:
        if change.how == "cut":
            del data[change.where * len(data) // 1000 :]
        elif data:
            data[change.where * len(data) // 1000] ^= 1 << change.what % 8
    return bytes(data[:MAX_CALL_BYTES])


def _change(message: Message, change: Change, keys: Keys, ids: list[str], others: list[Message]) -> None:
    found = list(places(message, keys))
    if change.where % 20:  # a message for another run is not read on: seldom enough
        found = [p for p in found if p.field.name != "run_id" or p.message is not message]
    if change.how == "swap" and others:
        message.CopyFrom(others[change.what % len(others)])
        return
    if change.how == "header":
        found = [p for p in found if p.field.type == FieldDescriptor.TYPE_BYTES and not p.field.is_repeated]
    elif change.how == "list":
        found = [p for p in found if p.field.is_repeated]
    if not found:
        return
    place = found[change.where % len(found)]
    if change.how == "drop":
        place.message.ClearField(place.field.name)
    elif change.how == "header":
        setattr(place.message, place.field.name, HEADERS[change.what % len(HEADERS)])
    elif place.field.is_repeated:
        _stretch(place, change.what, ids)
    elif place.field.type != FieldDescriptor.TYPE_MESSAGE:
        setattr(place.message, place.field.name, value_of(place.field, getattr(place.message, place.field.name), change.what, ids))
    else:
        getattr(place.message, place.field.name).SetInParent()
    place.done()


def _stretch(place: Place, what: int, ids: list[str]) -> None:
    """Empty a list, double it, or make it as long as HUGE_BYTES allow."""
    field, items = place.field, getattr(place.message, place.field.name)
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    blank: Any = {FieldDescriptor.TYPE_BYTES: b"", FieldDescriptor.TYPE_STRING: ""}.get(field.type, 0)
    one = list(items)[:1] or ([] if is_message else [value_of(field, blank, what, ids)])
    how = what % 4
    if how == 0:
        place.message.ClearField(field.name)
    elif how == 1:
        items.extend(list(items))
    elif how == 2:
        size = one[0].ByteSize() if is_message and one else 40
        items.extend(one * (HUGE_BYTES // max(2, size + 2)))
    elif is_message:
        for _ in range(HUGE_BYTES // 16):
            items.add()
    elif one and isinstance(one[0], int):
        items.extend([what] * 1000)
    else:
        items.extend(one[:1] * 1000)


def value_of(field: FieldDescriptor, now: Any, what: int, ids: list[str]) -> Any:
    """A hostile value of a field's type."""
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        number = (*NUMBERS, now + 1, now - 1)[what % (len(NUMBERS) + 2)]
        return min(high, max(low, number))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return not now
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return FLOATS[what % len(FLOATS)]
    if field.type == FieldDescriptor.TYPE_STRING:
        texts = ("", "x" * 10_000, "\x00", "é" * 64, "fp32", "int3", *ids)
        return texts[what % len(texts)]
    flipped = bytes([*now[:-1], now[-1] ^ 1]) if now else b"\x01"
    blobs = (b"", b"\x00" * 32, b"\xff" * 32, b"?" * 16, flipped, bytes(now[:-1]), now + b"\x00", b"\xff" * HUGE_BYTES)
    return blobs[what % len(blobs)]


# -- fitting a message to a member's round ------------------------------------------------------------------------------


def fitted(message: Message, member: Any, sender: str) -> None:
    """Make a recorded request one of the member's present round, so that what is changed then is what it is judged by."""
    kind = message.WhichOneof("kind") if isinstance(message, rounds_pb2.Request) else None
    if kind is None:
        return
    body = getattr(message, kind)
    now = {"r": member.state.r, "sync": member.state.sync, "state_hash": member.hash, "attempt": member.attempt, "ballot": member.attempt}
    for name, value in now.items():
        if name in body.DESCRIPTOR.fields_by_name:
            setattr(body, name, value)
    if kind == "heartbeat":
        known = member.state.member(sender)
        body.member.peer, body.newcomer = sender, known is None
        body.member.incarnation = body.member.incarnation if known is None else known.incarnation
    if kind == "proposal":
        entry = swarm_pb2.Entry.FromString(body.entry)
        entry.r, entry.state_hash = member.state.r, member.hash
        body.entry = entry.SerializeToString()


def by_hand(kind: str, run_id: bytes, member: Any) -> Message:
    """A true message of a kind that a quiet swarm seldom sends."""
    if kind == "contribution_root":
        roots = [*member.parts.held] or [b"?" * 32]
        return state_pb2.PullRequest(run_id=run_id, contribution_root=roots[0], first_block=0, num_blocks=1)
    if kind == "object_digest":
        names = member.ports.store._objects.names()
        return state_pb2.PullRequest(run_id=run_id, object_digest=names[0], first_block=0, num_blocks=1)
    bodies: dict[str, Any] = {
        "prepare": rounds_pb2.Prepare(r=member.state.r, ballot=member.attempt + 1),
        "head": state_pb2.HeadQuery(with_snapshot=True),
        "entries": state_pb2.EntriesQuery(first_r=max(0, member.state.r - 2), limit=4),
        "status": rounds_pb2.StatusQuery(),
        "hello": rounds_pb2.Hello(protocol_version=1, golden_digest=member.run.golden_digest, run_config=b"{}"),
        "records": rounds_pb2.Records(),
        "heartbeat": rounds_pb2.Heartbeat(r=member.state.r, state_hash=member.hash, member=records.to_member(member.me)),
    }
    return rounds_pb2.Request(run_id=run_id, **{kind: bodies.get(kind)})


def header_of(data: bytes, what: int) -> bytes:
    """A snapshot's header with one value of it changed, or none of its kind at all."""
    if what % 3 == 0:
        return HEADERS[what // 3 % len(HEADERS)]
    raw = json.loads(data)
    keys = sorted(raw)
    raw[keys[what % len(keys)]] = (None, -1, 2**70, "x", [], {}, [[]], [[1]], {"a": [[1, "2"]]}, True)[what // 7 % 10]
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
