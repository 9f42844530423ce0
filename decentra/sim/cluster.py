"""A simulated swarm: every node of it is the shipping member over memory transport, on one virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from decentra import build
from decentra.config import RunConfig, parse_link
from decentra.data import shards
from decentra.data.shards import Shard
from decentra.data.stream import Source
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.errors import PeerError
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.chain import digest
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Store
from decentra.model.init import seeded
from decentra.outer.layout import Layout
from decentra.rounds import catchup, life
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports, Run, meet
from decentra.rounds.records import DOMAIN_RECORD
from decentra.rounds.serve import Server
from decentra.rounds.status import status_of
from decentra.sim.compute import ChargedWork, SimTrainer
from decentra.sim.scenario import Fault, Scenario
from decentra.train.evaluate import Heldout, evaluate
from decentra.train.step import Replica, copy_in
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import Shaper
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2

SNAPSHOT_POLL_S = 0.05


@dataclass(slots=True)
class Corpus:
    """The text of a run, ready to train on."""

    files: dict[str, bytes]
    source: Source
    heldout: Heldout

    @classmethod
    def of(cls, config: RunConfig, folder: Path) -> Corpus:
        """Built below `folder`, or taken from there."""
        paths = shards.build(config.data, folder)
        train = Shard.open(paths["train.bin"], config.data.context, config.data.vocab_size)
        heldout = Shard.open(paths["heldout.bin"], config.data.context, config.data.vocab_size)
        files = {name: path.read_bytes() for name, path in sorted(paths.items())}
        return cls(files, Source(train, config.seed), Heldout(heldout, config.eval_samples, mask_documents=config.inner.mask_documents))


@dataclass(slots=True)
class SimNode:
    """One simulated machine: what survives it (files, identity) and what runs on it."""

    number: int
    identity: Identity
    transport: MemoryTransport
    server: Server
    ports: Ports
    member: Member | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Cluster:
    """All nodes of a scenario. `note` gets one line for people at a time."""

    scenario: Scenario
    corpus: Corpus
    note: Callable[[str], None]
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    board: MemoryBoard = field(default_factory=MemoryBoard)
    nodes: list[SimNode] = field(default_factory=list)
    run: Run | None = None
    last_words: list[dict[str, Any]] = field(default_factory=list)
    joined_late: list[PeerId] = field(default_factory=list)
    killed: list[PeerId] = field(default_factory=list)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def add_node(self) -> SimNode:
        """A machine with a new identity, drawn from the scenario's seed."""
        number = len(self.nodes)
        identity = Identity.from_seed(digest("decentra/sim-identity", f"{self.scenario.seed}/{number}".encode()))
        rng = random.Random(f"{self.scenario.seed}/{number}")
        server = Server()
        rate, delay = parse_link(self.scenario.link)
        transport = MemoryTransport(self.network, identity.peer, server, Shaper.of_link(rate, delay))
        signer = IdentitySigner(identity)
        ports = Ports(
            transport=transport,
            directory=MemoryDirectory(self.board),
            store=Store.open(MemoryFiles(), lambda: rng.getrandbits(62)),
            signer=signer,
            verifier=MemoVerifier(),
            trainer=None,  # type: ignore[arg-type]
            run_blocking=ChargedWork(self.scenario.work_s),
            rng=rng,
            note=lambda line: self.note(f"[{asyncio.get_running_loop().time():9.3f} {identity.peer[:8]}] {line}"),
        )
        node = SimNode(number, identity, transport, server, ports)
        self.nodes.append(node)
        return node

    def _trainer(self, number: int, layout: Layout, tensors: OuterTensors) -> SimTrainer:
        config = self.scenario.run
        replica = Replica(seeded(config.llama, config.seed), config.inner)
        corpus, num_fragments, step_s = self.corpus, config.outer.fragments, self.scenario.step_s_of(number)
        return SimTrainer(replica, corpus.source, corpus.heldout, layout, tensors.anchor, step_s, num_fragments)

    def _start(self, node: SimNode, run: Run, tensors: OuterTensors, reached: catchup.Reached) -> None:
        node.ports.trainer = self._trainer(node.number, run.layout, tensors)
        me = announced(node.identity.peer, node.ports.store.incarnation, True, run)
        node.member = Member(run, node.ports, reached.state, reached.state_hash, tensors, me)
        node.server.member = node.member
        node.task = asyncio.ensure_future(life.live(node.member))

    def _record(self, node: SimNode, run_id: bytes) -> bytes:
        record = swarm_pb2.Record(run_id=run_id, peer=node.identity.peer, sequence=1, endpoints=["memory"])
        return node.ports.signer.sign(DOMAIN_RECORD, record.SerializeToString())

    async def found(self) -> None:
        """The first node makes S_0 and starts."""
        node, config = self.add_node(), self.scenario.run
        model = seeded(config.llama, config.seed)
        layout = build.layout_of(config, model)
        tensors = empty_tensors(layout)
        with torch.no_grad():
            for name, view in layout.views(tensors.anchor).items():
                view.copy_(model.get_parameter(name))
        files = tuple((name, node.ports.store.put_file(name, data), len(data)) for name, data in self.corpus.files.items())
        nonce = digest("decentra/sim-nonce", str(self.scenario.seed).encode())[:16]
        material = Material(config, layout, files, self.corpus.source.shard.num_samples, b"", nonce)
        self.run, reached = found(material, tensors, node.ports.store, node.ports.signer, node.ports.verifier, build.machine)
        await node.ports.directory.announce(self._record(node, self.run.run_id))
        self._start(node, self.run, tensors, reached)

    async def join(self) -> SimNode:
        """A new node joins over the network, as a daemon does."""
        assert self.run is not None
        node = self.add_node()
        peers = await meet(node.ports, self.run.run_id)
        record = self._record(node, self.run.run_id)
        run, donors = await catchup.greet(node.ports, self.run.run_id, b"", record, peers, build.machine)
        await node.ports.directory.announce(record)
        tensors = empty_tensors(run.layout)
        await catchup.fetch_files(node.ports, run, donors)
        reached = await catchup.fetch_snapshot(node.ports, run, tensors, donors)
        self._start(node, run, tensors, reached)
        assert node.member is not None
        # The snapshot's view may be gone by now; who gave it is not.
        node.member.behind = donors[0]
        return node

    def kill(self, node: SimNode) -> None:
        """The machine is gone at once: no goodbye."""
        assert node.member is not None and node.task is not None
        self.last_words.append(status_of(node.member))
        self.killed.append(node.identity.peer)
        self.network.remove(node.identity.peer)
        node.task.cancel()

    def live_nodes(self) -> list[SimNode]:
        """Nodes that were not killed and have not left."""
        gone = set(self.killed)
        return [n for n in self.nodes if n.member is not None and n.identity.peer not in gone and not n.member.leaving]

    def sync(self) -> int:
        """Outer steps that some node has applied."""
        return max((n.member.state.sync for n in self.live_nodes() if n.member), default=0)

    # -- the play ---------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """From founding to the last sync, faults included."""
        await self.found()
        joins = [asyncio.ensure_future(self.join()) for _ in range(self.scenario.peers - 1)]
        await asyncio.gather(*joins)
        faults = sorted(self.scenario.faults, key=lambda fault: fault.at_sync)
        stop = self.scenario.run.stop_syncs
        async with asyncio.timeout(self.scenario.time_limit_s):
            while self.sync() < stop:
                while faults and faults[0].at_sync <= self.sync():
                    await self._strike(faults.pop(0))
                for node in self.live_nodes():
                    if node.task is not None and node.task.done():
                        node.task.result()
                await asyncio.sleep(SNAPSHOT_POLL_S)
            await asyncio.gather(*(n.task for n in self.live_nodes() if n.task is not None))

    async def _strike(self, fault: Fault) -> None:
        if fault.kind == "join":
            late = asyncio.ensure_future(self.join())
            late.add_done_callback(self._joined)
            return
        node = self._pick(fault.peer)
        if fault.kind == "kill":
            self.kill(node)
        elif node.member is not None and node.task is not None:
            node.member.leave()
            try:
                await asyncio.shield(node.task)
            except PeerError as error:
                self.note(str(error))
            self.last_words.append(status_of(node.member))
            await node.transport.close()

    def _joined(self, late: asyncio.Future[SimNode]) -> None:
        if (error := late.exception()) is not None:
            self.note(f"the late peer did not join: {error}")
        else:
            self.joined_late.append(late.result().identity.peer)

    def _pick(self, number: int) -> SimNode:
        live = self.live_nodes()
        if number >= 0:
            return next(n for n in live if n.number == number)
        return next((n for n in live if n.member is not None and n.member.leading), live[0])

    # -- what came out ----------------------------------------------------------------------------------------------

    def heldout_loss(self) -> float:
        """Held-out loss of the anchor now, nats a token."""
        member = self.live_nodes()[0].member
        assert member is not None
        config = self.scenario.run
        model = seeded(config.llama, config.seed)
        copy_in(model, member.run.layout.views(member.tensors.anchor))
        return evaluate(model, self.corpus.heldout)

    def contribution_bytes(self) -> tuple[int, int]:
        """(fp32 bytes, encoded bytes with block digests) of one contribution."""
        assert self.run is not None
        return self.run.contribution_bytes()
