"""Between plain values and wire messages: entries, certificates, offers, snapshots.

Bytes that are signed or hashed are made once, here, by their author; everyone else keeps the bytes it received.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from decentra.directory.base import MAX_RECORD_BYTES
from decentra.ledger.chain import digest
from decentra.ledger.entry import Counted, Entry, Sum, Term
from decentra.ledger.state import Member, Part
from decentra.ledger.store import Snapshot
from decentra.rounds.ballot import Certificate, VotePayload
from decentra.rounds.bounds import MAX_LIST, MAX_OFFER_BYTES, lists_fault
from decentra.rounds.offers import Offer
from decentra.seams import Verifier
from decentra.types import Digest, Intervals, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

M = TypeVar("M", bound=Message)

MAX_ENDPOINTS = 8
MAX_ENDPOINT_CHARS = 260

DOMAIN_OFFER = b"decentra/offer"
DOMAIN_WISH = b"decentra/wish"
DOMAIN_VOTE = b"decentra/vote"
DOMAIN_RECORD = b"decentra/record"
DOMAIN_MANIFEST = b"decentra/manifest"


def _to_intervals(intervals: Intervals) -> list[swarm_pb2.Interval]:
    return [swarm_pb2.Interval(start=start, stop=stop) for start, stop in intervals]


def _of_intervals(messages: Iterable[swarm_pb2.Interval]) -> Intervals:
    return tuple((m.start, m.stop) for m in messages)


def to_member(member: Member) -> swarm_pb2.Member:
    """A member as it announces itself; what the ledger knows of it does not travel."""
    return swarm_pb2.Member(
        peer=member.peer,
        incarnation=member.incarnation,
        dialable=member.dialable,
        announced_samples=member.announced_samples,
        up_bytes_per_s=member.up_bytes_per_s,
        down_bytes_per_s=member.down_bytes_per_s,
    )


def of_member(message: swarm_pb2.Member) -> Member:
    """A member as announced; whether its numbers can be is judged by view.announcement_fault."""
    return Member(
        message.peer, message.incarnation, message.dialable, message.announced_samples, message.up_bytes_per_s, message.down_bytes_per_s
    )


def to_parts(parts: Iterable[Part]) -> list[swarm_pb2.Part]:
    """A partition map."""
    return [swarm_pb2.Part(first_block=p.first_block, num_blocks=p.num_blocks, owner=p.owner) for p in parts]


def of_parts(messages: Iterable[swarm_pb2.Part]) -> tuple[Part, ...]:
    """A partition map."""
    return tuple(Part(m.first_block, m.num_blocks, m.owner) for m in messages)


def to_sums(sums: Iterable[Sum]) -> list[swarm_pb2.Sum]:
    """What is to be added."""
    return [
        swarm_pb2.Sum(
            first_block=s.first_block,
            num_blocks=s.num_blocks,
            codec=s.codec,
            terms=[swarm_pb2.Term(blob=t.blob, coefficient_bits=t.coefficient_bits) for t in s.terms],
        )
        for s in sums
    ]


def of_sums(messages: Iterable[swarm_pb2.Sum]) -> tuple[Sum, ...]:
    """What is to be added."""
    return tuple(
        Sum(m.first_block, m.num_blocks, m.codec, tuple(Term(t.blob, t.coefficient_bits) for t in m.terms)) for m in messages
    )


def entry_bytes(entry: Entry) -> bytes:
    """The bytes of an entry: made by its leader, opaque to all others."""
    message = swarm_pb2.Entry(
        run_id=entry.run_id,
        lineage=bytes.fromhex(entry.lineage),
        r=entry.r,
        state_hash=entry.state_hash,
        fragment=entry.fragment,
        counted=[
            swarm_pb2.Counted(
                sender=c.sender,
                incarnation=c.incarnation,
                root=c.root,
                weight_tokens=c.weight_tokens,
                num_steps=c.num_steps,
                claim=_to_intervals(c.claim),
                base_sync=c.base_sync,
            )
            for c in entry.counted
        ],
        sums=to_sums(entry.sums),
        heard=entry.heard,
        admitted=[to_member(m) for m in entry.admitted],
        removed=entry.removed,
        returned=[swarm_pb2.Lease(peer=p, intervals=_to_intervals(i)) for p, i in sorted(entry.returned.items())],
        granted=[swarm_pb2.Lease(peer=p, intervals=_to_intervals(i)) for p, i in entry.granted.items()],
        next_parts=to_parts(entry.next_parts),
        settings=entry.settings.encode(),
        wishes=[to_signed(wish) for wish in entry.wishes],
    )
    if entry.sync is not None:
        message.sync = entry.sync
    return message.SerializeToString()


def parse_entry(data: bytes) -> Entry:
    """Read an entry. Raises ValueError."""
    message = _parse(swarm_pb2.Entry, data)
    if fault := lists_fault(message):
        raise ValueError(fault)
    return Entry(
        run_id=message.run_id,
        lineage=message.lineage.hex(),
        r=message.r,
        state_hash=message.state_hash,
        sync=message.sync if message.HasField("sync") else None,
        fragment=message.fragment,
        counted=tuple(
            Counted(c.sender, c.incarnation, c.root, c.weight_tokens, c.num_steps, _of_intervals(c.claim), c.base_sync)
            for c in message.counted
        ),
        sums=of_sums(message.sums),
        heard=tuple(message.heard),
        admitted=tuple(of_member(m) for m in message.admitted),
        removed=tuple(message.removed),
        returned={lease.peer: _of_intervals(lease.intervals) for lease in message.returned},
        granted={lease.peer: _of_intervals(lease.intervals) for lease in message.granted},
        next_parts=of_parts(message.next_parts),
        settings=message.settings.decode(),
        wishes=tuple(wish.SerializeToString() for wish in message.wishes),
    )


def vote_payload(vote: VotePayload) -> bytes:
    """What a vote signs."""
    return swarm_pb2.Vote(
        run_id=vote.run_id,
        lineage=bytes.fromhex(vote.lineage),
        r=vote.r,
        ballot=vote.ballot,
        entry_digest=vote.entry_digest,
        voter=vote.voter,
        incarnation=vote.incarnation,
    ).SerializeToString()


def open_vote(verifier: Verifier, signed: bytes) -> VotePayload:
    """Verify and read a signed vote. Raises ValueError."""
    peer, payload = verifier.open(DOMAIN_VOTE, signed)
    m = _parse(swarm_pb2.Vote, payload)
    if m.voter != peer:
        raise ValueError(f"a vote of {m.voter[:8]} is signed by {peer[:8]}")
    return VotePayload(m.run_id, m.lineage.hex(), m.r, m.ballot, m.entry_digest, m.voter, m.incarnation)


def certificate_bytes(certificate: Certificate) -> bytes:
    """A certificate as it travels."""
    votes = [_parse(swarm_pb2.Signed, vote) for vote in certificate.votes]
    message = swarm_pb2.Certificate(r=certificate.r, ballot=certificate.ballot, entry_digest=certificate.entry_digest, votes=votes)
    return message.SerializeToString()


def parse_certificate(data: bytes) -> Certificate:
    """Read a certificate. Raises ValueError."""
    m = _parse(swarm_pb2.Certificate, data)
    if len(m.votes) > MAX_LIST:
        raise ValueError(f"a certificate of {len(m.votes)} votes is over the limit of {MAX_LIST}")
    return Certificate(m.r, m.ballot, m.entry_digest, tuple(vote.SerializeToString() for vote in m.votes))


def contribution_payload(offer: Offer, run_id: bytes, norm: float) -> bytes:
    """What an offer signs and a root names. `offer.signed` and `offer.root` are not read."""
    return swarm_pb2.Contribution(
        run_id=run_id,
        lineage=bytes.fromhex(offer.lineage),
        sync=offer.sync,
        fragment=offer.fragment,
        sender=offer.sender,
        incarnation=offer.incarnation,
        base_sync=offer.base_sync,
        weight_tokens=offer.weight_tokens,
        num_steps=offer.num_steps,
        claim=_to_intervals(offer.claim),
        codec=offer.codec,
        num_chunks=offer.num_chunks,
        blocks_digest=offer.blocks_digest,
        norm=norm,
    ).SerializeToString()


def root_of(payload: bytes) -> Digest:
    """The root: digest of a contribution's signed payload."""
    return digest("decentra/contribution", payload)


def open_offer(verifier: Verifier, run_id: bytes, signed: bytes) -> Offer:
    """Verify and read a signed offer. Raises ValueError."""
    if len(signed) > MAX_OFFER_BYTES:
        raise ValueError(f"an offer of {len(signed)} bytes is over the limit of {MAX_OFFER_BYTES}")
    peer, payload = verifier.open(DOMAIN_OFFER, signed)
    m = _parse(swarm_pb2.Contribution, payload)
    if m.sender != peer or m.run_id != run_id:
        raise ValueError(f"an offer of {m.sender[:8]} is signed by {peer[:8]} or is for another run")
    return Offer(
        signed=signed,
        root=root_of(payload),
        sync=m.sync,
        fragment=m.fragment,
        sender=m.sender,
        incarnation=m.incarnation,
        base_sync=m.base_sync,
        weight_tokens=m.weight_tokens,
        num_steps=m.num_steps,
        claim=_of_intervals(m.claim),
        codec=m.codec,
        num_chunks=m.num_chunks,
        blocks_digest=m.blocks_digest,
        lineage=m.lineage.hex(),
    )


def to_signed(signed: bytes) -> swarm_pb2.Signed:
    """Signed bytes as the message that carries them."""
    return _parse(swarm_pb2.Signed, signed)


def to_snapshot(snapshot: Snapshot) -> state_pb2.Snapshot:
    """A snapshot's header and link."""
    return state_pb2.Snapshot(
        r=snapshot.r,
        header=snapshot.header,
        previous_hash=snapshot.previous_hash,
        previous_entry_digest=snapshot.previous_entry_digest,
    )


def of_snapshot(m: state_pb2.Snapshot) -> Snapshot:
    """A snapshot's header and link."""
    return Snapshot(m.r, m.header, m.previous_hash, m.previous_entry_digest)


def close_digest(close: rounds_pb2.Close) -> Digest:
    """Names a close within a process: (entry, ballot, sync, roots, map)."""
    parts = b"".join(p.SerializeToString() + b"|" for p in close.parts)
    return digest("decentra/close", f"{close.r}/{close.ballot}/{close.sync}".encode(), b"".join(close.roots), parts)


def open_record(verifier: Verifier, signed: bytes) -> tuple[PeerId, int]:
    """(peer, sequence) of a directory record, verified. Raises ValueError."""
    record = read_record(verifier, signed)
    return record.peer, record.sequence


def read_record(verifier: Verifier, signed: bytes) -> swarm_pb2.Record:
    """A directory record, its size judged, then verified, then read. Raises ValueError."""
    if len(signed) > MAX_RECORD_BYTES:
        raise ValueError(f"a record of {len(signed)} bytes is over the limit of {MAX_RECORD_BYTES}")
    peer, payload = verifier.open(DOMAIN_RECORD, signed)
    record = _parse(swarm_pb2.Record, payload)
    if record.peer != peer:
        raise ValueError(f"a record of {record.peer[:8]} is signed by {peer[:8]}")
    if len(record.endpoints) > MAX_ENDPOINTS or any(len(endpoint) > MAX_ENDPOINT_CHARS for endpoint in record.endpoints):
        raise ValueError(f"the record of {peer[:8]} has {len(record.endpoints)} endpoints, or one that is none")
    return record


def _parse(kind: type[M], data: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
    return message
