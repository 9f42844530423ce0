"""Over real gRPC with TLS, on the real clock, a swarm goes the way of the virtual clock, hash for hash, and of the oracle."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from decentra.config import OuterConfig, RunConfig
from decentra.identity.keys import Identity
from decentra.identity.tls import tls_material
from decentra.ledger.chain import digest
from decentra.rounds.member import Member
from decentra.rounds.records import DOMAIN_RECORD
from decentra.seams import TlsMaterial
from decentra.sim import clock
from decentra.sim.cluster import Cluster, Corpus, SimNode
from decentra.sim.scenario import Scenario
from decentra.transport.grpc import GrpcTransport
from decentra.transport.memory import MemoryNetwork
from decentra.wire.v1 import swarm_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from diloco import Oracle
from test_eager import oracle_of as eager
from test_oracle import retrace, streaming

PEERS = 3
WITHIN_S = 90.0


class GrpcCluster(Cluster):
    """A cluster whose nodes listen on ports of this machine. The run id is known beforehand: all of it repeats."""

    waiting: list[tuple[GrpcTransport, TlsMaterial]]

    async def listen(self, run_id: bytes) -> None:
        self.waiting = []
        for number in range(PEERS):
            identity = Identity.from_seed(digest("decentra/sim-identity", f"{self.scenario.seed}/{number}".encode()))
            tls = tls_material(identity, run_id, b"")
            transport = await GrpcTransport.start(identity.peer, None, tls, host="127.0.0.1", port=0)
            self.waiting.append((transport, tls))

    def add_node(self) -> SimNode:
        node = super().add_node()
        transport, _ = self.waiting[node.number]
        assert transport.peer == node.identity.peer
        transport.handler = node.server
        node.ports.transport = transport
        return node

    def _record(self, node: SimNode, run_id: bytes) -> bytes:
        transport, tls = self.waiting[node.number]
        record = swarm_pb2.Record(
            run_id=run_id,
            peer=node.identity.peer,
            sequence=1,
            endpoints=[f"127.0.0.1:{transport.port}"],
            server_certificate=tls.server_certificate,
        )
        return node.ports.signer.sign(DOMAIN_RECORD, record.SerializeToString())
    async def close(self) -> None:
        for transport, _ in self.waiting:
            await transport.close()


def members(cluster: Cluster) -> list[Member]:
    return [node.member for node in cluster.nodes if node.member is not None]


async def until(holds: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    while not holds():
        assert loop.time() < deadline
        await asyncio.sleep(0.02)


def all_hear_all(cluster: Cluster) -> bool:
    """Whether every node is in the view of every other, and who leads hears all of them."""
    there = members(cluster)
    peers = {member.peer for member in there}
    same = all(set(member.state.peers()) == peers and member.state.r == there[0].state.r for member in there)
    return same and any(member.leading and set(member.heard()) == peers for member in there)


async def story(cluster: Cluster) -> None:
    """One peer after another, so that the order of admission is the same on any clock; then to the end of the run."""
    await cluster.found()
    for _ in range(PEERS - 1):
        await until(lambda: all_hear_all(cluster))
        await cluster.join()
    await asyncio.gather(*(node.task for node in cluster.nodes if node.task is not None))


def hashes(cluster: Cluster) -> list[list[tuple[int, str]]]:
    """(entry, hash after it) as each node saw them."""
    return [[(report.entry, report.state_hash) for report in member.history] for member in members(cluster)]


WAYS: list[tuple[OuterConfig, Callable[[Cluster], Oracle | None]]] = [
    (OuterConfig(inner_steps=5), lambda cluster: None),
    (OuterConfig(inner_steps=10, fragments=2, overlap_steps=3), streaming),
    (OuterConfig(inner_steps=10, fragments=2, merge="eager"), eager),
]
"""Each with its oracle; None: that of DiLoCo."""


@pytest.mark.parametrize(("outer", "oracle_of"), WAYS, ids=["plain", "overlap", "eager"])
def test_three_peers_over_grpc_retrace_the_virtual_clock_and_the_oracle(
    small_run: RunConfig, data_folder: Path, outer: OuterConfig, oracle_of: Callable[[Cluster], Oracle | None]
) -> None:
    model = dataclasses.replace(small_run.model, num_layers=outer.fragments)
    run = dataclasses.replace(small_run, snapshot_every=1000, outer=outer, model=model)
    scenario = Scenario(name="grpc", peers=PEERS, link="1gbit,1ms", step_s=0.02, work_s=0.0, run=run)
    corpus = Corpus.of(scenario.run, data_folder)
    virtual = Cluster(scenario, corpus, lambda line: None)
    clock.run(story(virtual))
    assert virtual.run is not None
    notes: list[str] = []
    real = GrpcCluster(scenario, corpus, notes.append, MemoryNetwork())

    async def play() -> None:
        await real.listen(virtual.run.run_id if virtual.run else b"")
        async with asyncio.timeout(WITHIN_S):
            await story(real)
        await real.close()

    asyncio.run(play())
    assert real.run is not None and real.run.run_id == virtual.run.run_id
    for seen in hashes(real):
        assert seen == hashes(real)[0][-len(seen) :], notes
    assert hashes(real)[0] == hashes(virtual)[0], notes
    ours, theirs = members(real)[0], members(virtual)[0]
    assert ours.state.sync == 5 and ours.hash == theirs.hash
    for member in members(real):
        assert torch.equal(member.tensors.anchor.view(torch.int32), theirs.tensors.anchor.view(torch.int32))
        assert torch.equal(member.tensors.momentum.view(torch.int32), theirs.tensors.momentum.view(torch.int32))
        assert min(member.ports.transport.counters()) > 100_000
    oracle = retrace(real, oracle_of(real))
    assert [len(losses) for losses in oracle.losses] == [PEERS] * 5
