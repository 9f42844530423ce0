"""Real daemons in network namespaces, some of which cannot be dialled: their work counts, they own nothing, hashes are equal.

Two ways to be undiallable. No route: the node listens at an address of its machine that nobody else has a route to, and
dials out from another. Lost SYNs: it listens at its one address, where an XDP program drops every packet that asks for a
new TCP connection, as a NAT does; where a kernel takes no such program, the first way stands in.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from netns import World

from decentra import build
from decentra.config import DataConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig
from decentra.sim.processes import run_toml

SMALL = RunConfig(
    name="nat",
    start_members=3,
    stop_syncs=3,
    eval_samples=8,
    snapshot_every=4,
    model=ModelConfig(dim=64, num_layers=2, num_heads=2, num_kv_heads=2, tied=True),
    data=DataConfig(vocab_size=512, context=64, max_text_bytes=400_000),
    inner=InnerConfig(lr=3e-3, warmup_tokens=1000, batch_samples=4),
    outer=OuterConfig(inner_steps=5),
)
BOOTSTRAP, FOUNDER = 1, 2


class Daemons:
    """Node daemons on the machines of a world, by machine. Use as a context: what it started, it ends."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, machine: int, *words: str) -> None:
        with self.log(machine).open("ab") as log:
            self.processes[machine] = subprocess.Popen(
                self.world.command(machine, sys.executable, "-m", "decentra.cli.main", *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def node(self, machine: int, *words: str, listen: str = "") -> None:
        where = listen or self.world.address(machine)
        self.start(machine, "node", *words, "--state", str(self.state(machine)), "--listen", where, "--port", "7701")

    def begin(self, run: RunConfig) -> str:
        """Bootstrap node and founder; the founder's join string."""
        (self.folder / "run.toml").write_text(run_toml(run))
        self.start(BOOTSTRAP, "bootstrap", "--listen", self.world.address(BOOTSTRAP), "--port", "7700")
        self.until(lambda: self.said(BOOTSTRAP).endswith("\n"), "a DHT address")
        words = ("--run", str(self.folder / "run.toml"), "--bootstrap", self.said(BOOTSTRAP).split()[-1])
        self.node(FOUNDER, *words, "--cache", str(self.folder / "cache"))
        return self.join_string(FOUNDER)

    def join_string(self, machine: int) -> str:
        path = self.state(machine) / "join.txt"
        self.until(path.exists, f"the join string of machine {machine}")
        return path.read_text()

    def state(self, machine: int) -> Path:
        return self.folder / f"state-{machine}"

    def peer(self, machine: int) -> str:
        return (self.state(machine) / "peer.txt").read_text()

    def log(self, machine: int) -> Path:
        return self.folder / f"{machine}.log"

    def said(self, machine: int) -> str:
        return self.log(machine).read_text()

    def until(self, holds: Callable[[], Any], what: str, limit_s: float = 120.0) -> None:
        deadline = time.monotonic() + limit_s
        while not holds():
            early = [m for m, process in self.processes.items() if process.poll() not in (None, 0, -signal.SIGKILL)]
            assert not early and time.monotonic() < deadline, f"{what}: {early}\n{self.tails()}"
            time.sleep(0.1)

    def tails(self) -> str:
        return "\n".join(f"--- machine {m}\n{self.said(m)[-2500:]}" for m in self.processes)

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Status of every node at the end of the run, by machine."""
        nodes = [m for m in self.processes if m != BOOTSTRAP]
        self.until(lambda: all(self.processes[m].poll() == 0 for m in nodes), "the end of the run", 240.0)
        return {m: json.loads((self.state(m) / "status.json").read_text()) for m in nodes}


@pytest.fixture()
def daemons(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemons]:
    with World(request.param) as world, Daemons(world, tmp_path) as found:
        yield found


def assert_agreed(daemons: Daemons, statuses: dict[int, dict[str, Any]], hidden: set[int]) -> None:
    """One hash an entry; the hidden are members that are known not to be dialable, and own nothing at the end."""
    hashes: dict[int, set[str]] = {}
    for status in statuses.values():
        for entry in status["rounds"]:
            hashes.setdefault(entry["entry"], set()).add(entry["state_hash"])
    assert hashes and all(len(found) == 1 for found in hashes.values())
    assert len({(s["entry"], s["state_hash"]) for s in statuses.values()}) == 1
    peers = {daemons.peer(m) for m in hidden}
    for status in statuses.values():
        assert peers <= set(status["view"]) and set(status["dialable"]) == set(status["view"]) - peers, daemons.tails()
    assert all(statuses[m]["owns"] == [] for m in hidden)
    assert any(status["owns"] for status in statuses.values())


def counted(status: dict[str, Any]) -> dict[int, int]:
    """Contributions counted, by sync."""
    return {r["sync"]: r["averaged"] for r in status["rounds"] if r["sync"] is not None}


@pytest.mark.parametrize("daemons", [4], indirect=True)
def test_a_node_that_nobody_has_a_route_to_takes_full_part(daemons: Daemons) -> None:
    string = daemons.begin(dataclasses.replace(SMALL, outer=OuterConfig(inner_steps=40)))  # slots long beside a moment's delay
    daemons.node(3, "--join", string)
    daemons.node(4, "--join", string, listen=daemons.world.inner_address(4))
    statuses = daemons.statuses()
    assert_agreed(daemons, statuses, {4})
    assert [status["sync"] for status in statuses.values()] == [3, 3, 3]
    left_out = [report["left_out"] for report in statuses[FOUNDER]["rounds"] if report["left_out"]]
    assert set(counted(statuses[FOUNDER]).values()) == {3}, f"every sync counts the one that cannot be dialled, but {left_out}"
    assert "others cannot dial this node" in daemons.said(4) and "10.80.0.4:7701" in daemons.said(4)
    assert "cannot dial this node" not in daemons.said(3)


@pytest.mark.soak
@pytest.mark.parametrize("daemons", [6], indirect=True)
def test_nodes_behind_a_nat_train_restart_and_let_others_in(daemons: Daemons) -> None:
    world = daemons.world
    run = dataclasses.replace(SMALL, start_members=5, stop_syncs=30, outer=OuterConfig(inner_steps=20))
    string = daemons.begin(run)
    listen = world.address(4) if world.drop_syns(4) else world.inner_address(4)
    for machine in (3, 5):
        daemons.node(machine, "--join", string)
    daemons.node(4, "--join", string, listen=listen)
    daemons.node(6, "--join", string, "--reachable", "no")
    daemons.until(lambda: "others cannot dial this node" in daemons.said(4), "that it is told")
    assert not world.can_dial(3, listen, 7701) and world.can_dial(4, world.address(3), 7701)
    assert not world.can_dial(3, world.address(6), 7701), "reachable no listens to nobody"

    door = build.decode_door(daemons.join_string(4))
    peers = {daemons.peer(m) for m in (4, 6)}
    assert door.entrances and not peers & {peer for _, peer in door.entrances}
    assert all(address.startswith(f"/ip4/{world.address(BOOTSTRAP)}/") for address in door.dht if "10.79.0.1/" in address) and door.dht

    started = daemons.state(4) / "offer.json"
    daemons.until(started.exists, "its first contribution")
    daemons.processes[4].kill()
    daemons.processes[4].wait()
    daemons.node(4, listen=listen)
    statuses = daemons.statuses()
    assert_agreed(daemons, statuses, {4, 6})
    by_sync = counted(statuses[FOUNDER])
    assert sorted(by_sync) == list(range(30))
    assert by_sync[29] == 5 and sum(number == 5 for number in by_sync.values()) >= 15, by_sync
