"""A node: found a swarm, join one, or come back to one; then take part until the run ends or Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decentra.codec.base import num_blocks
from decentra.config import Config, RunConfig, config_hash, differing_keys, parse_link
from decentra.errors import ConfigError, PeerError, RefusedError, StateError
from decentra.ledger.chain import digest
from decentra.ledger.golden import check_machine
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Snapshot, Store
from decentra.node.shared_state import SharedState
from decentra.node.supervisor import Supervisor
from decentra.node.trainer_port import ProcessTrainer
from decentra.node.wiring import Credentials, Door, NodeTransport, Wiring
from decentra.observe.summary import summarize
from decentra.rounds import catchup, life
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports, Run, meet, read_manifest
from decentra.rounds.records import DOMAIN_RECORD
from decentra.rounds.serve import Server
from decentra.rounds.status import status_of
from decentra.wire.v1 import swarm_pb2

Note = Callable[[str], None]

LEAVE_S = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """What the operator asked for: exactly one of founding (`config` has a run), joining, or coming back to `state`."""

    state: Path
    config: Config
    found: bool = False
    join: str = ""
    bootstrap: tuple[str, ...] = ()
    cache: Path = Path(".data")


@dataclass(slots=True)
class Node:
    """The pieces of a running node, opened one after another and closed in reverse."""

    start: Start
    wiring: Wiring
    note: Note
    announce_join: Callable[[str], None]
    door: Door = field(init=False)
    store: Store = field(init=False)
    credentials: Credentials = field(init=False)
    transport: NodeTransport = field(init=False)
    ports: Ports = field(init=False)
    run: Run = field(init=False)
    sequence: int = 0


async def run_node(start: Start, wiring: Wiring, note: Note, announce_join: Callable[[str], None]) -> dict[str, Any]:
    """The whole life of a node; its summary. Raises DecentraError with one sentence for people."""
    node = Node(start, wiring, note, announce_join)
    files = wiring.disk(start.state)
    node.store = Store.open(files, lambda: secrets.randbits(62))
    node.credentials = wiring.credentials(start.state)
    files.write("peer.txt", node.credentials.signer.peer.encode())
    tensors_of_founder = None
    if start.found and node.store.files.read("manifest.bin") is None:
        tensors_of_founder = await asyncio.to_thread(_found, node)
    else:
        _know_door(node)
    node.transport = await wiring.transport(start.state, node.door, start.config.node)
    try:
        return await _with_transport(node, tensors_of_founder)
    finally:
        await node.transport.close()


async def _with_transport(node: Node, founded: tuple[OuterTensors, catchup.Reached] | None) -> dict[str, Any]:
    config = node.start.config.node
    directory = await node.wiring.directory(node.door, config, node.transport, node.credentials.verifier, node.note)
    try:
        server = Server()
        node.ports = Ports(
            transport=node.transport,
            directory=directory,
            store=node.store,
            signer=node.credentials.signer,
            verifier=node.credentials.verifier,
            trainer=None,  # type: ignore[arg-type]
            run_blocking=asyncio.to_thread,
            rng=random.Random(node.store.incarnation),
            note=node.note,
        )
        record = _record(node)
        donors = [] if founded is not None else await _greet(node, record)
        await directory.announce(record)
        return await _take_part(node, server, founded, donors)
    finally:
        await directory.close()


async def _take_part(node: Node, server: Server, founded: tuple[OuterTensors, catchup.Reached] | None, donors: list[str]) -> dict[str, Any]:
    run = node.run
    check_machine(run.machine.codecs)
    shared = SharedState.create(run.layout.num_elements)
    tensors = empty_tensors(run.layout, shared.anchor)
    if founded is not None:
        tensors.anchor.copy_(founded[0].anchor)
        reached = founded[1]
    else:
        await catchup.fetch_files(node.ports, run, donors)
        reached = await _reach(node, tensors, donors)
    trainer = ProcessTrainer(run, node.start.config.node, shared, node.start.state / "files")
    node.ports.trainer = trainer
    await trainer.start()
    supervisor = Supervisor(trainer, node.start.config.node.trainer_threads, node.start.state / "trainer.log", node.note)
    supervisor.start()
    me = announced(node.ports.signer.peer, node.store.incarnation, True, run, _rates(node))
    member = Member(run, node.ports, reached.state, reached.state_hash, tensors, me)
    if donors:
        member.behind = donors[0]
    server.member = member
    node.transport.handler = server
    _tell_door(node)
    began = time.perf_counter()
    try:
        await _live_until_signal(node, member)
        return _summary(node, member, time.perf_counter() - began)
    finally:
        await trainer.close()
        await supervisor.close()


async def _live_until_signal(node: Node, member: Member) -> None:
    loop = asyncio.get_running_loop()
    living = asyncio.ensure_future(life.live(member))

    def leave() -> None:
        if not member.leaving:
            node.note("leaving: asking for an entry without this node")
            member.leave()
            loop.call_later(LEAVE_S, living.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    try:
        await living
    except asyncio.CancelledError:
        if not member.leaving:
            raise
        node.note(f"left without a goodbye: {member.waiting_for} took over {LEAVE_S:.0f} s")
    if member.last_certified:
        entry = swarm_pb2.Entry.FromString(swarm_pb2.CertifiedEntry.FromString(member.last_certified).entry)
        if entry.r + 1 == member.state.r:
            body = swarm_pb2.CertifiedEntry.FromString(member.last_certified).entry
            snapshot = Snapshot(member.state.r, member.state.header(), entry.state_hash, digest("decentra/entry", body))
            await asyncio.to_thread(member.keep_snapshot, snapshot)


# -- founding, joining, coming back -------------------------------------------------------------------------------------


def _found(node: Node) -> tuple[OuterTensors, catchup.Reached]:
    """Build the text, draw the first weights, sign the manifest. Blocks; runs in a thread."""
    config, store = node.start.config.run, node.store
    node.note("preparing text and tokenizer")
    text = node.wiring.text(config, node.start.cache)
    tensors = empty_tensors(text.layout)
    text.fill(text.layout, tensors.anchor)
    files = tuple((name, store.put_file(name, path.read_bytes()), path.stat().st_size) for name, path in sorted(text.files.items()))
    token = secrets.token_bytes(16)
    material = Material(config, text.layout, files, text.num_samples, token, secrets.token_bytes(16))
    node.run, reached = found(material, tensors, store, node.credentials.signer, node.credentials.verifier, node.wiring.make_machine)
    node.door = Door(node.run.run_id, node.credentials.signer.public_key, token, node.start.bootstrap)
    _keep_door(node)
    return tensors, reached


def _know_door(node: Node) -> None:
    """The way into the run: from the join string, or from what this state directory remembers."""
    start = node.start
    kept = node.store.files.read("door.json")
    if start.join:
        node.door = node.wiring.decode_door(start.join)
        if kept is not None and json.loads(kept)["run_id"] != node.door.run_id.hex():
            raise StateError(f"{start.state} belongs to run {json.loads(kept)['run_id'][:8]}, the join string to {node.door.run_id.hex()[:8]}; give another --state")
        _keep_door(node)
    elif kept is not None:
        raw = json.loads(kept)
        entrances = tuple((endpoint, peer) for endpoint, peer in raw["entrances"])
        node.door = Door(bytes.fromhex(raw["run_id"]), bytes.fromhex(raw["founder_key"]), bytes.fromhex(raw["token"]), tuple(raw["dht"]), entrances)
        if start.bootstrap:
            node.door = Door(node.door.run_id, node.door.founder_key, node.door.token, start.bootstrap, entrances)
        if start.found:
            _same_run(node, start.config.run)
    else:
        raise StateError(f"{start.state} holds no run; found one with --run RUN.toml or join one with --join STRING")


def _same_run(node: Node, config: RunConfig) -> None:
    manifest = node.store.files.read("manifest.bin") or b""
    run = read_manifest(manifest, node.credentials.verifier, node.wiring.make_machine)
    keys = differing_keys(config, run.config)
    if keys:
        raise ConfigError(f"{node.start.state} holds a run with other settings ({', '.join(keys)}); give another --state or the run's own config")


def _keep_door(node: Node) -> None:
    door = node.door
    raw = {
        "run_id": door.run_id.hex(),
        "founder_key": door.founder_key.hex(),
        "token": door.token.hex(),
        "dht": list(door.dht),
        "entrances": [list(pair) for pair in door.entrances],
    }
    node.store.files.write("door.json", json.dumps(raw).encode())


async def _greet(node: Node, record: bytes) -> list[str]:
    """Know the run: from a living member, or, coming back to a sleeping swarm, from this node's own disk."""
    peers = await meet(node.ports, node.door.run_id)
    dialled = await node.wiring.dial(node.transport, [e for e in node.door.entrances if e[1] not in peers])
    peers += [peer for peer in dialled if peer not in peers and peer != node.ports.signer.peer]
    kept = node.store.files.read("manifest.bin")
    try:
        node.run, donors = await catchup.greet(node.ports, node.door.run_id, node.door.token, record, peers, node.wiring.make_machine)
    except (PeerError, RefusedError) as error:
        if kept is None and isinstance(error, RefusedError):
            raise
        if kept is None:
            raise StateError(f"cannot join run {node.door.run_id.hex()[:8]}: {error}; is a member running and reachable?") from error
        node.note(f"no member answers ({error}); going on from this node's own state")
        node.run, donors = read_manifest(kept, node.credentials.verifier, node.wiring.make_machine), []
    if kept is None:
        node.store.files.write("manifest.bin", node.run.manifest)
    return donors


async def _reach(node: Node, tensors: OuterTensors, donors: list[str]) -> catchup.Reached:
    if node.store.snapshots():
        reached = await asyncio.to_thread(catchup.restore, node.store, node.run, tensors)
        node.note(f"restored entry {reached.state.r} from {node.start.state}")
        return reached
    return await catchup.fetch_snapshot(node.ports, node.run, tensors, donors)


# -- telling others -----------------------------------------------------------------------------------------------------


def _rates(node: Node) -> tuple[int, int]:
    rate, _ = parse_link(node.start.config.node.link)
    known = 0 if rate == float("inf") else int(rate)
    return known, known


def _endpoint(node: Node) -> str:
    config = node.start.config.node
    return f"{config.announce or config.listen}:{node.transport.port}"


def _record(node: Node) -> bytes:
    up, down = _rates(node)
    node.sequence = max(node.sequence + 1, int(time.time()))
    record = swarm_pb2.Record(
        run_id=node.door.run_id,
        peer=node.ports.signer.peer,
        sequence=node.sequence,
        endpoints=[_endpoint(node)],
        up_bytes_per_s=up,
        down_bytes_per_s=down,
        server_certificate=node.credentials.server_certificate(node.door),
    )
    return node.ports.signer.sign(DOMAIN_RECORD, record.SerializeToString())


def _tell_door(node: Node) -> None:
    """Print the join string: this node's own entrance, and the DHT's addresses."""
    door = node.door
    dht = tuple(dict.fromkeys((*node.ports.directory.addresses(), *door.dht)))
    dht = tuple(address for address in dht if address.startswith("/"))[:4]
    own = (_endpoint(node), node.ports.signer.peer)
    string = node.wiring.encode_door(Door(door.run_id, door.founder_key, door.token, dht, (own, *door.entrances)[:4]))
    node.store.files.write("join.txt", string.encode())
    node.announce_join(string)


def _summary(node: Node, member: Member, wall_s: float) -> dict[str, Any]:
    run = node.run
    chunks = run.machine.fragments[0].num_chunks
    encoded = chunks * run.machine.codecs[run.machine.up].chunk_bytes + 32 * num_blocks(chunks)
    status = status_of(member)
    summary = summarize(
        [status],
        seed=run.config.seed,
        config_hash=config_hash(run.config),
        loss_last=None,
        joined_late=[],
        killed=[],
        contribution_bytes=(4 * run.layout.num_elements, encoded),
        wall_s=wall_s,
    )
    node.store.files.write("status.json", json.dumps(status).encode())
    node.store.files.write("summary.json", json.dumps(summary, indent=1).encode())
    return summary



