"""One seeded story of a swarm: its shape, when faults strike and which, then fair weather until the run ends.

A schedule never loses a quorum for good: machines may all lose their power, be cut off, frozen or stalled and come back as
who they were; files are lost, and members leave or vanish, only while the rest is whole and forms a quorum without them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from decentra.config import CodecConfig
from decentra.ledger.state import next_members
from decentra.rounds.member import Member
from decentra.rounds.view import is_quorum
from sims.experiments.protocol_fuzz import faults
from sims.experiments.protocol_fuzz.machines import Node
from sims.experiments.protocol_fuzz.scenarios import SCENARIOS
from sims.experiments.protocol_fuzz.swarm import Swarm

SYNCS = 12
END_LIMIT_S = 1500.0
MAX_PEERS = 16
PHASES = (
    "votes", "the reductions", "owners to hold", "a quorum", "the offers of others",
    "moving", "accepted", "accepted", "promised", "committed", "committed", "offered",
)  # fmt: skip
"""Short phases of a round, in which a fault does most harm: what a member begins to wait for, or has just done."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a seed says before anything happens."""

    seed: int
    peers: int
    start_members: int
    snapshot_every: int
    work_s: float
    chunks: int
    fragments: int
    overlap_steps: int
    merge: str
    budget_s: float
    weights: str
    codec: CodecConfig
    strikes: int
    scenario: str

    @classmethod
    def of(cls, seed: int) -> Shape:
        """Small swarms more often: they are where a single machine decides."""
        rng = random.Random(f"shape/{seed}")
        eager = random.Random(f"merge/{seed}").random() < 0.3
        timed = random.Random(f"time/{seed}")
        size = rng.random()
        peers = rng.randint(2, 5) if size < 0.6 else rng.randint(6, 9) if size < 0.9 else rng.randint(10, MAX_PEERS)
        return cls(
            seed=seed,
            peers=peers,
            start_members=rng.choice((1, 2)),
            snapshot_every=rng.choice((2, 4, 8)),
            work_s=rng.choice((0.002, 0.002, 0.05, 0.3)),
            chunks=rng.randint(3, 9) if peers < 10 else 4,
            fragments=rng.choice((1, 2)),
            overlap_steps=rng.choice((0, 0, 2, 5)) * (not eager),
            merge="eager" if eager else "mix",
            budget_s=timed.choice((0.0, 0.0, 0.0, 2.0, 0.15)),
            weights=timed.choice(("", "", "tokens", "normalised")),
            codec=CodecConfig(aggregate=rng.choice(("reduce", "reduce", "gather")), feedback=rng.choice((0.0, 1.0))),
            strikes=rng.randint(3, 14) if peers < 10 else rng.randint(2, 5),
            scenario=rng.choice((*SCENARIOS, *[""] * 5)),
        )

    def swarm(self) -> Swarm:
        """The swarm, not begun."""
        return Swarm(
            self.seed,
            self.start_members,
            SYNCS,
            self.snapshot_every,
            work_s=self.work_s,
            codec=self.codec,
            chunks=self.chunks,
            fragments=self.fragments,
            slot_steps=10 if self.peers < 10 else 6,
            overlap_steps=self.overlap_steps,
            merge=self.merge,
            budget_s=self.budget_s,
            weights=self.weights,
        )


class Schedule:
    """The story of a shape: `await Schedule(shape, swarm)(swarm)`."""

    def __init__(self, shape: Shape, swarm: Swarm) -> None:
        self.shape, self.swarm = shape, swarm
        self.rng = random.Random(f"schedule/{shape.seed}")

    async def __call__(self, swarm: Swarm) -> None:
        """See that it ends, whatever struck."""
        rng, shape = self.rng, self.shape
        await swarm.found(rng.choice((0.1, 0.2, 0.3)))
        for _ in range(shape.peers - 1):
            swarm.boot(self.machine())
        at = rng.randrange(shape.strikes) if shape.scenario else -1
        for number in range(shape.strikes):
            await swarm.sleep(rng.choice((0.05, 0.3, 1.0, 3.0, 8.0)) * (0.5 + rng.random()))
            if self.is_over():
                break
            if number == at:
                swarm.say(f"EVENT scenario {shape.scenario}")
                await SCENARIOS[shape.scenario](self)
            elif rng.random() < 0.4:
                await self.ambush()
            else:
                faults.strike(self)
        await swarm.sleep(3.0)
        self.repair()
        booting = [n.booting for n in swarm.nodes if n.booting is not None and not n.booting.done()]
        if booting and await swarm.unless_failed(asyncio.wait(booting, timeout=END_LIMIT_S)) and not all(b.done() for b in booting):
            raise AssertionError(f"not all have joined within {END_LIMIT_S} s: {swarm.standing()}")
        await swarm.finish(END_LIMIT_S)

    def machine(self) -> Node:
        """A new machine: as fast, and with a clock as good, as chance will have it."""
        rng = self.rng
        node = self.swarm.new_node(rng.choice((0.1, 0.2, 0.3)), rng.choice((None, None, 0.002, 0.1)))
        if rng.random() < 0.3:
            node.clock_rate, node.clock_offset_s = rng.uniform(0.8, 1.25), rng.uniform(0.0, 1e5)
        return node

    async def ambush(self) -> None:
        """Wait for a short phase of a round, then strike at who is in it."""
        swarm, rng = self.swarm, self.rng
        phase = rng.choice(PHASES)
        node = await swarm.trapped(phase, 5.0)
        await swarm.sleep(rng.choice((0.0, 0.0, 0.01, 0.03, 0.1)))
        if node is None or node.member is None:
            return
        swarm.say(f"EVENT ambush {node.name} in {phase}")
        if rng.random() < 0.25:
            faults.strike(self)
        elif phase in ("accepted", "committed") and rng.random() < 0.6:
            faults.shake(self)
        else:
            faults.strike_at(self, node)

    # -- what may be done now ---------------------------------------------------------------------------------------

    def up(self) -> list[Node]:
        """Machines with a process that is not leaving."""
        return [n for n in self.swarm.nodes if n.up and not n.gone]

    def live(self) -> list[tuple[Node, Member]]:
        """Those whose process has joined."""
        return [(n, n.member) for n in self.up() if n.member is not None]

    def down(self) -> list[Node]:
        """Machines that can come back."""
        return [n for n in self.swarm.nodes if not n.up and not n.gone]

    def is_over(self) -> bool:
        """Whether the run has ended everywhere."""
        tasks = [n.task for n in self.swarm.live()]
        return bool(tasks) and all(task is None or task.done() for task in tasks)

    def spare(self, nodes: Sequence[Node]) -> bool:
        """Whether the swarm can go on when these are gone for good, disks and all.

        The rest must be whole, and a quorum of the view, of the one before (it may hold the last certificate alone), and of
        each that an entry accepted by anybody may bring.
        """
        watch, swarm = self.swarm.watch, self.swarm
        state = watch.newest()
        rest = [n.peer for n in swarm.nodes if n not in nodes]
        if state.sync == 0 and len(rest) < swarm.start_members:
            return False
        if not state.started(swarm.start_members) or any(not self.is_whole(m.peer, m.incarnation) for m in state.members):
            return False
        if len(state.members) <= 3 and any(m.unheard_syncs for m in state.members):
            return False
        views = [state.members]
        if state.r - 1 in watch.states:
            views.append(watch.states[state.r - 1].members)
        for entry in watch.pending(state.r):
            views.append(next_members(state, entry.sync is not None, entry.heard, entry.removed, entry.admitted, swarm.start_members))
        return all(is_quorum(view, [m.peer for m in view if m.peer in rest and self.is_whole(m.peer, m.incarnation)]) for view in views)

    def is_whole(self, peer: str, incarnation: int) -> bool:
        """Whether this incarnation of a peer still has its disk, and will be back."""
        node = self.swarm.by_peer(peer)
        return not node.gone and node.incarnation() == incarnation

    def repair(self) -> None:
        """Faults stop: links heal, disks are fast again, who was killed comes back. What is for good stays."""
        swarm = self.swarm
        swarm.heal()
        swarm.weather.clear()
        for node in swarm.nodes:
            swarm.thaw(node)
            node.slow(1.0)
            node.work.work_s = min(node.work.work_s, 0.3)
            if not node.up and not node.gone:
                swarm.boot(node)

    async def progress(self, limit_s: float) -> None:
        """The next sync commits, or the run ends, within limit_s."""
        swarm, sync = self.swarm, self.swarm.watch.newest().sync
        end = swarm.now() + limit_s
        while swarm.watch.newest().sync == sync and not self.is_over():
            if swarm.now() > end:
                raise AssertionError(f"no sync within {limit_s} s though a quorum is connected: {swarm.standing()}")
            await swarm.sleep(1.0)

    def later(self, seconds: float, action: object) -> None:
        """Do something when the schedule has gone on, if there still is a swarm."""
        asyncio.get_running_loop().call_later(seconds, action)  # type: ignore[arg-type]
