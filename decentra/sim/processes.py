"""Real daemons on this machine, joined through a real bootstrap node: what `decentra demo` shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decentra.config import RunConfig, to_dict
from decentra.errors import SetupError
from decentra.node.status import Watcher
from decentra.node.wiring import Door, Wiring
from decentra.sim.daemons import Daemon, last_line
from decentra.sim.kills import Kill, victim

Show = Callable[[Sequence[dict[str, Any]], float, str], None]

START_FLOOR_S = 120.0
START_RATIO = 60
"""The founder may take as many times as long as the bootstrap node took: on a slow machine both are slow."""
POLL_S = 1.0
POLL_TO_KILL_S = 0.05
"""A round is in its middle for a second or so."""
CLOSE_S = 15.0
"""Daemons told to end are gone in 5 s, unless the machine is very busy."""
TRAINERS_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Play:
    """What happens: a late peer joins once `join_at` outer steps are committed (-1: never), and peers are killed."""

    run: RunConfig
    peers: int
    link: str
    out: Path
    cache: Path
    join_at: int
    kills: tuple[Kill, ...]
    time_limit_s: float


@dataclass(slots=True)
class ProcessSwarm:
    """Bootstrap node, daemons and the onlooker. Use as an async context: what it started, it ends."""

    play: Play
    wiring: Wiring
    show: Show
    began_s: float = field(default_factory=time.monotonic)
    bootstrap: subprocess.Popen[bytes] | None = None
    daemons: list[Daemon] = field(default_factory=list)
    join_string: str = ""
    dht: str = ""
    last_seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    joined_late: list[str] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    _start_limit_s: float = START_FLOOR_S
    _folder: str = ""

    async def __aenter__(self) -> ProcessSwarm:
        # Nodes keep sockets in the temporary folder: one of our own shows what they leave there. Its name is short: the path
        # of a Unix socket has 104 bytes.
        self._folder = tempfile.mkdtemp(prefix="dc-")
        return self

    @property
    def killed(self) -> list[str]:
        """Peers that were killed in mid-round."""
        return [kill["peer"] for kill in self.kills]

    async def __aexit__(self, *_: object) -> None:
        processes = [d.process for d in self.daemons] + ([self.bootstrap] if self.bootstrap else [])
        for daemon in self.daemons:
            if daemon.asleep and daemon.running():
                daemon.wake()
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        await self._until(lambda: all(process.poll() is not None for process in processes), CLOSE_S)
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        # Trainers of killed daemons end by themselves and take their daemons' sockets along.
        await self._until(lambda: not any(Path(self._folder).iterdir()), TRAINERS_END_S)
        self.left_behind = sorted(str(path.relative_to(self._folder)) for path in Path(self._folder).rglob("*"))
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    def elapsed_s(self) -> float:
        """Seconds since the swarm began."""
        return time.monotonic() - self.began_s

    def note(self, line: str) -> None:
        """Something worth a line in the report."""
        self.events.append((self.elapsed_s(), line))

    # -- starting ---------------------------------------------------------------------------------------------------

    def _spawn(self, arguments: list[str], log: Path, stdout: int | None = None) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "decentra.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else errors,
                stderr=errors,
                env={**os.environ, "TMPDIR": self._folder},
                start_new_session=True,
            )

    async def begin(self) -> None:
        """Bootstrap node, founder, and the first peers. Raises SetupError with the log to read."""
        out = self.play.out
        (out / "run.toml").write_text(run_toml(self.play.run))
        self.dht = await self._dht_address()
        entry = ["--bootstrap", self.dht] if self.dht else []
        founder = self.start_daemon(["--run", str(out / "run.toml"), "--cache", str(self.play.cache), *entry])
        self.join_string = await self._join_string(founder)
        for _ in range(self.play.peers - 1):
            self.start_daemon(["--join", self.join_string])

    async def _dht_address(self) -> str:
        """Start the bootstrap node; "" where this machine has no DHT: the peers then use the static directory."""
        log = self.play.out / "bootstrap.log"
        self.bootstrap = self._spawn(["bootstrap"], log, subprocess.PIPE)
        assert self.bootstrap.stdout is not None
        pipe = self.bootstrap.stdout
        os.set_blocking(pipe.fileno(), False)
        said = b""
        start_s = time.monotonic()
        while not said.endswith(b"\n") and self.bootstrap.poll() is None and time.monotonic() < start_s + START_FLOOR_S:
            self.show([], self.elapsed_s(), "the bootstrap node starts")
            await asyncio.sleep(0.1)
            said += pipe.read() or b""
        if not said.endswith(b"\n"):
            self.note(f"no DHT on this machine ({last_line(log)}): the peers use the static directory")
        self._start_limit_s = max(START_FLOOR_S, START_RATIO * (time.monotonic() - start_s))
        return said.decode().strip()

    def start_daemon(self, arguments: list[str]) -> Daemon:
        """One more node."""
        number = len(self.daemons)
        state, log = self.play.out / f"peer-{number}", self.play.out / f"peer-{number}.log"
        daemon = Daemon(number, state, log, self._spawn_node(arguments, state, log))
        self.daemons.append(daemon)
        return daemon

    def restart(self, daemon: Daemon) -> None:
        """The next life of a node that has ended, from nothing but its state directory, at a new address."""
        daemon.killed = False
        daemon.process = self._spawn_node([], daemon.state, daemon.log)

    def _spawn_node(self, arguments: list[str], state: Path, log: Path) -> subprocess.Popen[bytes]:
        link = ["--link", self.play.link] if self.play.link else []
        return self._spawn(["node", *arguments, "--state", str(state), *link], log)

    async def _join_string(self, founder: Daemon) -> str:
        deadline = time.monotonic() + self._start_limit_s
        while not (founder.state / "join.txt").exists():
            if not founder.running() or time.monotonic() > deadline:
                raise SetupError(f"the founder did not start; its log is {founder.log}: {last_line(founder.log)}")
            self.show([], self.elapsed_s(), "the founder prepares text, tokenizer and first weights")
            await asyncio.sleep(0.2)
        return (founder.state / "join.txt").read_text()

    # -- playing ----------------------------------------------------------------------------------------------------

    async def watch(self, door: Door) -> None:
        """Show the swarm until the run ends; the late peer joins and some are killed on the way."""
        target, look_again_s = self.play.run.stop_syncs, 0.0
        async with Watcher(door, self.wiring) as watcher:
            while any(daemon.running() for daemon in self.daemons):
                if self.elapsed_s() > self.play.time_limit_s:
                    raise SetupError(f"the swarm did not finish in {self.play.time_limit_s:.0f} s; the logs are in {self.play.out}")
                if self.elapsed_s() >= look_again_s:
                    look_again_s = self.elapsed_s() + POLL_S
                    with contextlib.suppress(SetupError):
                        await watcher.peers()
                statuses = await watcher.statuses()
                self._take_in(statuses)
                self.show(statuses, self.elapsed_s(), "")
                self.raise_early_ends()
                sync = max((s["sync"] for s in statuses), default=0)
                if self.play.join_at >= 0 and sync >= self.play.join_at and len(self.daemons) == self.play.peers:
                    self.start_daemon(["--join", self.join_string])
                    self.note(f"a late peer joins at outer step {sync}")
                due = [kill for kill in self.play.kills[len(self.kills) :][:1] if kill.at_sync <= sync < (target or sync + 1)]
                if due:
                    self._kill(due[0].role, statuses)
                await asyncio.sleep(POLL_TO_KILL_S if due else POLL_S)

    def _take_in(self, statuses: Sequence[dict[str, Any]]) -> None:
        known = {sync: loss for seen in self.last_seen.values() for sync, loss in seen["heldout_loss"].items()}
        for status in statuses:
            self.last_seen[status["peer"]] = dict(status)
            status["heldout_loss"] = {**known, **status["heldout_loss"]}  # who measured it may be gone

    def raise_early_ends(self) -> None:
        """A daemon that failed is not waited for: the others would wait for it until the time is up. Raises SetupError."""
        for daemon in self.daemons:
            if daemon.process.poll() not in (None, 0) and not daemon.killed:
                said = f"{daemon.log}: {last_line(daemon.log)}"
                raise SetupError(f"peer {daemon.number} ended with code {daemon.process.returncode}; its log is {said}")

    def _kill(self, role: str, statuses: Sequence[dict[str, Any]]) -> None:
        """SIGKILL whoever has this role in a round that is between its offers and its commit; a late peer is spared."""
        late = self.daemons[-1].peer() if len(self.daemons) > self.play.peers else ""
        if late and not any(s["peer"] == late and s["in_view"] for s in statuses):
            return
        chosen = victim(role, statuses, (late,))
        for daemon in self.daemons:
            if chosen is not None and daemon.running() and daemon.peer() == chosen["peer"]:
                daemon.kill()
                self.kills.append({"role": role, **{key: chosen[key] for key in ("peer", "entry", "sync", "phase", "attempt")}})
                self.note(f"peer {chosen['peer'][:8]}, {role} of sync {chosen['sync']} in phase {chosen['phase']}, is killed")

    def ended_well(self) -> list[Daemon]:
        """Daemons that reached the end of the run."""
        return [d for d in self.daemons if d.process.poll() == 0 and (d.state / "status.json").exists()]

    def final_statuses(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(last status of every peer that reached the end, last seen of those that did not)."""
        ended = [json.loads((daemon.state / "status.json").read_text()) for daemon in self.ended_well()]
        names = {status["peer"] for status in ended}
        if len(self.daemons) > self.play.peers:
            self.joined_late = [self.daemons[-1].peer()]
        return ended, [status for peer, status in self.last_seen.items() if peer not in names]


def run_toml(run: RunConfig) -> str:
    """A config file with this `[run]`."""
    lines: list[str] = []

    def table(name: str, values: dict[str, Any]) -> None:
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict))
        for key, value in values.items():
            if isinstance(value, dict):
                lines.append("")
                table(f"{name}.{key}", value)

    table("run", to_dict(run))
    return "\n".join(lines) + "\n"
