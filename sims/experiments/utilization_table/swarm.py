"""Two replicas on the virtual clock, scaled down: how much of their time is compute?

Every node is the shipping member over memory transport. Its trainer only lets time pass; what it offers is noise in a layout
of a few hundred chunks. A link charges bulk for as many times its bytes as the full model is larger, so that a transfer lasts
as long as at full size, and control messages, whose size does not grow with the model, for what they are.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest import mock

import torch

from decentra import build
from decentra.config import CodecConfig, DataConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.chain import digest
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Store
from decentra.outer.fragments import arranged
from decentra.rounds import catchup, life, records, streams
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports, Run, meet
from decentra.rounds.serve import Server
from decentra.sim import clock
from decentra.transport.memory import MemoryNetwork, MemoryTransport
from decentra.transport.shaper import OVERHEAD_BYTES, LinkClock, Shaper
from decentra.types import CHUNK_ELEMENTS, SlotPlan, SlotResult
from decentra.wire.v1 import swarm_pb2
from sims.experiments.protocol_fuzz.machines import small_blocks

REPLICAS, TOKENS_A_SAMPLE = 2, DataConfig().context
WARM_UP_SYNCS = 2
"""Left out at the start: the first sync waits for all to have joined, and only the second may begin ahead."""

LONGEST_SLOTS = 200
"""A round that lasts longer than so many slots has stalled, for no wanted utilization is so low. TimeoutError says so."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is played. Bytes and times are those of the full model.

    slot_s: compute between two syncs, in `slot_ticks` ticks of the trainer. overlap_ticks: tau. layers: in `fragments` equal
    fragments, of layer_chunks chunks each in the layout. contribution_bytes: what the whole model weighs as a contribution.
    """

    codec: str
    layers: int
    fragments: int
    slot_s: float
    slot_ticks: int
    overlap_ticks: int
    contribution_bytes: float
    layer_chunks: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """utilization: compute / time, over `syncs` slots of both replicas. phases_s: of a round, means, as members report them.

    slot_s: from one slot's end to the next. idle_s: of it, the trainer stood still. attempts: of a round, mean; all counted all.
    """

    utilization: float
    slot_s: float
    idle_s: float
    phases_s: dict[str, float]
    attempts: float = 1.0


@dataclass(slots=True)
class ScaledLink(LinkClock):
    """One direction of a link. Bulk weighs `scale` times its bytes, control its own.

    passes_on: it is the second link on the way. A frame here stands for many at full size, which arrive one after the other:
    its time is counted from when its first bytes came.
    """

    scale: float = 1.0
    passes_on: bool = False

    def duration_s(self, num_bytes: float) -> float:
        """See LinkClock; of bulk."""
        return (num_bytes * self.scale + OVERHEAD_BYTES) / self.rate_bytes_per_s

    def reserve(self, now_s: float, num_bytes: float, priority: bool = False) -> float:
        """See LinkClock."""
        duration_s = self.duration_s(num_bytes / self.scale if priority else num_bytes)
        begun_s = now_s - duration_s if self.passes_on else now_s
        if priority:
            self.next_free_s += duration_s
            self.control_free_s = max(self.control_free_s, begun_s) + duration_s
            return self.control_free_s
        self.next_free_s = max(self.next_free_s, begun_s) + duration_s
        return self.next_free_s


class Clockwork:
    """A trainer port that trains nothing: a slot takes its time. ends: (loop time, compute so far) at the end of each slot."""

    def __init__(self, anchor: torch.Tensor, seed: int, tick_s: float) -> None:
        # Every chunk is another: blobs of the same bytes have one name and travel once.
        self.local = torch.arange(len(anchor), dtype=torch.float32).add_(seed)
        self.ends: list[tuple[float, float]] = []
        self._tick_s, self._compute_s = tick_s, 0.0
        self._begun_s, self._done, self._planned = 0.0, 0, 0

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """See rounds.ports.TrainerPort."""
        wait_s, ahead = 0.0, 0 if final is None else plan.overlap_steps
        try:
            if final is not None:
                await self._pass(0, ahead, plan.num_steps)
                reached_s = _now()
                plan = await final
                wait_s = _now() - reached_s
            await self._pass(ahead, plan.num_steps, plan.num_steps)
        finally:
            self._begun_s, self._done, self._planned = 0.0, 0, 0
        self.ends.append((_now(), self._compute_s))
        samples = plan.num_steps
        return SlotResult(plan.sync, plan.num_steps, samples, samples * TOKENS_A_SAMPLE, 1.0, plan.num_steps * self._tick_s, None, wait_s)

    async def _pass(self, done: int, until: int, planned: int) -> None:
        """All steps in one sleep: progress() knows how far it is."""
        self._begun_s, self._done, self._planned = _now(), done, planned
        await asyncio.sleep((until - done) * self._tick_s)
        self._compute_s += (until - done) * self._tick_s
        self._begun_s, self._done = math.inf, until

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        since = max(0.0, _now() - self._begun_s) if self._planned else 0.0
        return min(self._done + int(since / self._tick_s), self._planned), self._planned


async def uncharged(work: Callable[..., T], *arguments: Any) -> T:
    """run_blocking: hashing, coding and writing take no time here, as in the paper."""
    return work(*arguments)


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Swarm:
    """The replicas of a setting behind links of one rate."""

    def __init__(self, setting: Setting, rate_bytes_per_s: float, note: Callable[[str], None]) -> None:
        self.setting, self._rate, self._note = setting, rate_bytes_per_s, note
        self._network, self._board, self._verifier = MemoryNetwork(), MemoryBoard(), MemoVerifier()
        self._run: Run | None = None
        self._links: list[ScaledLink] = []
        self.trainers: list[Clockwork] = []
        self.members: list[Member] = []
        self.tasks: list[asyncio.Task[None]] = []

    def config(self) -> RunConfig:
        """The run. Snapshots are out of the way: full models are kept now and then, and cost a disk, not the link."""
        setting = self.setting
        outer = OuterConfig(
            inner_steps=setting.slot_ticks * setting.fragments, fragments=setting.fragments, overlap_steps=setting.overlap_ticks
        )
        codec = CodecConfig(up=setting.codec, down=setting.codec)
        inner = InnerConfig(batch_samples=1)
        return RunConfig(
            start_members=REPLICAS,
            snapshot_every=1 << 20,
            model=ModelConfig(num_layers=setting.layers),
            inner=inner,
            outer=outer,
            codec=codec,
        )

    def _ports(self) -> tuple[Identity, Ports, Server]:
        number = len(self.members)
        identity, server, rng = Identity.from_seed(digest("utilization", bytes([number]))), Server(), random.Random(number)
        links = [ScaledLink(self._rate), ScaledLink(self._rate, passes_on=True)]
        transport = MemoryTransport(self._network, identity.peer, server, Shaper(links[0], links[1], self.setting.delay_s))
        ports = Ports(
            transport=transport,
            directory=MemoryDirectory(self._board),
            store=Store.open(MemoryFiles(), lambda: rng.getrandbits(62)),
            signer=IdentitySigner(identity),
            verifier=self._verifier,
            trainer=None,  # type: ignore[arg-type]
            run_blocking=uncharged,
            rng=rng,
            note=lambda line: self._note(f"[{_now():10.3f} {identity.peer[:8]}] {line}"),
        )
        self._links += links
        return identity, ports, server

    async def start(self) -> None:
        """Found and join."""
        identity, ports, server = self._ports()
        setting, config = self.setting, self.config()
        shape = (setting.layer_chunks * CHUNK_ELEMENTS,)
        layout = arranged(((f"layers.{layer}.w", shape) for layer in range(setting.layers)), setting.fragments)
        tensors = empty_tensors(layout)
        files = (("data.bin", ports.store.put_file("data.bin", bytes(256)), 256),)
        material = Material(config, layout, files, 1 << 40, b"", b"n" * 16)
        self._run, reached = found(material, tensors, ports.store, ports.signer, ports.verifier, build.machine)
        self._begin(identity, ports, server, tensors, reached)
        await ports.directory.announce(self._record(identity, ports))
        while len(self.members) < REPLICAS:
            await self._join()
        for link in self._links:  # only now: the state that a joiner takes over is no part of the question
            link.scale = self._scale(self._run)

    def _scale(self, run: Run) -> float:
        """How much larger the full model is than what is played."""
        return self.setting.contribution_bytes / run.contribution_bytes()[1]

    async def _join(self) -> None:
        assert self._run is not None
        identity, ports, server = self._ports()
        peers = await meet(ports, self._run.run_id)
        record = self._record(identity, ports)
        run, donors = await catchup.greet(ports, self._run.run_id, b"", record, peers, build.machine)
        await ports.directory.announce(record)
        await catchup.fetch_files(ports, run, donors)
        tensors = empty_tensors(run.layout)
        reached = await catchup.fetch_snapshot(ports, run, tensors, donors)
        self._begin(identity, ports, server, tensors, reached)

    def _record(self, identity: Identity, ports: Ports) -> bytes:
        assert self._run is not None
        record = swarm_pb2.Record(run_id=self._run.run_id, peer=identity.peer, sequence=1, endpoints=["memory"])
        return ports.signer.sign(records.DOMAIN_RECORD, record.SerializeToString())

    def _begin(self, identity: Identity, ports: Ports, server: Server, tensors: OuterTensors, reached: catchup.Reached) -> None:
        assert self._run is not None
        tick_s = self.setting.slot_s / self.setting.slot_ticks
        trainer = Clockwork(tensors.anchor, len(self.members), tick_s)
        ports.trainer = trainer
        rate = round(self._rate / self._scale(self._run))
        me = announced(identity.peer, ports.store.incarnation, True, self._run, (rate, rate))
        member = Member(self._run, ports, reached.state, reached.state_hash, tensors, me)
        server.member = member
        self.trainers.append(trainer)
        self.members.append(member)
        self.tasks.append(asyncio.ensure_future(life.live(member)))


def measure(setting: Setting, rate_bytes_per_s: float, syncs: int, note: Callable[[str], None] = lambda line: None) -> Measured:
    """Play `setting` over links of this rate, until `syncs` slots after the first few have ended on every replica.

    Raises TimeoutError, and RuntimeError where a round did not count all.
    """

    async def main() -> Measured:
        swarm = _Swarm(setting, rate_bytes_per_s, note)
        await swarm.start()
        wanted = WARM_UP_SYNCS + syncs + 1
        async with asyncio.timeout(LONGEST_SLOTS * wanted * setting.slot_s):
            while any(len(trainer.ends) < wanted for trainer in swarm.trainers):
                for task in swarm.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(setting.slot_s / 2)
        for task in swarm.tasks:
            task.cancel()
        await asyncio.gather(*swarm.tasks, return_exceptions=True)
        return _measured(swarm, syncs)

    chunk_bytes = build.codecs()[setting.codec].chunk_bytes
    # A frame is a chunk as it is a block or two at full size: what is cut coarser would show up as time between hops.
    with small_blocks(chunk_bytes), mock.patch.object(streams, "FRAME_BYTES", chunk_bytes):
        return clock.run(main())


def _measured(swarm: _Swarm, syncs: int) -> Measured:
    elapsed_s = compute_s = 0.0
    for trainer in swarm.trainers:
        (begun_s, before_s), (ended_s, after_s) = trainer.ends[WARM_UP_SYNCS], trainer.ends[WARM_UP_SYNCS + syncs]
        elapsed_s += ended_s - begun_s
        compute_s += after_s - before_s
    window = range(WARM_UP_SYNCS, WARM_UP_SYNCS + syncs)
    reports = [report for member in swarm.members for report in member.history if report.sync in window]
    for report in reports:
        if report.averaged < REPLICAS:
            raise RuntimeError(f"sync {report.sync} counted {report.averaged} of {REPLICAS} replicas; this is no steady state")
    phases_s = {name: sum(report.times_s[name] for report in reports) / len(reports) for name in reports[0].times_s}
    slots = len(swarm.trainers) * syncs
    attempts = sum(report.attempts for report in reports) / len(reports)
    return Measured(compute_s / elapsed_s, elapsed_s / slots, (elapsed_s - compute_s) / slots, phases_s, attempts)
