"""A whole swarm on the virtual clock retraces single-process DiLoCo, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from diloco import Oracle
from streaming import StreamingOracle

from decentra.config import InnerConfig, OuterConfig, RunConfig
from decentra.ledger.entry import Entry
from decentra.model.init import seeded
from decentra.outer.fragments import parameters
from decentra.rounds import catchup, records
from decentra.rounds.founding import empty_tensors
from decentra.sim.cluster import Cluster
from decentra.sim.scenario import Fault, Scenario
from decentra.train.loop import train_plain
from decentra.train.step import Replica
from decentra.wire.v1 import swarm_pb2

Play = Callable[[Scenario], Cluster]


def entries_of(cluster: Cluster) -> list[Entry]:
    """The founder's ledger."""
    log = cluster.nodes[0].ports.store.entries(0, 10**6)
    return [records.parse_entry(swarm_pb2.CertifiedEntry.FromString(data).entry) for _, data in log]


def anchor_at(cluster: Cluster, r: int) -> dict[str, torch.Tensor]:
    """The anchor of S_r, by replaying the founder's ledger."""
    assert cluster.run is not None
    tensors = empty_tensors(cluster.run.layout)
    catchup.restore(cluster.nodes[0].ports.store, cluster.run, tensors, to_r=r)
    return cluster.run.layout.views(tensors.anchor)


def differing(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name].contiguous().view(torch.int32), right[name].contiguous().view(torch.int32))]


def retrace(cluster: Cluster, oracle: Oracle | None = None) -> Oracle:
    """Drive the oracle by the claims of the ledger and compare the anchor at the end of every sync."""
    oracle = oracle or Oracle(cluster.scenario.run, cluster.corpus.source)
    assert differing(anchor_at(cluster, 0), oracle.anchor) == []
    for entry in entries_of(cluster):
        if entry.sync is None:
            continue
        oracle.sync({c.sender: [i for start, stop in c.claim for i in range(start, stop)] for c in entry.counted})
        assert differing(anchor_at(cluster, entry.r + 1), oracle.anchor) == [], f"after sync {entry.sync}"
    return oracle


@pytest.mark.parametrize(
    "outer",
    [OuterConfig(inner_steps=5), OuterConfig(inner_steps=5, optimizer="sgd"), OuterConfig(inner_steps=5, optimizer="average", lr=1.0)],
)
def test_a_swarm_retraces_the_oracle_bit_for_bit_at_every_sync(play: Play, small_run: RunConfig, outer: OuterConfig) -> None:
    cluster = play(Scenario(name="oracle", peers=3, run=dataclasses.replace(small_run, outer=outer)))
    oracle = retrace(cluster)
    assert len(oracle.losses) == 5 and all(len(losses) == 3 for losses in oracle.losses)


@pytest.mark.parametrize("aggregate", ["reduce", "gather"])
@pytest.mark.parametrize("weights", ["", "tokens"])
def test_a_swarm_of_unequal_machines_retraces_the_oracle_by_time(play: Play, small_run: RunConfig, weights: str, aggregate: str) -> None:
    """The inner rate is constant: by time it follows a clock that the oracle has not."""
    run = dataclasses.replace(
        small_run,
        outer=OuterConfig(inner_steps=5, sync="time", budget_s=1.5, weights=weights),
        inner=dataclasses.replace(small_run.inner, warmup_tokens=0),
        codec=dataclasses.replace(small_run.codec, aggregate=aggregate),
    )
    oracle = retrace(play(Scenario(name="oracle", peers=3, speeds=(1.0, 2.0, 3.0), run=run)))
    steps = sorted(len(losses) for losses in oracle.losses[-1].values())
    assert len(steps) == 3 and steps[2] > 2 * steps[0]


def test_a_swarm_with_a_late_joiner_and_a_leaver_retraces_the_oracle(play: Play, small_run: RunConfig) -> None:
    faults = (Fault(at_sync=1, kind="join"), Fault(at_sync=5, kind="leave", peer=2))
    cluster = play(Scenario(name="oracle", peers=3, run=dataclasses.replace(small_run, stop_syncs=9), faults=faults))
    averaged = [len(losses) for losses in retrace(cluster).losses]
    assert averaged[0] == 3 and max(averaged) == 4 and averaged[-1] == 3


STREAMS = [
    OuterConfig(inner_steps=10, fragments=2),
    OuterConfig(inner_steps=10, fragments=2, overlap_steps=2, alpha=0.5),
    OuterConfig(inner_steps=10, fragments=2, overlap_steps=4, alpha=0.0),
    OuterConfig(inner_steps=5, fragments=1, overlap_steps=3, alpha=0.7),
]


def streaming(cluster: Cluster) -> StreamingOracle:
    run = cluster.run
    assert run is not None
    return StreamingOracle(cluster.scenario.run, cluster.corpus.source, parameters(run.layout, run.machine.fragments))


@pytest.mark.parametrize("outer", STREAMS, ids=lambda o: f"P={o.fragments}-tau={o.overlap_steps}-alpha={o.alpha}")
def test_a_streaming_swarm_retraces_its_oracle_bit_for_bit_at_every_sync(play: Play, small_run: RunConfig, outer: OuterConfig) -> None:
    run = dataclasses.replace(small_run, stop_syncs=7, outer=outer, model=dataclasses.replace(small_run.model, num_layers=2))
    cluster = play(Scenario(name="oracle", peers=3, run=run))
    oracle = retrace(cluster, streaming(cluster))
    assert len(oracle.losses) == 7 and all(len(losses) == 3 for losses in oracle.losses)
    members = [node.member for node in cluster.nodes if node.member is not None]
    assert {name for member in members for name in member.said} == set()


def test_a_streaming_swarm_with_a_late_joiner_retraces_its_oracle(play: Play, small_run: RunConfig) -> None:
    run = dataclasses.replace(
        small_run, stop_syncs=10, outer=OuterConfig(inner_steps=10, fragments=2, overlap_steps=2),
        model=dataclasses.replace(small_run.model, num_layers=2),
    )  # fmt: skip
    cluster = play(Scenario(name="oracle", peers=3, run=run, faults=(Fault(at_sync=2, kind="join"),)))
    averaged = [len(losses) for losses in retrace(cluster, streaming(cluster)).losses]
    assert averaged[0] == 3 and averaged[-1] == 4


def test_one_fragment_without_overlap_is_plain_diloco_bit_for_bit(play: Play, small_run: RunConfig) -> None:
    cluster = play(Scenario(name="oracle", peers=3, run=small_run))
    plain, stream = retrace(cluster), retrace(cluster, streaming(cluster))
    assert differing(plain.anchor, stream.anchor) == []


def test_the_oracle_itself_learns_and_notices_one_changed_bit(play: Play, small_run: RunConfig) -> None:
    cluster = play(Scenario(name="oracle", peers=2, run=dataclasses.replace(small_run, start_members=2)))
    oracle = retrace(cluster)
    means = [sum(map(sum, losses.values())) for losses in oracle.losses]
    assert means[-1] < means[0]
    name = next(iter(oracle.anchor))
    oracle.anchor[name].view(torch.int32).view(-1)[0] ^= 1
    assert differing(anchor_at(cluster, entries_of(cluster)[-1].r + 1), oracle.anchor) == [name]


def alone(run: RunConfig, weight_decay: float) -> RunConfig:
    """One member, one inner step a sync, outer rate 1 and no momentum: plain training by way of the swarm."""
    inner = InnerConfig(lr=3e-3, warmup_tokens=0, batch_samples=4, weight_decay=weight_decay)
    return dataclasses.replace(run, start_members=1, stop_syncs=50, inner=inner, outer=OuterConfig(inner_steps=1, lr=1.0, momentum=0.0))


def plain(cluster: Cluster, num_steps: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    run = cluster.scenario.run
    replica = Replica(seeded(run.llama, run.seed), run.inner)
    losses = train_plain(replica, cluster.corpus.source, num_steps)
    return losses, {name: p.detach() for name, p in replica.model.named_parameters()}


def swarm_losses(cluster: Cluster) -> list[float]:
    member = cluster.nodes[0].member
    assert member is not None
    return [member.train_loss[sync] for sync in range(50)]


def test_one_peer_and_one_step_a_sync_is_plain_training_bit_for_bit(play: Play, small_run: RunConfig) -> None:
    cluster = play(Scenario(name="alone", peers=1, run=alone(small_run, weight_decay=0.0)))
    losses, parameters = plain(cluster, 50)
    assert swarm_losses(cluster) == losses
    assert differing(anchor_at(cluster, entries_of(cluster)[-1].r + 1), parameters) == []


def test_with_decay_one_peer_stays_within_rounding_of_plain_training(play: Play, small_run: RunConfig) -> None:
    """AdamW then rounds twice a step, so a - (a - b) may miss b by an ulp, which Adam's division by small moments
    magnifies; eps bounds that. Measures: each loss to 1e-6 of its size; all parameters to 1e-5 of their length."""
    run = alone(small_run, weight_decay=0.1)
    run = dataclasses.replace(run, inner=dataclasses.replace(run.inner, eps=1e-4))
    cluster = play(Scenario(name="alone", peers=1, run=run))
    losses, parameters = plain(cluster, 50)
    assert swarm_losses(cluster) == pytest.approx(losses, rel=1e-6)
    views = anchor_at(cluster, entries_of(cluster)[-1].r + 1)
    found, wanted = (torch.cat([each[name].flatten() for name in parameters]) for each in (views, parameters))
    assert 0 < float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())
