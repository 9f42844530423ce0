"""A whole swarm on the virtual clock with a trainer that costs nothing: what fault schedules and named tests play on.

Blocks are one chunk here (see `small_blocks`), so that a layout of few elements is cut into several parts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from machines import CHUNKS, DELAY_S, RATE_BYTES_PER_S, STEP_S, CheapTrainer, Node, copied, small_blocks

from decentra import build
from decentra.config import CodecConfig, OuterConfig, RunConfig
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.errors import PeerError, RefusedError
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.apply import fragment_roots
from decentra.ledger.chain import digest
from decentra.ledger.entry import Entry
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import OuterTensors, State
from decentra.ledger.store import Store
from decentra.outer.layout import Layout
from decentra.rounds import catchup, life, records
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports, Run, meet
from decentra.rounds.serve import Server
from decentra.sim.compute import ChargedWork
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import Shaper
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2


@dataclass
class Swarm:
    """The machines, the network between them, and what was ever seen of the ledger."""

    seed: int
    start_members: int = 1
    stop_syncs: int = 12
    snapshot_every: int = 8
    rate: float = RATE_BYTES_PER_S
    work_s: float = 0.002
    codec: CodecConfig = field(default_factory=CodecConfig)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    board: MemoryBoard = field(default_factory=MemoryBoard)
    nodes: list[Node] = field(default_factory=list)
    run: Run | None = None
    trace: list[str] = field(default_factory=list)
    entries: dict[tuple[str, int], bytes] = field(default_factory=dict)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    """By the lineage that a state is in after entry r, and r."""
    faults: list[str] = field(default_factory=list)
    verifier: MemoVerifier = field(default_factory=MemoVerifier)

    # -- processes --------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now():9.3f} {text}")

    def new_node(self, step_s: float = STEP_S, dialable: bool = True) -> Node:
        number = len(self.nodes)
        identity = Identity.from_seed(digest("test/identity", f"{self.seed}/{number}".encode()))
        node = Node(number, identity, MemoryFiles(), step_s, dialable=dialable)
        self.nodes.append(node)
        return node

    def _ports(self, node: Node) -> tuple[Ports, Server]:
        node.boots += 1
        rng = random.Random(f"{self.seed}/{node.number}/{node.boots}")
        server = Server()
        node.transport = MemoryTransport(self.network, node.peer, server, Shaper.of_link(self.rate, DELAY_S), node.dialable)
        ports = Ports(
            transport=node.transport,
            directory=MemoryDirectory(self.board),
            store=Store.open(node.files, lambda: rng.getrandbits(62)),
            signer=IdentitySigner(node.identity),
            verifier=self.verifier,
            trainer=None,  # type: ignore[arg-type]
            run_blocking=ChargedWork(self.work_s),
            rng=rng,
            note=lambda line: self.say(f"{node.name} {node.peer[:8]}: {line}"),
        )
        return ports, server

    def _start(self, node: Node, ports: Ports, server: Server, tensors: OuterTensors, reached: catchup.Reached) -> None:
        assert self.run is not None
        node.trainer = CheapTrainer(tensors.anchor, node.number, node.step_s)
        ports.trainer = node.trainer
        me = announced(node.peer, ports.store.incarnation, node.dialable, self.run)
        node.member = Member(self.run, ports, reached.state, reached.state_hash, tensors, me)
        server.member = node.member
        node.task = asyncio.ensure_future(life.live(node.member))

    def _record(self, node: Node, ports: Ports) -> bytes:
        assert self.run is not None
        places = ["memory"] if node.dialable else []
        record = swarm_pb2.Record(run_id=self.run.run_id, peer=node.peer, sequence=node.boots, endpoints=places)
        return ports.signer.sign(records.DOMAIN_RECORD, record.SerializeToString())

    async def found(self, step_s: float = STEP_S) -> Node:
        node = self.new_node(step_s)
        ports, server = self._ports(node)
        config = RunConfig(
            name="test",
            seed=self.seed,
            start_members=self.start_members,
            stop_syncs=self.stop_syncs,
            snapshot_every=self.snapshot_every,
            outer=OuterConfig(inner_steps=10),
            codec=self.codec,
        )
        layout = Layout.of((f"w{i}", (4096 - i,)) for i in range(CHUNKS))
        tensors = empty_tensors(layout)
        tensors.anchor.copy_(torch.randn(layout.num_elements, generator=torch.Generator().manual_seed(self.seed)))
        files = (("data.bin", ports.store.put_file("data.bin", bytes(range(256)) * 100), 25600),)
        material = Material(config, layout, files, 10_000, b"", b"n" * 16)
        self.run, reached = found(material, tensors, ports.store, ports.signer, ports.verifier, build.machine)
        await ports.directory.announce(self._record(node, ports))
        self._start(node, ports, server, tensors, reached)
        return node

    def boot(self, node: Node) -> None:
        """Start a process on this machine: from its own files where they hold a state, else over the network."""
        self.say(f"EVENT boot {node.name}")
        node.booting = asyncio.ensure_future(self._boot(node))

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
        self.check()
        self.network.remove(node.peer)
        node.files = copied(node.files) if not lose_files else MemoryFiles()
        for task in (node.booting, node.task):
            if task is not None:
                task.cancel()
        if node.member is not None:
            for task in node.member.loose_tasks():
                task.cancel()
        node.transport = node.member = node.task = node.booting = node.trainer = None

    def leave(self, node: Node) -> None:
        self.say(f"EVENT leave {node.name}")
        assert node.member is not None
        node.member.leave()
        node.gone = True

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

    # -- questions --------------------------------------------------------------------------------------------------

    def live(self) -> list[Node]:
        return [n for n in self.nodes if n.member is not None]

    def members(self) -> list[Member]:
        return [n.member for n in self.live() if n.member is not None]

    def member(self, number: int) -> Member:
        member = self.nodes[number].member
        assert member is not None
        return member

    def by_peer(self, peer: PeerId) -> Node:
        return next(n for n in self.nodes if n.peer == peer)

    def leader(self) -> Node | None:
        """The node that leads the due entry of the newest state."""
        r = self.newest().state.r
        return next((n for n in self.live() if n.member.leading and n.member.state.r == r), None)

    async def when_leader(self, phase: str, limit_s: float = 60.0) -> Node:
        """The leader, at the moment it waits for what starts with `phase`."""
        await self.until(lambda: (n := self.leader()) and n.member.waiting_for.startswith(phase), limit_s, f"a leader in {phase}", 0.002)
        leader = self.leader()
        assert leader is not None
        return leader

    def entry(self, r: int) -> Entry:
        self.check()
        return records.parse_entry(self.entries[lineage_at(self.newest().state, r), r])

    def counted(self, sync: int) -> list[str]:
        """Names of those whose contribution a committed sync counted."""
        return sorted(self.by_peer(c.sender).name for c in self.entry_of(sync).counted)

    def entry_of(self, sync: int) -> Entry:
        """The entry that committed a sync."""
        self.check()
        return next(e for e in map(self.entry, range(self.newest().state.r)) if e.sync == sync)

    def newest(self) -> Member:
        return max(self.members(), key=lambda m: m.state.r)

    async def until(self, condition: Any, limit_s: float = 60.0, what: str = "", step_s: float = 0.05) -> None:
        """Wait until condition() holds, looking every step_s; fails after limit_s virtual seconds."""
        end = self.now() + limit_s
        while not condition():
            if self.now() > end:
                raise AssertionError(f"not within {limit_s} s: {what or condition}; {self.standing()}")
            await asyncio.sleep(step_s)
            self.raise_faults()

    def standing(self) -> str:
        lines = []
        for node in self.nodes:
            m = node.member
            lines.append(
                f"{node.name}: {'-' if m is None else (m.state.r, m.state.sync, m.attempt, 'leads' if m.leading else '', m.waiting_for)}"
                f"{' gone' if node.gone else ''}"
            )
        return "; ".join(lines)

    # -- invariants -------------------------------------------------------------------------------------------------

    def raise_faults(self) -> None:
        for node in self.live():
            if node.task is not None and node.task.done() and not node.task.cancelled():
                node.task.result()
            if node.booting is not None and node.booting.done() and not node.booting.cancelled():
                node.booting.result()
        assert not self.faults, self.faults

    def check(self) -> None:
        """In a lineage: one entry per r, one hash per r, every id committed at most once and none lost."""
        self.raise_faults()
        for node in self.live():
            member = node.member
            assert member is not None
            for r, certified in member.ports.store._log:
                entry = swarm_pb2.CertifiedEntry.FromString(certified).entry
                known = self.entries.setdefault((lineage_at(member.state, r), r), entry)
                assert known == entry, f"two entries {r}: {node.name} has another"
            logged = [r for r, _ in member.ports.store._log]
            assert logged == list(range(logged[0], logged[0] + len(logged))) if logged else True, f"{node.name}: gaps in the log {logged}"
            for report in member.history:
                known = self.hashes.setdefault((lineage_at(member.state, report.entry), report.entry), report.state_hash)
                assert known == report.state_hash, f"h after entry {report.entry} differs on {node.name}"
            if member.state.r:
                known = self.hashes.setdefault((member.state.lineage, member.state.r - 1), member.hash.hex())
                assert known == member.hash.hex(), f"h_{member.state.r} differs on {node.name}"
        self._check_ids()

    def _check_ids(self) -> None:
        if not self.members():
            return
        state = self.newest().state
        spans: list[tuple[int, int]] = []
        for r in range(state.r):
            entry: Entry = records.parse_entry(self.entries[lineage_at(state, r), r])
            for counted in entry.counted:
                spans += counted.claim
        for lease in state.leases.values():
            spans += lease
        spans = sorted([*spans, *state.pool])
        at = 0
        for start, stop in spans:
            assert start == at, f"ids {min(at, start)} to {max(at, start)} are {'lost' if start > at else 'doubled'} at entry {state.r}"
            at = stop
        assert at == state.fresh_sample, f"ids from {at} to {state.fresh_sample} are lost"

    def check_tensors(self) -> None:
        """Every live replica's tensors are those its state names; same bits at the same r."""
        for member in self.members():
            found = tuple(fragment_roots(member.tensors, f) for f in member.run.machine.fragments)
            assert found == member.state.roots, f"the tensors of {member.peer[:8]} are not those of its state"

    async def finish(self, limit_s: float) -> None:
        """All live processes end within limit_s; all agree; nothing is left running."""
        try:
            async with asyncio.timeout(limit_s):
                for node in self.nodes:
                    if node.booting is not None:
                        await asyncio.shield(node.booting)
                    if node.task is not None:
                        await asyncio.shield(node.task)
        except TimeoutError:
            raise AssertionError(f"the run does not end within {limit_s} s: {self.standing()}") from None
        self.check()
        self.check_tensors()
        await self.close()

    async def close(self) -> None:
        """End what serves, and see that nothing is left running."""
        for node in self.nodes:
            if node.transport is not None:
                await node.transport.close()
            if node.task is not None and not node.task.done():
                node.task.cancel()
                await asyncio.wait([node.task])
        await asyncio.sleep(1.0)
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and not t.done()]
        assert not left, f"tasks are left: {left}"
        self.raise_faults()


def lineage_at(state: State, r: int) -> str:
    """The lineage that the history of `state` was in after entry r."""
    return next((fork.name for fork in reversed(state.forks) if fork.r <= r), "")


class _Errors(logging.Handler):
    def __init__(self, swarm: Swarm) -> None:
        super().__init__(logging.ERROR)
        self._swarm = swarm

    def emit(self, record: logging.LogRecord) -> None:
        formatter = logging.Formatter()
        self._swarm.faults.append(f"logged: {record.getMessage()} {formatter.formatException(record.exc_info) if record.exc_info else ''}")


def play(swarm: Swarm, story: Any) -> Swarm:
    """Run `story(swarm)` on the virtual clock; any exception that a task swallowed fails it."""
    from decentra.sim import clock

    async def main() -> None:
        def odd(_: Any, context: dict[str, Any]) -> None:
            swarm.faults.append(f"{context.get('message')}: {context.get('exception')!r} {context.get('task') or context.get('future')}")

        asyncio.get_running_loop().set_exception_handler(odd)
        await story(swarm)
        swarm.raise_faults()

    handler = _Errors(swarm)
    logging.getLogger("decentra").addHandler(handler)
    try:
        with small_blocks():
            clock.run(main())
    finally:
        logging.getLogger("decentra").removeHandler(handler)
    return swarm
