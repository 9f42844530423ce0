"""A scenario file: what a simulated swarm looks like and what happens to it. TOML, strict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from decentra.config import RunConfig, check_run, from_dict, parse_link, read_toml
from decentra.errors import ConfigError

FAULTS = ("join", "kill", "leave")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens once `at_sync` outer steps are committed. join: a new peer; kill, leave: a peer by its number,
    or -1 for the leader of the running attempt."""

    at_sync: int
    kind: str
    peer: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """link: RATE,DELAY of every node. step_s: virtual seconds of an inner step. work_s: of each encode, apply or write.

    speeds: how fast each peer is, by its number: its inner steps take step_s / speed; 1 for those that are not named.
    threads: CPU threads of the real training; one is fastest for toy models, and its bits are the same on a busy machine.
    """

    name: str
    seed: int = 0
    peers: int = 4
    link: str = "100mbit,50ms"
    step_s: float = 0.2
    work_s: float = 0.002
    time_limit_s: float = 36000.0
    speeds: tuple[float, ...] = ()
    threads: int = 1
    run: RunConfig = field(default_factory=RunConfig)
    faults: tuple[Fault, ...] = ()

    def step_s_of(self, peer: int) -> float:
        """Virtual seconds of an inner step of a peer, by its number."""
        return self.step_s / (self.speeds[peer] if peer < len(self.speeds) else 1.0)


def load(path: Path) -> Scenario:
    """Read a scenario. Raises ConfigError naming file, key and remedy."""
    raw = read_toml(path, "scenario")
    if "name" not in raw:
        raise ConfigError(f"{path}: key name is missing; add name = \"...\"")
    scenario: Scenario = from_dict(Scenario, raw, str(path), "")
    check(scenario, str(path))
    return scenario


def check(scenario: Scenario, place: str) -> None:
    """Refuse what cannot run. Raises ConfigError."""
    check_run(scenario.run, place)
    parse_link(scenario.link)
    if scenario.peers < 1 or scenario.step_s <= 0 or scenario.work_s < 0:
        raise ConfigError(f"{place}: peers = {scenario.peers} and step_s = {scenario.step_s} must be positive")
    if not all(0.0 < speed < math.inf for speed in scenario.speeds):
        raise ConfigError(f"{place}: speeds = {list(scenario.speeds)} must be positive numbers; 1 is a peer whose step takes step_s")
    if not scenario.run.stop_syncs:
        raise ConfigError(f"{place}: run.stop_syncs = 0 would never end; give the outer steps to simulate")
    for fault in scenario.faults:
        if fault.kind not in FAULTS:
            raise ConfigError(f"{place}: fault kind {fault.kind!r} is not known; use {', '.join(FAULTS)}")
        last = scenario.peers + sum(other.kind == "join" and other.at_sync < fault.at_sync for other in scenario.faults) - 1
        if not -1 <= fault.peer <= last:
            raise ConfigError(f"{place}: fault {fault.kind} at sync {fault.at_sync} names peer {fault.peer}; there are 0 to {last}, or -1")
