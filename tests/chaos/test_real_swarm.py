"""Real daemons of this machine, joined through a real DHT: one joins late, two are killed, the others end with equal hashes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decentra import build
from decentra.cli import interrupt
from decentra.config import ModelConfig, OuterConfig
from decentra.errors import SetupError
from decentra.sim.kills import MID_ROUND
from decentra.sim.processes import ProcessSwarm

sys.path.insert(0, str(Path(__file__).parent))
from storms import SMALL, assert_nothing_is_left, lines_of, play_of

SLOW = "12mbit,60ms"
"""A round is in its middle for some round trips: long enough to be seen there."""
OF_BLOCKS = dataclasses.replace(
    SMALL,
    model=ModelConfig(dim=128, num_layers=4, num_heads=4, num_kv_heads=4, tied=True),
    outer=OuterConfig(inner_steps=60),
)
"""Four blocks, so that there are owners beside the leader; slots in which the link is free for who comes late."""


async def to_the_end(swarm: ProcessSwarm) -> None:
    async with swarm:
        await swarm.begin()
        await swarm.watch(build.decode_door(swarm.join_string))


def test_a_leader_and_then_a_reducer_killed_in_mid_round_leave_the_others_with_equal_hashes(tmp_path: Path, temporary: Path) -> None:
    swarm = ProcessSwarm(play_of(tmp_path, run=OF_BLOCKS, link=SLOW), build.wiring(), lambda *_: None)
    try:
        asyncio.run(to_the_end(swarm))
    except SetupError as error:
        raise AssertionError(f"{error}\n{lines_of(swarm)}") from error
    assert swarm.dht.startswith("/ip4/127.0.0.1/tcp/")
    assert len(swarm.daemons) == 4 and [kill["role"] for kill in swarm.kills] == ["leader", "reducer"]
    assert {kill["phase"] for kill in swarm.kills} <= set(MID_ROUND)
    statuses = {}
    for daemon in swarm.daemons:
        peer = (daemon.state / "peer.txt").read_text()
        if peer in swarm.killed:
            assert daemon.process.returncode == -signal.SIGKILL and daemon.number < 3
            continue
        assert daemon.process.returncode == 0, lines_of(swarm)
        statuses[daemon.number] = json.loads((daemon.state / "status.json").read_text())
    assert len(statuses) == 2 and 3 in statuses
    hashes: dict[int, set[str]] = {}
    for status in statuses.values():
        assert status["sync"] == SMALL.stop_syncs and status["done"]
        for entry in status["rounds"]:
            hashes.setdefault(entry["entry"], set()).add(entry["state_hash"])
    assert all(len(found) == 1 for found in hashes.values())
    assert len({(status["entry"], status["state_hash"]) for status in statuses.values()}) == 1
    averaged = {r["sync"]: r["averaged"] for r in statuses[3]["rounds"] if r["sync"] is not None}
    assert max(averaged.values()) >= 3, "the late peer never took part"
    assert all(kill["sync"] in averaged for kill in swarm.kills), "a round was not ended without the killed"
    assert swarm.killed[0] not in statuses[3]["view"]
    assert swarm.bootstrap is not None and swarm.bootstrap.returncode == 0
    assert_nothing_is_left(swarm, temporary)


def test_ctrl_c_in_mid_play_ends_all_children_within_10_s(tmp_path: Path, temporary: Path) -> None:
    endless = dataclasses.replace(SMALL, stop_syncs=0, start_members=2)
    swarm = ProcessSwarm(play_of(tmp_path, run=endless, peers=2, join_at=-1, kills=()), build.wiring(), lambda *_: None)
    pressed: list[float] = []

    def press(statuses: Any, elapsed_s: float, line: str) -> None:
        if statuses and max(s["sync"] for s in statuses) >= 2 and not pressed:
            pressed.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    swarm.show = press
    with pytest.raises(KeyboardInterrupt):
        interrupt.run(to_the_end(swarm))
    assert time.monotonic() - pressed[0] < 10.0
    assert [daemon.process.returncode for daemon in swarm.daemons] == [0, 0], lines_of(swarm)
    assert_nothing_is_left(swarm, temporary)


def fails(swarm: ProcessSwarm) -> str:
    start = time.monotonic()
    with pytest.raises(SetupError) as caught:
        asyncio.run(to_the_end(swarm))
    assert time.monotonic() - start < 60.0
    return str(caught.value)


def test_a_founder_that_does_not_start_is_said_with_its_log(tmp_path: Path, temporary: Path) -> None:
    play = play_of(tmp_path)
    (tmp_path / "cache").write_text("in the way")
    swarm = ProcessSwarm(play, build.wiring(), lambda *_: None)
    said = fails(swarm)
    assert "the founder did not start" in said and "peer-0.log" in said and "cache" in said
    assert_nothing_is_left(swarm, temporary)


def test_a_peer_that_dies_early_ends_the_play_by_name(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = ProcessSwarm(play_of(tmp_path, peers=2), build.wiring(), lambda *_: None)
    honest: Callable[..., Any] = swarm.start_daemon

    def start(arguments: list[str]) -> Any:
        return honest(arguments if "--run" in arguments else ["--join", "decentra1spoilt"])

    monkeypatch.setattr(ProcessSwarm, "start_daemon", lambda self, arguments: start(arguments))
    said = fails(swarm)
    assert "peer 1 ended with code 2" in said and "join string" in said
    assert_nothing_is_left(swarm, temporary)


def test_without_p2pd_the_nodes_find_each_other_by_the_entrances_of_the_join_string(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken" / "hivemind").mkdir(parents=True)
    (tmp_path / "broken" / "hivemind" / "__init__.py").write_text("raise ImportError('no p2pd for this platform')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    run = dataclasses.replace(SMALL, start_members=2, stop_syncs=3)
    swarm = ProcessSwarm(play_of(tmp_path, run=run, peers=2, join_at=-1, kills=()), build.wiring(), lambda *_: None)
    asyncio.run(to_the_end(swarm))
    assert swarm.dht == "" and "no p2pd for this platform" in swarm.events[0][1]
    assert [daemon.process.returncode for daemon in swarm.daemons] == [0, 0], lines_of(swarm)
    for daemon in swarm.daemons:
        log = (tmp_path / "out" / f"peer-{daemon.number}.log").read_text()
        assert "no DHT here: " in log and "no p2pd for this platform" in log and "endpoints of the join string" in log
        status = json.loads((daemon.state / "status.json").read_text())
        assert status["sync"] == 3 and [r["averaged"] for r in status["rounds"] if r["sync"] is not None] == [2, 2, 2]
    assert_nothing_is_left(swarm, temporary)
