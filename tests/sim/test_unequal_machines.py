"""Machines of unequal speed: slots that end by time use them all, slots of equal steps wait for the slowest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from decentra.config import OuterConfig, RunConfig
from decentra.rounds import records
from decentra.sim.cluster import Cluster
from decentra.sim.scenario import Scenario
from decentra.wire.v1 import swarm_pb2

Play = Callable[[Scenario], Cluster]

SPEEDS, STEP_S = (1.0, 1.0, 2.0, 4.0), 0.2
WARM_UP_SYNCS = 3
"""Leases start at what is planned for all and double; only then is the fastest free to take what it can."""


def rate_of(cluster: Cluster) -> float:
    """Tokens a virtual second that the swarm counted, against those of the machines each alone."""
    member = cluster.nodes[0].member
    assert member is not None
    run = cluster.scenario.run
    reports = [report for report in member.history if report.sync is not None and report.sync >= WARM_UP_SYNCS]
    tokens = sum(report.tokens for report in reports[1:])
    alone = sum(SPEEDS) / STEP_S * run.inner.batch_samples * run.data.context
    return tokens / (reports[-1].at_s - reports[0].at_s) / alone


def counted(cluster: Cluster) -> list[dict[str, int]]:
    """Steps of each sender, by sync."""
    log = (swarm_pb2.CertifiedEntry.FromString(data).entry for _, data in cluster.nodes[0].ports.store.entries(0, 10**6))
    return [{c.sender: c.num_steps for c in entry.counted} for entry in map(records.parse_entry, log) if entry.sync is not None]


def unequal(run: RunConfig, outer: OuterConfig, link: str) -> Scenario:
    run = dataclasses.replace(run, start_members=4, stop_syncs=7, outer=outer, inner=dataclasses.replace(run.inner, batch_samples=1))
    return Scenario(name="unequal", peers=4, link=link, speeds=SPEEDS, step_s=STEP_S, run=run)


@pytest.mark.parametrize(
    ("outer", "link", "least", "most"),
    [
        (OuterConfig(inner_steps=20), "1gbit,1ms", 0.4, 0.5),
        (OuterConfig(inner_steps=20, sync="time", budget_s=6.0), "1gbit,1ms", 0.95, 1.0),
        (OuterConfig(inner_steps=20, overlap_steps=5, sync="time", budget_s=4.0), "100mbit,50ms", 0.95, 1.02),
    ],
    ids=("steps", "time", "time with overlap"),
)
def test_slots_by_time_use_what_machines_of_unequal_speed_can(
    play: Play, small_run: RunConfig, outer: OuterConfig, link: str, least: float, most: float
) -> None:
    cluster = play(unequal(small_run, outer, link))
    assert least <= rate_of(cluster) <= most
    by_speed = {node.identity.peer: speed for node, speed in zip(cluster.nodes, SPEEDS, strict=True)}
    slow, fast = sorted(by_speed, key=by_speed.__getitem__)[0::3]
    last = counted(cluster)[-1]
    assert last[fast] == last[slow] if outer.sync == "steps" else 3.5 <= last[fast] / last[slow] <= 4.5
