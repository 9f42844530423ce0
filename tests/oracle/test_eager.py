"""A whole swarm whose merges are eager retraces its oracle, bit for bit, and sends everything once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch
from eager import EagerOracle
from test_oracle import anchor_at, differing, entries_of, retrace

from decentra.config import CodecConfig, OuterConfig, RunConfig
from decentra.outer.fragments import Fragment, parameters
from decentra.rounds import contribute, provisional
from decentra.rounds.contribution import Encoded
from decentra.sim import cluster as cluster_module
from decentra.sim.cluster import Cluster
from decentra.sim.compute import SimTrainer
from decentra.sim.scenario import Scenario
from decentra.train.step import Replica
from decentra.types import SlotPlan, SlotResult

Play = Callable[[Scenario], Cluster]

WHOLE = OuterConfig(inner_steps=5, merge="eager")
HALVES = OuterConfig(inner_steps=10, fragments=2, merge="eager")
eager = pytest.mark.parametrize("outer", [WHOLE, HALVES], ids=lambda outer: f"P={outer.fragments}")


def run_of(small_run: RunConfig, outer: OuterConfig, **change: object) -> RunConfig:
    model = dataclasses.replace(small_run.model, num_layers=2)
    return dataclasses.replace(small_run, **{"stop_syncs": 7, "outer": outer, "model": model, **change})


def oracle_of(cluster: Cluster) -> EagerOracle:
    assert cluster.run is not None
    return EagerOracle(cluster.scenario.run, cluster.corpus.source, parameters(cluster.run.layout, cluster.run.machine.fragments))


@eager
def test_an_eager_swarm_retraces_its_oracle_bit_for_bit_at_every_sync(play: Play, small_run: RunConfig, outer: OuterConfig) -> None:
    oracle = retrace(cluster := play(Scenario(name="eager", peers=3, run=run_of(small_run, outer))), oracle_of(cluster))
    assert len(oracle.losses) == 7 and all(len(losses) == 3 for losses in oracle.losses)


class Paced(SimTrainer):
    """A trainer that takes one step less a slot than the one made before it."""

    less: itertools.count[int]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._less = next(self.less)

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        return await super().train(self._shorter(plan), None if final is None else self._final(final))

    async def _final(self, final: Awaitable[SlotPlan]) -> SlotPlan:
        return self._shorter(await final)

    def _shorter(self, plan: SlotPlan) -> SlotPlan:
        steps = plan.num_steps - self._less
        return dataclasses.replace(plan, num_steps=steps, overlap_steps=min(plan.overlap_steps, steps))


@eager
def test_members_that_weigh_differently_expect_their_own_shares(
    play: Play, small_run: RunConfig, outer: OuterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Paced.less = itertools.count()
    monkeypatch.setattr(cluster_module, "SimTrainer", Paced)
    cluster = play(Scenario(name="eager", peers=3, run=run_of(small_run, outer)))
    assert {tuple(sorted(len(losses) for losses in sync.values())) for sync in retrace(cluster, oracle_of(cluster)).losses} == {(3, 4, 5)}


@pytest.mark.parametrize("codec", [CodecConfig(up="fp32", down="fp32"), CodecConfig(up="int4", aggregate="gather", feedback=1.0)])
@pytest.mark.parametrize("fragments", [1, 2])
def test_alone_eager_is_plain_diloco_bit_for_bit(play: Play, small_run: RunConfig, fragments: int, codec: CodecConfig) -> None:
    anchors = []
    for merge in ("mix", "eager"):
        outer = OuterConfig(inner_steps=5 * fragments, fragments=fragments, merge=merge)
        cluster = play(Scenario(name="alone", peers=1, run=run_of(small_run, outer, start_members=1, codec=codec)))
        anchors.append([anchor_at(cluster, entry.r + 1) for entry in entries_of(cluster) if entry.sync is not None])
        member = cluster.nodes[0].member
        assert member is not None and len(member.carried.points) == (fragments if merge == "eager" else 0)
    assert len(anchors[0]) == 7 and [differing(*pair) for pair in zip(*anchors, strict=True)] == [[]] * 7


class Ledger:
    """What every replica's inner steps did to it, and what its member sent, summed in fp64."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: dict[int, torch.Tensor] = {}
        self.moved: dict[int, dict[str, torch.Tensor]] = {}
        step, encode = Replica.inner_step, contribute._encode

        def stepped(replica: Replica, *arguments: object) -> float:
            before = {name: p.detach().double() for name, p in replica.model.named_parameters()}
            loss = step(replica, *arguments)  # type: ignore[arg-type]
            moved = self.moved.setdefault(id(replica), {name: torch.zeros_like(p) for name, p in before.items()})
            for name, p in replica.model.named_parameters():
                moved[name] += before[name] - p.detach()
            return loss

        def encoded(member: Any, fragment: Fragment) -> Encoded:
            made = encode(member, fragment)
            zeros = torch.zeros(member.run.layout.num_elements, dtype=torch.float64)
            sent = self.sent.setdefault(id(member.ports.trainer._replica), zeros)
            sent[fragment.elements] += made.packed.view(torch.float32).view(-1)
            return made

        monkeypatch.setattr(Replica, "inner_step", stepped)
        monkeypatch.setattr(contribute, "_encode", encoded)

    def off_by(self, cluster: Cluster) -> float:
        """The largest share of a replica's drift that what was sent of the fragment synced last is away from it."""
        assert cluster.run is not None
        names = parameters(cluster.run.layout, cluster.run.machine.fragments)[(cluster.sync() - 1) % len(cluster.run.machine.fragments)]
        worst = 0.0
        for replica, moved in self.moved.items():
            sent = cluster.run.layout.views(self.sent[replica])
            for name in names:
                worst = max(worst, float((sent[name] - moved[name]).norm() / moved[name].norm()))
        return worst


@eager
@pytest.mark.parametrize("base", ["its provisional point", "the agreed anchor"])
def test_what_is_sent_is_what_the_inner_steps_did_and_nothing_twice(
    play: Play, small_run: RunConfig, outer: OuterConfig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(monkeypatch)
    if base == "the agreed anchor":
        monkeypatch.setattr(provisional, "base_of", lambda member, fragment: member.tensors.anchor[fragment.elements])
    cluster = play(Scenario(name="eager", peers=3, run=run_of(small_run, outer)))
    assert len(ledger.sent) == 3
    if base == "its provisional point":
        assert ledger.off_by(cluster) < 1e-5
    else:
        assert ledger.off_by(cluster) > 0.1
