"""A simulation repeats to the bit, and its swarm outlives its leader and takes in who comes late."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decentra.config import CodecConfig, RunConfig
from decentra.rounds import records
from decentra.sim.cluster import Cluster
from decentra.sim.scenario import Fault, Scenario
from decentra.sim.simulate import simulate
from decentra.wire.v1 import swarm_pb2

Play = Callable[[Scenario], Cluster]

CALM = Scenario(name="calm", peers=3)
FAULTS = (Fault(at_sync=1, kind="join"), Fault(at_sync=3, kind="kill"), Fault(at_sync=8, kind="leave"))
"""Who is killed, and who leaves, is the leader of the moment."""
STORM = Scenario(name="storm", seed=1, peers=4, faults=FAULTS)


@pytest.fixture(scope="session")
def run_config(small_run: RunConfig) -> RunConfig:
    return dataclasses.replace(small_run, stop_syncs=3, codec=CodecConfig(up="int8", down="int8"))


def without_wall(value: Any) -> Any:
    """The same without keys that name wall time."""
    if isinstance(value, dict):
        return {key: without_wall(each) for key, each in value.items() if "wall" not in key}
    return [without_wall(each) for each in value] if isinstance(value, list) else value


def test_two_runs_differ_only_in_wall_time(data_folder: Path, run_config: RunConfig) -> None:
    scenario = dataclasses.replace(CALM, run=run_config)
    (one, one_nodes), (two, two_nodes) = (simulate(scenario, data_folder, lambda line: None) for _ in range(2))
    assert one["wall_s"] > 0 and without_wall(one) == without_wall(two)
    assert without_wall(one_nodes) == without_wall(two_nodes)
    assert one["rounds_committed"] == 3 and one["hashes_equal"] and len(set(one["state_hash"].values())) == 1


WITH_FEEDBACK = [
    *(CodecConfig(up=codec, down=codec, feedback=1.0) for codec in ("fp32", "bf16", "int4", "fp4")),
    CodecConfig(up="topk", aggregate="gather", feedback=0.95),
    CodecConfig(up="topk", down="int8", feedback=0.95),
]


@pytest.mark.parametrize("codec", WITH_FEEDBACK, ids=lambda codec: f"{codec.up} {codec.aggregate}")
def test_replicas_agree_on_every_codec_with_error_feedback(data_folder: Path, small_run: RunConfig, codec: CodecConfig) -> None:
    run = dataclasses.replace(small_run, stop_syncs=3, codec=codec)
    summary, _ = simulate(dataclasses.replace(CALM, run=run), data_folder, lambda line: None)
    assert summary["rounds_committed"] == 3 and summary["hashes_equal"] and len(set(summary["state_hash"].values())) == 1


def test_another_seed_is_another_run(data_folder: Path, run_config: RunConfig) -> None:
    one, two = (
        simulate(dataclasses.replace(CALM, seed=seed, run=dataclasses.replace(run_config, seed=seed)), data_folder, lambda line: None)[0]
        for seed in (0, 1)
    )
    assert set(one["state_hash"].values()).isdisjoint(two["state_hash"].values()) and one["peers"] != two["peers"]


def test_a_stormy_run_repeats_too(data_folder: Path, run_config: RunConfig) -> None:
    scenario = dataclasses.replace(STORM, run=dataclasses.replace(run_config, stop_syncs=10))
    one, two = (simulate(scenario, data_folder, lambda line: None)[0] for _ in range(2))
    assert without_wall(one) == without_wall(two)
    assert (len(one["joined_late"]), len(one["killed"])) == (1, 1) and one["rounds_committed"] == 10


@pytest.fixture(scope="module")
def storm(play: Play, run_config: RunConfig) -> Cluster:
    """The first storm that does not kill who came late: who leads follows from the run id, so from all that a manifest holds."""
    run = dataclasses.replace(run_config, stop_syncs=10)
    storms = (play(dataclasses.replace(STORM, seed=seed, run=run)) for seed in range(1, 10))
    return next(cluster for cluster in storms if set(cluster.killed).isdisjoint(cluster.joined_late))


def states(cluster: Cluster) -> list[Any]:
    return [node.member for node in cluster.live_nodes()]


def test_the_run_goes_on_without_its_leader_and_all_survivors_agree(storm: Cluster) -> None:
    members = states(storm)
    assert len(members) == 3 and {m.state.sync for m in members} == {10}
    assert len({m.hash for m in members}) == 1
    reports: dict[int, set[str]] = {}
    for node in storm.nodes:
        assert node.member is not None
        for report in node.member.history:
            reports.setdefault(report.entry, set()).add(report.state_hash)
    assert all(len(hashes) == 1 for hashes in reports.values())


def test_the_late_joiner_is_counted_from_the_sync_after_its_admission(storm: Cluster) -> None:
    (late,) = storm.joined_late
    entries = entries_of(storm)
    admitted = next(e for e in entries if late in {m.peer for m in e.admitted})
    counted = [e.sync for e in entries if late in {c.sender for c in e.counted}]
    due = next(e.sync for e in entries if e.r > admitted.r and e.sync is not None)
    assert counted and counted[0] == due + (admitted.sync is None)
    left = next((e.r for e in entries if late in e.removed), entries[-1].r + 1)
    assert counted == [e.sync for e in entries if e.sync is not None and e.sync >= counted[0] and admitted.r < e.r < left]


def test_the_killed_leaders_lease_returns_to_the_pool_when_it_leaves_the_view_and_is_trained_by_others(storm: Cluster) -> None:
    (killed,) = storm.killed
    entries = entries_of(storm)
    removal = next(e for e in entries if killed in e.removed)
    returned = {i for start, stop in removal.returned[killed] for i in range(start, stop)}
    assert returned
    last_counted = max(e.r for e in entries if killed in {c.sender for c in e.counted})
    unheard = [e for e in entries if last_counted < e.r <= removal.r and e.sync is not None]
    assert len(unheard) == 3 and all(killed not in e.heard for e in unheard)
    later = {i for e in entries if e.r > removal.r for c in e.counted for start, stop in c.claim for i in range(start, stop)}
    assert returned <= later | ids_at_hand(storm), "ids were lost with the killed peer"
    assert returned & later, "no returned id was trained again"


def test_every_id_was_committed_at_most_once_and_none_is_lost(storm: Cluster) -> None:
    committed = [i for e in entries_of(storm) for c in e.counted for start, stop in c.claim for i in range(start, stop)]
    assert len(committed) == len(set(committed))
    fresh = states(storm)[0].state.fresh_sample
    assert set(committed) | ids_at_hand(storm) == set(range(fresh))
    assert not set(committed) & ids_at_hand(storm)
    assert len(committed) * storm.scenario.run.data.context == states(storm)[0].state.tokens


def test_a_leaver_goes_by_an_entry_and_no_later_one_counts_it(storm: Cluster) -> None:
    gone = [node.identity.peer for node in storm.nodes if node.member is not None and node.member.leaving]
    assert len(gone) == 1
    entries = entries_of(storm)
    removal = next(e for e in entries if gone[0] in e.removed)
    assert gone[0] in removal.heard and all(gone[0] not in {c.sender for c in e.counted} for e in entries if e.r > removal.r)


def entries_of(cluster: Cluster) -> list[Any]:
    """The ledger of a survivor that was there from the start."""
    node = next(node for node in cluster.live_nodes() if node.identity.peer not in cluster.joined_late)
    log = node.ports.store.entries(node.ports.store.oldest_entry(), 10**6)
    return [records.parse_entry(swarm_pb2.CertifiedEntry.FromString(data).entry) for _, data in log]


def ids_at_hand(cluster: Cluster) -> set[int]:
    """Ids leased or in the pool at the end."""
    state = states(cluster)[0].state
    return {i for lease in (*state.leases.values(), state.pool) for start, stop in lease for i in range(start, stop)}
