"""Getting a state: say hello, fetch the run's files and a snapshot from several donors, replay what came after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from google.protobuf.message import DecodeError

from decentra.errors import PeerError, PeerFault, PeerUnreachable, RefusedError, StateError
from decentra.ledger import chain
from decentra.ledger.apply import apply, first_hash, state_after
from decentra.ledger.entry import Entry
from decentra.ledger.golden import GOLDEN
from decentra.ledger.state import Fork, OuterTensors, State, from_header
from decentra.ledger.store import Snapshot, Store, object_digest
from decentra.rounds import records
from decentra.rounds.fetch import pull_object
from decentra.rounds.forks import fork_of
from decentra.rounds.lineage import leads_to
from decentra.rounds.ports import MakeMachine, Ports, Run, learn_record, manifest_digest, read_manifest, run_id_of
from decentra.transport.base import Transport
from decentra.types import CHUNK_ELEMENTS, PROTOCOL_VERSION, Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

CALL_TIMEOUT_S = 15.0
IDLE_TIMEOUT_S = 20.0
ENTRIES_A_QUERY = 32


@dataclass(frozen=True, slots=True)
class Reached:
    """A state and its hash."""

    state: State
    state_hash: Digest


async def call(transport: Transport, run_id: bytes, peer: PeerId, request: rounds_pb2.Request) -> rounds_pb2.Reply:
    """One control message of a node that is not a member yet. Raises PeerError."""
    request.run_id = run_id
    data = await transport.call(peer, request.SerializeToString(), CALL_TIMEOUT_S)
    try:
        return rounds_pb2.Reply.FromString(data)
    except DecodeError as error:
        raise PeerFault(peer, f"its reply cannot be read: {error}") from error


async def fetch_files(ports: Ports, run: Run, donors: Sequence[PeerId]) -> int:
    """Hold every file of the run; what is there with the right digest is not fetched. Returns bytes fetched."""
    fetched = 0
    for name, wanted, size in run.files:
        try:
            if await ports.run_blocking(ports.store.register_file, name) == wanted:
                continue
        except KeyError:
            pass
        ports.note(f"fetching {name}, {size / 1e6:.1f} MB, from {len(donors)} donors")
        data = await pull_object(ports.transport, run.run_id, donors, wanted, size, False, IDLE_TIMEOUT_S)
        if object_digest(data) != wanted:
            raise PeerFault(donors[0], f"file {name} does not have the digest of the manifest")
        await ports.run_blocking(ports.store.put_file, name, data)
        fetched += size
    return fetched


async def fetch_snapshot(ports: Ports, run: Run, tensors: OuterTensors, donors: Sequence[PeerId]) -> Reached:
    """Fill `tensors` with the newest snapshot that donors offer, and keep it in the store. Raises PeerError."""
    snapshot = await download_snapshot(ports, run, tensors, donors)
    await ports.run_blocking(ports.store.restart_log)
    await ports.run_blocking(ports.store.save_snapshot, snapshot, tensors, run.machine.fragments)
    return Reached(from_header(snapshot.header), snapshot.state_hash())


async def download_snapshot(
    ports: Ports, run: Run, tensors: OuterTensors, donors: Sequence[PeerId], forks: Sequence[Fork] | None = None
) -> Snapshot:
    """Fill `tensors` with the newest snapshot that donors offer, each giving a share of the blocks. Raises PeerError.

    forks: only of the history that these forced views led to; any where it is None.
    """
    heads = await _heads(ports, run, donors)
    holding = [peer for peer, head in heads.items() if head.HasField("snapshot")]
    holding = [peer for peer in holding if forks is None or leads_to(heads[peer].snapshot.header, forks)]
    if not holding:
        raise PeerUnreachable(donors[0] if donors else "nobody", "no member offers a snapshot")
    newest = max(heads[peer].snapshot.r for peer in holding)
    holding = [peer for peer in holding if heads[peer].snapshot.r == newest]
    snapshot = records.of_snapshot(heads[holding[0]].snapshot)
    holding = [peer for peer in holding if records.of_snapshot(heads[peer].snapshot) == snapshot]
    if snapshot.r == 0 and chain.header_digest(snapshot.header) != run.initial_header_digest:
        raise PeerFault(holding[0], "its first snapshot is not the one the manifest names")
    try:
        state = from_header(snapshot.header)
        if state.r != snapshot.r or len(state.roots) != len(run.machine.fragments):
            raise ValueError(f"it is of entry {state.r}, with {len(state.roots)} fragments")
    except ValueError as error:
        raise PeerFault(holding[0], f"the header of its snapshot {newest} cannot be read: {error}") from error
    for fragment in run.machine.fragments:
        for flat, root in zip((tensors.anchor, tensors.momentum), state.roots[fragment.index], strict=True):
            size = fragment.num_chunks * CHUNK_ELEMENTS * 4
            ports.note(f"fetching the snapshot of entry {newest}, {size / 1e6:.1f} MB, from {len(holding)} donors")
            data = await pull_object(ports.transport, run.run_id, holding, bytes.fromhex(root), size, True, IDLE_TIMEOUT_S)
            flat[fragment.elements].copy_(torch.from_numpy(np.frombuffer(bytearray(data), dtype="<f4")))
    return snapshot


async def _heads(ports: Ports, run: Run, donors: Sequence[PeerId]) -> dict[PeerId, state_pb2.Head]:
    async def ask(peer: PeerId) -> state_pb2.Head | None:
        try:
            request = rounds_pb2.Request(head=state_pb2.HeadQuery(with_snapshot=True))
            return (await call(ports.transport, run.run_id, peer, request)).head
        except PeerError as error:
            ports.note(f"asking for a snapshot: {error}")
            return None

    heads = await asyncio.gather(*(ask(peer) for peer in donors))
    return {peer: head for peer, head in zip(donors, heads, strict=True) if head is not None}


async def replay(member: Member, donor: PeerId) -> None:
    """Take the entries this member lacks from a donor, one after another. Raises PeerError.

    Where the donor no longer holds the next one, the newest snapshot is taken instead.
    """
    stuck = False
    while not member.is_done():
        first_r = member.state.r
        query = state_pb2.EntriesQuery(first_r=first_r, limit=ENTRIES_A_QUERY)
        reply = await member.call(donor, rounds_pb2.Request(entries=query), member.silence_s())
        if len(reply.entries.entries) > ENTRIES_A_QUERY:
            raise PeerFault(donor, f"{len(reply.entries.entries)} entries, where {ENTRIES_A_QUERY} were asked for")
        for certified in reply.entries.entries:
            try:
                taken = await member.commit(certified.SerializeToString(), donor)
            except ValueError as error:
                raise PeerFault(donor, f"its entry {member.state.r} does not hold: {error}") from error
            if not taken and (member.outlook.suspect is not None or member.outlook.met is not None):
                return  # of another lineage or state: to be looked into first
        if member.state.r == first_r:
            head = (await member.call(donor, rounds_pb2.Request(head=state_pb2.HeadQuery()), member.silence_s())).head
            if head.r <= member.state.r:
                return
            # Else it has the entries by now: asked once more before a snapshot is taken.
            if head.oldest_entry > member.state.r or stuck:
                await _take_snapshot(member, member.within_reach((donor, *(m.peer for m in head.view))))
        stuck = member.state.r == first_r


async def _take_snapshot(member: Member, donors: list[PeerId]) -> None:
    tensors = OuterTensors(torch.zeros_like(member.tensors.anchor), torch.zeros_like(member.tensors.momentum))
    forks = member.state.forks if member.outlook.crossing is None else member.outlook.crossing.forks
    snapshot = await download_snapshot(member.ports, member.run, tensors, donors, forks)
    if not await member.adopt(snapshot, tensors):
        raise PeerFault(donors[0], f"its newest snapshot is of entry {snapshot.r}, this member is at {member.state.r}")


# -- from this node's own disk ------------------------------------------------------------------------------------------


def restore(store: Store, run: Run, tensors: OuterTensors, to_r: int | None = None, from_r: int | None = None) -> Reached:
    """The state that a store holds: a snapshot, and the log behind it. Pure but for reading; tensors are filled.

    to_r: stop there (default: the end of the log). from_r: the snapshot to start from (default: the newest that serves).
    Raises StateError where the store does not reach that far or an entry does not follow.
    """
    kept = [r for r in store.snapshots() if to_r is None or r <= to_r]
    if from_r is not None:
        kept = [r for r in kept if r <= from_r]
    if not kept:
        raise StateError(f"no snapshot at or before entry {to_r}; the oldest kept is {min(store.snapshots(), default='none')}")
    snapshot = store.snapshot(kept[-1])
    if snapshot.r == 0 and snapshot.state_hash() != _first(run, snapshot):
        raise StateError("the first snapshot is not the one the manifest names")
    state, state_hash = store.load_tensors(snapshot.r, tensors, run.machine.fragments), snapshot.state_hash()
    while to_r is None or state.r < to_r:
        found = store.entries(state.r, 1)
        if not found:
            break
        message = swarm_pb2.CertifiedEntry.FromString(found[0][1])
        entry: Entry = records.parse_entry(message.entry)
        if entry.state_hash != state_hash:
            raise StateError(f"entry {entry.r} stands on {entry.state_hash.hex()[:12]}, the replay is at {state_hash.hex()[:12]}")
        try:
            state = apply(run.machine, state, tensors, entry, store.blob, fork_of(message))
        except KeyError as error:
            raise StateError(f"entry {entry.r} needs a blob that is not held here; move the state directory away and join again") from error
        state_hash = state_after(state_hash, message.entry, state)
    if to_r is not None and state.r != to_r:
        raise StateError(f"the log ends at entry {state.r}, before {to_r}")
    return Reached(state, state_hash)


def _first(run: Run, snapshot: Snapshot) -> Digest:
    payload = swarm_pb2.Signed.FromString(run.manifest).payload
    if chain.header_digest(snapshot.header) != run.initial_header_digest:
        return b""
    return first_hash(manifest_digest(payload), from_header(snapshot.header))


# -- first words --------------------------------------------------------------------------------------------------------


async def greet(
    ports: Ports, run_id: bytes, token: bytes, record: bytes, peers: Sequence[PeerId], make_machine: MakeMachine
) -> tuple[Run, list[PeerId]]:
    """Say hello until somebody answers: (the run, by its verified manifest; peers that may give state).

    Raises RefusedError with the swarm's reason, PeerUnreachable where nobody answers.
    """
    hello = rounds_pb2.Hello(protocol_version=PROTOCOL_VERSION, golden_digest=GOLDEN, token=token, record=record)
    last: PeerError = PeerUnreachable("nobody", "no peer of the swarm is known")
    refused: RefusedError | None = None
    for peer in peers:
        try:
            welcome = (await call(ports.transport, run_id, peer, rounds_pb2.Request(hello=hello))).welcome
        except PeerFault as error:
            refused = RefusedError(f"the swarm refused this node: {error.reason}")
            continue
        except PeerError as error:
            ports.note(f"saying hello: {error}")
            last = error
            continue
        try:
            payload = records.to_signed(welcome.manifest).payload
            if run_id_of(payload) != run_id:
                raise ValueError("it is the manifest of another run; ask for a new join string")
            run = read_manifest(welcome.manifest, ports.verifier, make_machine)
            learned = [learn_record(ports, run_id, signed) for signed in welcome.records]
            known = [met.peer for met in learned if met.endpoints]
        except ValueError as error:
            # Others may tell the truth: the run id names the manifest, so no peer can pass off another.
            refused = RefusedError(f"what {peer[:8]} said of the run does not hold: {error}")
            continue
        return run, list(dict.fromkeys(p for p in (peer, *peers, *known) if p != ports.signer.peer))
    raise refused or last
