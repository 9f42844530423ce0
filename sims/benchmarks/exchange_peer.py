"""One peer of the exchange benchmark: the node daemon's own code around a trainer that costs nothing.

GrpcTransport with TLS, the real member, rounds and store on a directory of this machine. Every peer makes the same S_0
itself, so that no snapshot travels; all become members by the protocol before sync 0.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import secrets
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import torch

from decentra import build
from decentra.config import CodecConfig, InnerConfig, OuterConfig, RunConfig
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.identity.tls import tls_material
from decentra.ledger.chain import digest
from decentra.ledger.files import DiskFiles, MemoryFiles
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Store
from decentra.node.pages import keep_pages
from decentra.outer.layout import Layout
from decentra.rounds import life
from decentra.rounds.catchup import Reached
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports, Run, learn_record
from decentra.rounds.records import DOMAIN_RECORD
from decentra.rounds.serve import Server
from decentra.transport.grpc import GrpcTransport
from decentra.types import SlotPlan, SlotResult
from decentra.wire.v1 import swarm_pb2
from sims.benchmarks.crew import Captain
from sims.benchmarks.exchange_rivals import SAMPLES, noise, wanted

CPU_MARKS = ("trained", "offered", "closed", "proposed", "certified", "applied")


def identity_of(number: int) -> Identity:
    """Known to all peers, for all of them sign S_0 as its founder does."""
    return Identity.from_seed(digest("decentra/benchmark-identity", str(number).encode()))


class TimedFiles(DiskFiles):
    """A directory that knows how long it was written to."""

    spent_s = 0.0

    def write(self, name: str, *data: bytes | memoryview) -> None:
        """See Files."""
        start = time.perf_counter()
        super().write(name, *data)
        self.spent_s += time.perf_counter() - start


class Watch:
    """Seconds spent in os.fsync, and the largest resident set since it was last asked to begin."""

    def __init__(self) -> None:
        self.fsync_s = 0.0
        plain = os.fsync

        def timed(descriptor: int) -> None:
            start = time.perf_counter()
            plain(descriptor)
            self.fsync_s += time.perf_counter() - start

        os.fsync = timed

    @staticmethod
    def begin() -> int:
        """Resident bytes now; the peak is measured from here."""
        Path("/proc/self/clear_refs").write_text("5")
        return Watch.read("VmRSS")

    @staticmethod
    def read(name: str) -> int:
        """Bytes that /proc says of this process."""
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
        return int(line.split()[1]) * 1024


class MeasuredMember(Member):
    """The member, with CPU seconds and memory beside the time of each mark."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: dict[str, tuple[float, float, int]] = {}

    def mark(self, name: str) -> None:
        """See Member."""
        if name in CPU_MARKS and name not in self.marks:
            self.seen[name] = (self.now(), time.process_time(), Watch.read("VmHWM"))
        super().mark(name)


class FreeTrainer:
    """A trainer port: local = anchor + fixed noise; a slot is done when all peers are told to go."""

    def __init__(self, captain: Captain, watch: Watch, tensors: OuterTensors, number: int, peers: int) -> None:
        self.local = tensors.anchor.clone()
        self.member: MeasuredMember
        self.floor_bytes = 0
        self._captain, self._watch, self._tensors = captain, watch, tensors
        self._noise = noise(number)
        self._mean = wanted(peers, len(self.local))
        self._anchor = self._sample()

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """See rounds.ports.TrainerPort."""
        tiles = len(self.local) // len(self._noise)
        body = tiles * len(self._noise)
        anchor, local = (each[:body].view(tiles, len(self._noise)) for each in (self._tensors.anchor, self.local))
        torch.add(anchor, self._noise, out=local)
        torch.add(self._tensors.anchor[body:], self._noise[: len(self.local) - body], out=self.local[body:])
        await asyncio.to_thread(self._report, plan.sync)
        num_tokens = plan.num_steps * self.member.run.machine.tokens_a_sample
        return SlotResult(plan.sync, plan.num_steps, plan.num_steps, num_tokens, 0.0, 0.0)

    def _sample(self) -> torch.Tensor:
        return self._tensors.anchor[torch.linspace(0, len(self.local) - 1, SAMPLES, dtype=torch.float64).long()].clone()

    def _report(self, sync: int) -> None:
        member, watch = self.member, self._watch
        moved, self._anchor = self._sample() - self._anchor, self._sample()
        reports = [r for r in member.history if r.sync == sync - 1]
        files = member.ports.store.files
        assert isinstance(files, TimedFiles)
        self._captain.say(
            {
                "sync": sync,
                "marks": dict(member.seen),
                "times_s": reports[-1].times_s if reports else {},
                "attempts": reports[-1].attempts if reports else 0,
                "averaged": reports[-1].averaged if reports else 0,
                "bytes_up": reports[-1].bytes_up if reports else 0,
                "fsync_s": watch.fsync_s,
                "write_s": files.spent_s,
                "floor": self.floor_bytes,
                "error": float((moved - self._mean).norm() / self._mean.norm()),
            }
        )
        self._captain.hear()
        watch.fsync_s = files.spent_s = 0.0
        member.seen.clear()
        if not self.floor_bytes:
            ctypes.CDLL(None).malloc_trim(0)  # what founding left behind is not the exchange's
        resident = watch.begin()
        self.floor_bytes = self.floor_bytes or resident

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        return (0, 1)


def first_state(peers: int, num_elements: int, codec: str) -> tuple[Run, Reached, OuterTensors]:
    """The run and S_0 as peer 0 founds them."""
    config = RunConfig(
        name="exchange",
        start_members=peers,
        snapshot_every=1 << 20,
        inner=InnerConfig(batch_samples=1),
        outer=OuterConfig(inner_steps=1, optimizer="average", lr=1.0),
        codec=CodecConfig(up=codec, down=codec),
    )
    layout = Layout.of([("weight", (num_elements,))])
    tensors = empty_tensors(layout)
    material = Material(config, layout, (), 1 << 40, b"", bytes(16))
    store = Store.open(MemoryFiles(), lambda: 1)
    run, reached = found(material, tensors, store, IdentitySigner(identity_of(0)), MemoVerifier(), build.machine)
    return run, reached, tensors


async def play(captain: Captain, number: int, peers: int, num_elements: int, address: str, folder: Path, codec: str) -> None:
    """Until the process is ended."""
    torch.set_num_threads(1)
    watch, identity = Watch(), identity_of(number)
    run, reached, tensors = first_state(peers, num_elements, codec)
    server, signer = Server(), IdentitySigner(identity)
    tls = tls_material(identity, run.run_id, b"")
    transport = await GrpcTransport.start(identity.peer, server, tls, host=address, port=0)
    endpoint = f"{address}:{transport.port}"
    record = swarm_pb2.Record(
        run_id=run.run_id, peer=identity.peer, sequence=1, endpoints=[endpoint], server_certificate=tls.server_certificate
    )
    trainer = FreeTrainer(captain, watch, tensors, number, peers)
    ports = Ports(
        transport=transport,
        directory=MemoryDirectory(MemoryBoard()),
        store=Store.open(TimedFiles(folder), lambda: number + 1),
        signer=signer,
        verifier=MemoVerifier(),
        trainer=trainer,
        run_blocking=asyncio.to_thread,  # type: ignore[arg-type]
        rng=random.Random(secrets.randbits(62)),
        note=lambda line: print(line, file=sys.stderr, flush=True),
    )
    captain.say(signer.sign(DOMAIN_RECORD, record.SerializeToString()).hex())
    for signed in captain.hear():
        ports.directory.learn(bytes.fromhex(signed))
        learn_record(ports, run.run_id, bytes.fromhex(signed))
    me = announced(identity.peer, ports.store.incarnation, True, run)
    server.member = trainer.member = MeasuredMember(run, ports, reached.state, reached.state_hash, tensors, me)
    await life.live(trainer.member)


if __name__ == "__main__":
    keep_pages()
    number, peers, num_elements = (int(text) for text in sys.argv[1:4])
    asyncio.run(play(Captain(), number, peers, num_elements, sys.argv[4], Path(sys.argv[5]), sys.argv[6]))
