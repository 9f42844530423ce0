"""Getting a state: say hello, fetch the run's files and a snapshot from several donors, replay what came after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from decentra.errors import PeerError, PeerFault, PeerUnreachable, RefusedError, StateError
from decentra.ledger import chain
from decentra.ledger.apply import apply, first_hash, state_after
from decentra.ledger.entry import Entry
from decentra.ledger.golden import GOLDEN
from decentra.ledger.state import Fork, OuterTensors, State, from_header
from decentra.ledger.store import Snapshot, Store
from decentra.rounds import records
from decentra.rounds.download import pull_object
from decentra.rounds.flows import names
from decentra.rounds.forks import fork_of
from decentra.rounds.lineage import leads_to
from decentra.rounds.ports import MakeMachine, Ports, Run, call, learn_record, manifest_digest, read_manifest, run_id_of
from decentra.rounds.snapshots import IDLE_TIMEOUT_S, download_snapshot, snapshot_bytes, speaking
from decentra.types import PROTOCOL_VERSION, Digest, PeerId
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

ENTRIES_A_QUERY = 32
MANY_ENTRIES = 4
"""Fewer are replayed without asking what a snapshot would be."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A state and its hash."""

    state: State
    state_hash: Digest


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
        async with speaking(ports):
            with ports.flows.flow(f"file {name}", tuple(donors), size, asyncio.get_running_loop().time()) as flow:
                data = await pull_object(ports.transport, run.run_id, donors, wanted, size, IDLE_TIMEOUT_S, flow, retry=True)
        await ports.run_blocking(ports.store.put_file, name, data)
        fetched += size
    return fetched


async def fetch_snapshot(ports: Ports, run: Run, tensors: OuterTensors, donors: Sequence[PeerId]) -> Reached:
    """Fill `tensors` with a snapshot that donors offer, and keep it in the store. Raises PeerError."""
    async with speaking(ports):
        snapshot = await download_snapshot(ports, run, tensors, donors)
    await ports.run_blocking(ports.store.save_snapshot, snapshot, tensors, run.machine.fragments)
    await ports.run_blocking(ports.store.restart_log)
    await ports.run_blocking(ports.store.spool.drop)
    return Reached(from_header(snapshot.header), snapshot.state_hash())


# -- a member that fell behind ------------------------------------------------------------------------------------------


async def replay(member: Member, donor: PeerId) -> None:
    """Catch up the cheaper way: by the entries this member lacks, or by a snapshot and the entries after it. Raises PeerError.

    The donor is asked first, then the other members.
    """
    weighed = stuck = False
    while not member.is_done():
        first_r = member.state.r
        member.wait(f"entries from {first_r} on", f"asked of {donor[:8]}")
        donor, found = await _entries(member, donor, first_r)
        if not found or (not weighed and len(found) >= MANY_ENTRIES):
            head = await _head_of(member, donor, first_r)
            if head.r <= member.state.r:
                return
            if _prefers_snapshot(member, donor, head):
                await _take_snapshot(member, donor, head)
                continue
            if not found and (stuck or not head.replay_bytes):
                raise PeerFault(donor, f"it is at entry {head.r}, but gives neither entry {first_r} nor a snapshot after it")
            weighed, stuck = True, not found
        for certified in found:
            try:
                taken = await member.commit(certified.SerializeToString(), donor)
            except ValueError as error:
                raise PeerFault(donor, f"its entry {member.state.r} does not hold: {error}") from error
            if not taken and (member.outlook.suspect is not None or member.outlook.met is not None):
                return  # of another lineage or state: to be looked into first
        if found and member.state.r == first_r:
            raise PeerFault(donor, f"its entries do not follow entry {first_r}")


async def _entries(member: Member, donor: PeerId, first_r: int) -> tuple[PeerId, list[swarm_pb2.CertifiedEntry]]:
    """(who answered, its entries from first_r on): the donor, or where it fails another member. Raises PeerError."""
    request = rounds_pb2.Request(entries=state_pb2.EntriesQuery(first_r=first_r, limit=ENTRIES_A_QUERY))
    last: PeerError = PeerUnreachable(donor, "no member is left to catch up from")
    for peer in _others(member, donor):
        try:
            reply = await member.call(peer, request, member.silence_s())
        except PeerError as error:
            last = error
            continue
        if len(reply.entries.entries) > ENTRIES_A_QUERY:
            last = PeerFault(peer, f"{len(reply.entries.entries)} entries, where {ENTRIES_A_QUERY} were asked for")
            continue
        return peer, list(reply.entries.entries)
    raise last


def _others(member: Member, first: PeerId) -> list[PeerId]:
    return member.within_reach((first, *member.state.peers()))


async def _head_of(member: Member, donor: PeerId, first_r: int) -> state_pb2.Head:
    query = state_pb2.HeadQuery(with_snapshot=True, first_r=first_r)
    return (await member.call(donor, rounds_pb2.Request(head=query), member.silence_s())).head


def _wanted_forks(member: Member) -> Sequence[Fork]:
    return member.state.forks if member.outlook.crossing is None else member.outlook.crossing.forks


def _prefers_snapshot(member: Member, donor: PeerId, head: state_pb2.Head) -> bool:
    """Whether a snapshot moves fewer bytes than the entries, or is the only way; says why."""
    ahead = head.r - member.state.r
    if not head.HasField("snapshot") or head.snapshot.r <= member.state.r or not leads_to(head.snapshot.header, _wanted_forks(member)):
        return False
    whole = snapshot_bytes(member.run) + head.after_snapshot_bytes
    by_snapshot = f"the snapshot of entry {head.snapshot.r} with what follows is {whole / 1e6:.2f} MB"
    if not head.replay_bytes:
        why = f"{donor[:8]} holds entries from {head.oldest_entry} on only; {by_snapshot}"
    else:
        way = "taking the snapshot" if whole < head.replay_bytes else "replaying"
        why = f"{way}: the entries are {head.replay_bytes / 1e6:.2f} MB, {by_snapshot}"
    member.ports.note(f"{ahead} entries behind; {why}")
    return not head.replay_bytes or whole < head.replay_bytes


async def _take_snapshot(member: Member, donor: PeerId, head: state_pb2.Head) -> None:
    donors = member.within_reach((donor, *(m.peer for m in head.view)))
    spool = member.ports.store.spool
    begun = await member.ports.run_blocking(spool.target)
    if begun is not None and begun[0] <= member.state.r:
        await member.ports.run_blocking(spool.drop)
    tensors = OuterTensors(torch.zeros_like(member.tensors.anchor), torch.zeros_like(member.tensors.momentum))
    member.wait(f"the snapshot of {names(tuple(donors))}")
    snapshot = await download_snapshot(member.ports, member.run, tensors, donors, _wanted_forks(member))
    adopted = await member.adopt(snapshot, tensors)
    await member.ports.run_blocking(spool.drop)
    if not adopted:
        raise PeerFault(donor, f"its newest snapshot is of entry {snapshot.r}, this member is at {member.state.r}")


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
            state = apply(run.under(state.settings).machine, state, tensors, entry, store.blob, fork_of(message))
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
