"""What a node answers: every message is judged by its sender, its run and its round before anything is done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from decentra.config import differing_keys, run_from_bytes
from decentra.errors import PeerError, RefusedError, SetupError
from decentra.ledger.chain import digest
from decentra.rounds import accept, bounds, compose, exchange, owner, records
from decentra.rounds.heads import head_of, oldest_entry
from decentra.rounds.meeting import called
from decentra.rounds.replay_cost import replay_bytes
from decentra.rounds.snapshots import snapshot_bytes
from decentra.rounds.status import status_of
from decentra.rounds.streams import Streams
from decentra.rounds.view import is_quorum
from decentra.transport.base import MAX_CALL_BYTES
from decentra.types import PROTOCOL_VERSION, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

ENTRIES_A_REPLY = 64
MAX_REASON_CHARS = 500
"""A reason may quote what was sent; it travels back as a header."""

RECORDS_REPLY_BYTES = 1 << 20
STATUS_PERIOD_S = 0.25
STATUS_ROUNDS = 1024
ENTRIES_REPLY_BYTES = MAX_CALL_BYTES - (64 << 10)


class Server:
    """The Handler of a node's transport. Until `member` is set it refuses by name."""

    def __init__(self) -> None:
        self.member: Member | None = None
        self._streams = Streams()

    async def on_call(self, sender: PeerId, request: bytes) -> bytes:
        """See transport.base.Handler."""
        member = self._ready()
        try:
            kind = bounds.kind_of(request)
            if fault := bounds.request_fault(kind, len(request), sender, member.state):
                raise RefusedError(fault)
            message = rounds_pb2.Request.FromString(request)
            if message.run_id != member.run.run_id and (kind != "hello" or message.run_id):
                raise RefusedError(f"the message is for another run than {member.run.run_id.hex()[:8]}")
            _same_lineage(member, sender, message, kind)
            return (await _ANSWERS[kind](member, sender, getattr(message, kind))).SerializeToString()
        except RefusedError:
            raise
        except SetupError as error:
            member.ports.note(f"a message of {sender[:8]} cannot be answered: {error}")
            raise RefusedError(f"it cannot write to its disk: {error}") from error
        except PeerError as error:
            raise _of_another(error) from error
        except (ValueError, DecodeError) as error:
            raise RefusedError(str(error)[:MAX_REASON_CHARS]) from error

    async def on_pull(self, sender: PeerId, request: bytes) -> AsyncIterator[bytes]:
        """See transport.base.Handler."""
        member = self._ready()
        if len(request) > bounds.MAX_SMALL_BYTES:
            raise RefusedError(f"a pull of {len(request)} bytes is over the limit of {bounds.MAX_SMALL_BYTES}")
        try:
            message = state_pb2.PullRequest.FromString(request)
        except DecodeError as error:
            raise RefusedError(str(error)) from error
        if message.run_id != member.run.run_id:
            raise RefusedError(f"the pull is for another run than {member.run.run_id.hex()[:8]}")
        try:
            async with aclosing(self._streams.frames(member, message)) as frames:
                async for frame in frames:
                    yield frame
        except PeerError as error:
            raise _of_another(error) from error

    def _ready(self) -> Member:
        if self.member is None:
            raise RefusedError("this node is still joining")
        return self.member


def _of_another(error: PeerError) -> RefusedError:
    return RefusedError(f"needed another peer: {error}"[:MAX_REASON_CHARS])


def _same_lineage(member: Member, sender: PeerId, message: rounds_pb2.Request, kind: str) -> None:
    """Rounds are agreed within a lineage; where another one shows it is looked into."""
    tells = message.HasField("lineage") or kind in _WITHIN_A_LINEAGE
    if not tells or message.lineage.hex() == member.state.lineage:
        return
    member.outlook.met = sender
    member.changed.notify()
    if kind in _WITHIN_A_LINEAGE:
        theirs, mine = called(message.lineage.hex()), called(member.state.lineage)
        raise RefusedError(f"the message is of {theirs}, this node is in {mine}")


async def _hello(member: Member, sender: PeerId, message: rounds_pb2.Hello) -> rounds_pb2.Reply:
    run = member.run
    if message.protocol_version != PROTOCOL_VERSION:
        raise RefusedError(f"protocol version {message.protocol_version} is not {PROTOCOL_VERSION}; install the same decentra as the swarm")
    if message.golden_digest != run.golden_digest:
        reason = "the golden vectors come out differently on this machine, so its replica would drift; update torch or report the CPU"
        raise RefusedError(reason)
    if run.token_digest and digest("decentra/token", message.token) != run.token_digest:
        raise RefusedError("the invite token is wrong; ask for a new join string")
    if message.run_config:
        keys = differing_keys(run_from_bytes(message.run_config), run.founded)
        if keys:
            raise RefusedError(f"the run's settings differ in {', '.join(keys)}; join by the string alone")
    if message.record:
        owner_of_record = records.read_record(member.ports.verifier, message.record).peer
        if owner_of_record != sender:
            raise RefusedError(f"a record of {owner_of_record[:8]} came from {sender[:8]}")
        member.learn_record(message.record)
        share = rounds_pb2.Request(records=rounds_pb2.Records(records=[message.record]))
        for peer in member.state.peers():
            if peer not in (sender, member.peer) and len(member.aside) < bounds.MAX_ASIDE:
                member.spawn(member.tell(peer, share))
    return rounds_pb2.Reply(welcome=rounds_pb2.Welcome(manifest=run.manifest, records=await _known_records(member)))


async def _known_records(member: Member) -> list[bytes]:
    """Records of others, those of the view first, as many as a reply may carry."""
    by_peer, size, found = await member.ports.directory.records(), 0, []
    view = [peer for peer in member.state.peers() if peer in by_peer]
    for peer in dict.fromkeys((*view, *by_peer)):
        size += len(by_peer[peer])
        if size > RECORDS_REPLY_BYTES:
            break
        found.append(by_peer[peer])
    return found


async def _heartbeat(member: Member, sender: PeerId, message: rounds_pb2.Heartbeat) -> rounds_pb2.Reply:
    pause_s = compose.period_s(member)
    exchange.hear(member, sender, message, pause_s)
    reply = rounds_pb2.HeartbeatReply(r=member.state.r, attempt=member.attempt, state_hash=member.hash, period_s=pause_s)
    if member.leading and message.r == member.state.r:
        reply.phase, reply.share_done = member.waiting_for, compose.share_done(member, sender)
        reply.heard.extend(member.heard())
        reply.waiting = member.collecting and is_quorum(member.state.members, reply.heard)
        lacking = [o for o in member.book.offers.values() if o.root not in set(message.held) and o.sender != sender]
        reply.offers.extend(records.to_signed(o.signed) for o in lacking)
    return rounds_pb2.Reply(heartbeat=reply)


async def _offer(member: Member, sender: PeerId, message: rounds_pb2.Offer) -> rounds_pb2.Reply:
    fault = exchange.take_offer(member, message.contribution.SerializeToString())
    if fault:
        raise RefusedError(f"the offer is refused: {fault}")
    return rounds_pb2.Reply(done=rounds_pb2.Done())


async def _close(member: Member, sender: PeerId, message: rounds_pb2.Close) -> rounds_pb2.Reply:
    return rounds_pb2.Reply(report=await owner.reduce_close(member, sender, message))


async def _prepare(member: Member, sender: PeerId, message: rounds_pb2.Prepare) -> rounds_pb2.Reply:
    return rounds_pb2.Reply(promise=await accept.answer_prepare(member, sender, message))


async def _proposal(member: Member, sender: PeerId, message: rounds_pb2.Proposal) -> rounds_pb2.Reply:
    return rounds_pb2.Reply(accept=await accept.consider(member, sender, message))


async def _commit(member: Member, sender: PeerId, message: swarm_pb2.CertifiedEntry) -> rounds_pb2.Reply:
    certified, r = message.SerializeToString(), member.state.r
    applied = await member.commit(certified, sender)
    if applied:
        member.spawn(exchange.pass_along(member, certified, r))
    note = "applied" if applied else f"at entry {member.state.r}"
    return rounds_pb2.Reply(done=rounds_pb2.Done(note=note, r=member.state.r))


def _replay_bytes(member: Member, first_r: int, end_r: int) -> int:
    """Bytes of entries first_r to end_r - 1 with their blobs, counted up to two snapshots."""
    entries = member.ports.store.entries(first_r, max(0, end_r - first_r))
    return replay_bytes(member.run.machine, (certified for _, certified in entries), 2 * snapshot_bytes(member.run))


async def _head(member: Member, sender: PeerId, message: state_pb2.HeadQuery) -> rounds_pb2.Reply:
    store, head = member.ports.store, head_of(member)
    # Only certified states are donated: S_r is certified by entry r, S_0 by the manifest.
    certified = [r for r in store.snapshots() if r < member.state.r or r == 0]
    chosen = message.snapshot_r if message.HasField("snapshot_r") and message.snapshot_r in certified else max(certified, default=0)
    if message.with_snapshot and certified:
        head.snapshot.CopyFrom(records.to_snapshot(store.snapshot(chosen)))
    if message.HasField("first_r"):
        after_r = max(message.first_r, chosen)
        head.after_snapshot_bytes = await member.ports.run_blocking(_replay_bytes, member, after_r, member.state.r)
        if head.oldest_entry <= message.first_r:
            before = await member.ports.run_blocking(_replay_bytes, member, message.first_r, chosen)
            head.replay_bytes = before + head.after_snapshot_bytes
    return rounds_pb2.Reply(head=head)


async def _entries(member: Member, sender: PeerId, message: state_pb2.EntriesQuery) -> rounds_pb2.Reply:
    limit = min(message.limit, ENTRIES_A_REPLY) if message.first_r >= oldest_entry(member) else 0
    found = member.ports.store.entries(message.first_r, limit, ENTRIES_REPLY_BYTES)
    return rounds_pb2.Reply(entries=state_pb2.Entries(entries=[swarm_pb2.CertifiedEntry.FromString(data) for _, data in found]))


async def _records(member: Member, sender: PeerId, message: rounds_pb2.Records) -> rounds_pb2.Reply:
    if len(message.records) > bounds.MAX_RECORDS_A_CALL:
        raise RefusedError(f"{len(message.records)} records in one message are over the limit of {bounds.MAX_RECORDS_A_CALL}")
    is_member = member.state.member(sender) is not None
    for signed in message.records:
        peer = records.read_record(member.ports.verifier, signed).peer
        if peer != sender and not is_member:
            raise RefusedError(f"a record of {peer[:8]} came from {sender[:8]}, which is no member of the view")
        member.learn_record(signed)
    return rounds_pb2.Reply(records=rounds_pb2.Records(records=await _known_records(member)))


async def _status(member: Member, sender: PeerId, message: rounds_pb2.StatusQuery) -> rounds_pb2.Reply:
    if message.peer not in ("", member.peer):
        if member.state.member(message.peer) is None:
            raise RefusedError(f"{message.peer[:8]} is not a member here")
        return await member.call(message.peer, rounds_pb2.Request(status=rounds_pb2.StatusQuery()), member.silence_s())
    said_s, said = member.status_said
    if member.now() - said_s >= STATUS_PERIOD_S:
        # Cheap to ask and dear to answer: made anew only so often, whoever asks.
        status = status_of(member)
        status["rounds"] = status["rounds"][-STATUS_ROUNDS:]
        said = json.dumps(status)
        member.status_said = (member.now(), said)
    return rounds_pb2.Reply(status=rounds_pb2.Status(json=said))


async def _probe(member: Member, sender: PeerId, message: rounds_pb2.Probe) -> rounds_pb2.Reply:
    peer, payload = member.ports.verifier.open(records.DOMAIN_RECORD, message.record)
    record = swarm_pb2.Record.FromString(payload)
    if not sender == peer == record.peer or record.run_id != member.run.run_id:
        raise RefusedError(f"a node is dialled back at its own record of this run only, not at one of {record.peer[:8]}")
    if member.ports.dial_back is None:
        raise RefusedError("this node dials nobody back; ask another")
    return rounds_pb2.Reply(probed=await member.ports.dial_back.probe(record))


_WITHIN_A_LINEAGE = ("heartbeat", "offer", "close", "prepare", "proposal", "commit")

_ANSWERS: dict[str, Callable[[Member, PeerId, Any], Awaitable[rounds_pb2.Reply]]] = {
    "hello": _hello,
    "heartbeat": _heartbeat,
    "offer": _offer,
    "close": _close,
    "prepare": _prepare,
    "proposal": _proposal,
    "commit": _commit,
    "head": _head,
    "entries": _entries,
    "records": _records,
    "status": _status,
    "probe": _probe,
}
