"""The machines of a swarm and their processes: founded, booted, joined, killed, frozen, cut off."""

from __future__ import annotations

import asyncio
import contextvars
import random
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import torch

from decentra import build
from decentra.config import CodecConfig, OuterConfig, RunConfig
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.errors import PeerError, RefusedError
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.chain import digest
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import OuterTensors
from decentra.outer.fragments import arranged
from decentra.rounds import catchup, life, records
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import announced
from decentra.rounds.ports import Ports, Run, meet
from decentra.rounds.serve import Server
from decentra.sim import clock
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import Shaper
from decentra.transport.weather import Weather
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2
from sims.experiments.protocol_fuzz.lineages import Watches
from sims.experiments.protocol_fuzz.machines import (
    CHUNKS,
    DELAY_S,
    RATE_BYTES_PER_S,
    STEP_S,
    CheapTrainer,
    Node,
    Work,
    copied,
)
from sims.experiments.protocol_fuzz.watched import WatchedMember, WatchedStore

_VERIFIER = MemoVerifier(1 << 16)
"""One a process: an envelope is checked in full, once, however many simulated nodes read it."""


@dataclass
class Processes:
    """The machines, the network between them, the processes that run on them, and the watch over what they do."""

    seed: int
    start_members: int = 1
    stop_syncs: int = 12
    snapshot_every: int = 8
    rate: float = RATE_BYTES_PER_S
    work_s: float = 0.002
    codec: CodecConfig = field(default_factory=CodecConfig)
    chunks: int = CHUNKS
    fragments: int = 1
    slot_steps: int = 10
    overlap_steps: int = 0
    merge: str = "mix"
    board: MemoryBoard = field(default_factory=MemoryBoard)
    nodes: list[Node] = field(default_factory=list)
    run: Run | None = None
    trace: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weather = Weather(random.Random(f"weather/{self.seed}"))
        self.network = MemoryNetwork(self.weather)
        self.watches = Watches(self)
        self._failed: asyncio.Future[None] | None = None

    # -- processes --------------------------------------------------------------------------------------------------

    @property
    def verifier(self) -> MemoVerifier:
        """The one that all processes use."""
        return _VERIFIER

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now():9.3f} {text}")

    def new_node(self, step_s: float = STEP_S, work_s: float | None = None, dialable: bool = True) -> Node:
        number = len(self.nodes)
        identity = Identity.from_seed(digest("test/identity", f"{self.seed}/{number}".encode()))
        node = Node(number, identity, MemoryFiles(), step_s, Work(self.work_s if work_s is None else work_s), dialable=dialable)
        self.nodes.append(node)
        return node

    def _as_process(self, node: Node, life: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        node.boots += 1
        context = contextvars.copy_context()
        context.run(clock.PROCESS.set, node.process)
        return asyncio.get_running_loop().create_task(life, context=context)

    def _ports(self, node: Node) -> tuple[Ports, Server]:
        rng = random.Random(f"{self.seed}/{node.number}/{node.boots}")
        server = Server()
        node.address = node.address or f"{node.name}:1"
        link = Shaper.of_link(self.rate / node.link_factor, DELAY_S)
        node.transport = MemoryTransport(self.network, node.peer, server, link, node.dialable, node.address)
        store = WatchedStore.open(node.files, lambda: rng.getrandbits(62))
        assert isinstance(store, WatchedStore)
        store.swarm, store.node = self, node
        ports = Ports(
            transport=node.transport,
            directory=MemoryDirectory(self.board),
            store=store,
            signer=IdentitySigner(node.identity),
            verifier=_VERIFIER,
            trainer=None,  # type: ignore[arg-type]
            run_blocking=node.work,
            rng=rng,
            note=lambda line: self.say(f"{node.name} {node.peer[:8]}: {line}"),
        )
        return ports, server

    def _start(self, node: Node, ports: Ports, server: Server, tensors: OuterTensors, reached: catchup.Reached) -> None:
        assert self.run is not None
        seed = node.number + 7_000_003 * node.boots
        node.trainer = CheapTrainer(tensors.anchor, seed, node.step_s, self.run.machine.fragments)
        ports.trainer = node.trainer
        me = announced(node.peer, ports.store.incarnation, node.dialable, self.run)
        node.member = WatchedMember(self, node, self.run, ports, reached.state, reached.state_hash, tensors, me)
        self.watches.stands(node, reached.state, reached.state_hash)
        server.member = node.member
        node.task = asyncio.ensure_future(life.live(node.member))
        node.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violate(f"a process ended with {type(error).__name__}: {error}", error)

    def _record(self, node: Node, ports: Ports) -> bytes:
        assert self.run is not None
        places = [node.address] if node.dialable else []
        record = swarm_pb2.Record(run_id=self.run.run_id, peer=node.peer, sequence=node.boots, endpoints=places)
        return ports.signer.sign(records.DOMAIN_RECORD, record.SerializeToString())

    async def found(self, step_s: float = STEP_S) -> Node:
        node = self.new_node(step_s)
        await self._as_process(node, self._found(node))
        return node

    async def _found(self, node: Node) -> None:
        ports, server = self._ports(node)
        config = RunConfig(
            name="test",
            seed=self.seed,
            start_members=self.start_members,
            stop_syncs=self.stop_syncs,
            snapshot_every=self.snapshot_every,
            outer=OuterConfig(
                inner_steps=self.slot_steps * self.fragments, fragments=self.fragments, overlap_steps=self.overlap_steps, merge=self.merge
            ),
            codec=self.codec,
        )
        layout = arranged(((f"layers.{i}.w", (4096 - i,)) for i in range(self.chunks)), self.fragments)
        tensors = empty_tensors(layout)
        tensors.anchor.copy_(torch.randn(layout.num_elements, generator=torch.Generator().manual_seed(self.seed)))
        files = (("data.bin", ports.store.put_file("data.bin", bytes(range(256)) * 100), 25600),)
        material = Material(config, layout, files, 10_000, b"", b"n" * 16)
        self.run, reached = found(material, tensors, ports.store, ports.signer, ports.verifier, build.machine)
        await ports.directory.announce(self._record(node, ports))
        self._start(node, ports, server, tensors, reached)

    def boot(self, node: Node) -> None:
        """Start a process on this machine: from its own files where they hold a state, else over the network."""
        self.say(f"EVENT boot {node.name}")
        node.booting = self._as_process(node, self._boot(node))
        node.booting.add_done_callback(self._ended)

    async def _boot(self, node: Node) -> None:
        assert self.run is not None
        ports, server = self._ports(node)
        await ports.directory.announce(self._record(node, ports))
        tensors = empty_tensors(self.run.layout)
        donors = await meet(ports, self.run.run_id)
        if ports.store.snapshots():
            await catchup.fetch_files(ports, self.run, ())
            reached = catchup.restore(ports.store, self.run, tensors)
        else:
            while True:
                try:
                    reached, donors = await self._join(node, ports, tensors)
                    break
                except (PeerError, RefusedError) as error:
                    self.say(f"{node.name} cannot join yet: {error}")
                    await asyncio.sleep(1.0)
        self._start(node, ports, server, tensors, reached)
        assert node.member is not None
        node.member.behind = donors[0] if donors else None

    async def _join(self, node: Node, ports: Ports, tensors: OuterTensors) -> tuple[catchup.Reached, list[PeerId]]:
        assert self.run is not None
        peers = await meet(ports, self.run.run_id)
        run, donors = await catchup.greet(ports, self.run.run_id, b"", self._record(node, ports), peers, build.machine)
        await catchup.fetch_files(ports, run, donors)
        return await catchup.fetch_snapshot(ports, run, tensors, donors), donors

    async def start(self, count: int, step_s: float = STEP_S) -> None:
        """Found and join until `count` processes live."""
        await self.found(step_s)
        for _ in range(count - 1):
            self.boot(self.new_node(step_s))
        for node in self.nodes[1:]:
            assert node.booting is not None
            await node.booting

    # -- faults -----------------------------------------------------------------------------------------------------

    def kill(self, node: Node, lose_files: bool = False) -> None:
        """The process is gone at once. What it had not written is lost; with lose_files, all."""
        self.say(f"EVENT kill {node.name}{' and lose its files' if lose_files else ''}")
        self.network.remove(node.peer)
        incarnation = node.incarnation()
        if lose_files and incarnation is not None:
            node.lost[incarnation] = self.now()
        node.files = copied(node.files) if not lose_files else MemoryFiles()
        for task in (node.booting, node.task):
            if task is not None:
                task.cancel()
        if node.member is not None:
            for task in node.member.loose_tasks():
                task.cancel()
        self.thaw(node)
        node.transport = node.member = node.task = node.booting = node.trainer = None

    def leave(self, node: Node, switch_off: bool = False) -> None:
        """Ask to go; switch_off: the process ends as soon as it may, so that nobody can ask it for anything any more."""
        self.say(f"EVENT leave {node.name}")
        assert node.member is not None and node.task is not None
        node.member.leave()
        node.gone = True
        if switch_off:
            node.task.add_done_callback(lambda task: self.kill(node) if node.task is task else None)

    def freeze(self, node: Node) -> None:
        """The process stops in mid-step, as by SIGSTOP; its connections stay open."""
        self.say(f"EVENT freeze {node.name}")
        node.frozen = True
        self._loop().freeze(node.process)

    def thaw(self, node: Node) -> None:
        """The process goes on, in a world that went on without it."""
        if node.frozen:
            self.say(f"EVENT thaw {node.name}")
            node.frozen = False
            self._loop().thaw(node.process)

    def _loop(self) -> clock.VirtualLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        return loop

    def cut(self, left: Node, right: Node, both: bool = True) -> None:
        self.say(f"EVENT cut {left.name} {'<->' if both else '->'} {right.name}")
        self.network.cut(left.peer, right.peer)
        if both:
            self.network.cut(right.peer, left.peer)

    def isolate(self, *group: Node) -> None:
        """Cut a group off from all others."""
        for left in group:
            for right in self.nodes:
                if right not in group:
                    self.cut(left, right)

    def heal(self) -> None:
        self.say("EVENT heal all")
        for left in self.nodes:
            for right in self.nodes:
                self.network.heal(left.peer, right.peer)

    # -- what went wrong --------------------------------------------------------------------------------------------

    def violate(self, text: str, cause: BaseException | None = None) -> None:
        """Something that must never happen has happened."""
        self.say(f"VIOLATION {text}")
        formatted = "".join(traceback.format_exception(cause)) if cause is not None else ""
        self.faults.append(f"{text}\n{formatted}".rstrip())
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    def check(self) -> None:
        """Raise what went wrong so far."""
        assert not self.faults, self.faults[0]
