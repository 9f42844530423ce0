"""What a node answers: every message is judged by its sender, its run and its round before anything is done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from decentra.config import differing_keys, run_from_bytes
from decentra.errors import PeerError, RefusedError
from decentra.ledger.chain import digest
from decentra.rounds import accept, exchange, owner, records
from decentra.rounds.fetch import digest_frames
from decentra.rounds.heads import head_of, oldest_entry
from decentra.rounds.meeting import called
from decentra.rounds.status import status_of
from decentra.rounds.view import is_quorum
from decentra.types import PROTOCOL_VERSION, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

ENTRIES_A_REPLY = 64


class Server:
    """The Handler of a node's transport. Until `member` is set it refuses by name."""

    def __init__(self) -> None:
        self.member: Member | None = None

    async def on_call(self, sender: PeerId, request: bytes) -> bytes:
        """See transport.base.Handler."""
        member = self._ready()
        try:
            message = rounds_pb2.Request.FromString(request)
            kind = message.WhichOneof("kind")
            if kind is None or message.run_id not in (member.run.run_id, b"") or (kind != "hello" and not message.run_id):
                raise RefusedError(f"the message is for another run than {member.run.run_id.hex()[:8]}")
            _same_lineage(member, sender, message, kind)
            return (await _ANSWERS[kind](member, sender, getattr(message, kind))).SerializeToString()
        except RefusedError:
            raise
        except PeerError as error:
            raise RefusedError(f"needed another peer: {error}") from error
        except (ValueError, DecodeError) as error:
            raise RefusedError(str(error)) from error

    async def on_pull(self, sender: PeerId, request: bytes) -> AsyncIterator[bytes]:
        """See transport.base.Handler."""
        member = self._ready()
        try:
            message = state_pb2.PullRequest.FromString(request)
        except DecodeError as error:
            raise RefusedError(str(error)) from error
        if message.run_id != member.run.run_id:
            raise RefusedError(f"the pull is for another run than {member.run.run_id.hex()[:8]}")
        first, last = message.first_block, message.first_block + message.num_blocks
        if message.WhichOneof("what") == "contribution_root":
            held = member.parts.held.get(message.contribution_root)
            if held is None or last > len(held.block_digests) or any(b not in held.blocks for b in range(first, last)):
                raise RefusedError(f"contribution {message.contribution_root.hex()[:12]} is not held here")
            blocks = held.blocks
            for frame in digest_frames(held.block_digests):
                yield frame
            for number in range(first, last):
                yield blocks[number]
            return
        try:
            stored = await member.ports.run_blocking(member.ports.store.served, message.object_digest)
        except KeyError:
            raise RefusedError(f"object {message.object_digest.hex()[:12]} is not held here") from None
        if last > len(stored.block_digests):
            raise RefusedError(f"object {message.object_digest.hex()[:12]} has {len(stored.block_digests)} blocks, not {last}")
        for frame in digest_frames(stored.block_digests):
            yield frame
        for number in range(first, last):
            yield bytes(stored.data[number * stored.block_bytes : (number + 1) * stored.block_bytes])

    def _ready(self) -> Member:
        if self.member is None:
            raise RefusedError("this node is still joining")
        return self.member


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
        keys = differing_keys(run_from_bytes(message.run_config), run.config)
        if keys:
            raise RefusedError(f"the run's settings differ in {', '.join(keys)}; join by the string alone")
    if message.record:
        record = member.learn_record(message.record)
        if record.peer != sender:
            raise RefusedError(f"a record of {record.peer[:8]} came from {sender[:8]}")
        share = rounds_pb2.Request(records=rounds_pb2.Records(records=[message.record]))
        for peer in member.state.peers():
            if peer not in (sender, member.peer):
                member.spawn(member.tell(peer, share))
    known = list((await member.ports.directory.records()).values())
    return rounds_pb2.Reply(welcome=rounds_pb2.Welcome(manifest=run.manifest, records=known))


async def _heartbeat(member: Member, sender: PeerId, message: rounds_pb2.Heartbeat) -> rounds_pb2.Reply:
    exchange.hear(member, sender, message)
    reply = rounds_pb2.HeartbeatReply(r=member.state.r, attempt=member.attempt, state_hash=member.hash)
    if member.leading and message.r == member.state.r:
        reply.phase = member.waiting_for
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
    applied = await member.commit(message.SerializeToString(), sender)
    return rounds_pb2.Reply(done=rounds_pb2.Done(note="applied" if applied else f"at entry {member.state.r}"))


async def _head(member: Member, sender: PeerId, message: state_pb2.HeadQuery) -> rounds_pb2.Reply:
    store, head = member.ports.store, head_of(member)
    # Only certified states are donated: S_r is certified by entry r, S_0 by the manifest.
    certified = [r for r in store.snapshots() if r < member.state.r or r == 0]
    if message.with_snapshot and certified:
        head.snapshot.CopyFrom(records.to_snapshot(store.snapshot(certified[-1])))
    return rounds_pb2.Reply(head=head)


async def _entries(member: Member, sender: PeerId, message: state_pb2.EntriesQuery) -> rounds_pb2.Reply:
    limit = min(message.limit, ENTRIES_A_REPLY) if message.first_r >= oldest_entry(member) else 0
    found = member.ports.store.entries(message.first_r, limit)
    return rounds_pb2.Reply(entries=state_pb2.Entries(entries=[swarm_pb2.CertifiedEntry.FromString(data) for _, data in found]))


async def _records(member: Member, sender: PeerId, message: rounds_pb2.Records) -> rounds_pb2.Reply:
    for signed in message.records:
        member.learn_record(signed)
    known = list((await member.ports.directory.records()).values())
    return rounds_pb2.Reply(records=rounds_pb2.Records(records=known))


async def _status(member: Member, sender: PeerId, message: rounds_pb2.StatusQuery) -> rounds_pb2.Reply:
    return rounds_pb2.Reply(status=rounds_pb2.Status(json=json.dumps(status_of(member))))


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
}
