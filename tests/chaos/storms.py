"""A swarm of real daemons under faults: waiting for what is seen, striking, and what must hold at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from decentra import build
from decentra.config import CodecConfig, DataConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig, check_run
from decentra.sim.faults import Fault, Kind, Standing, Storm
from decentra.sim.kills import Kill
from decentra.sim.lookout import Lookout
from decentra.sim.offline import open_state
from decentra.sim.processes import Play, ProcessSwarm
from decentra.train.step import Replica

LOOK_S = 0.5
SMALL = RunConfig(
    name="chaos",
    start_members=3,
    stop_syncs=14,
    eval_samples=8,
    snapshot_every=4,
    model=ModelConfig(dim=64, num_layers=2, num_heads=2, num_kv_heads=2, tied=True),
    data=DataConfig(vocab_size=512, context=64, max_text_bytes=400_000),
    inner=InnerConfig(lr=3e-3, warmup_tokens=1000, batch_samples=4),
    outer=OuterConfig(inner_steps=5),
    codec=CodecConfig(),
)
KILLS = (Kill("leader", 4), Kill("reducer", 7))
TIME_LIMIT_S = 240.0


def play_of(tmp_path: Path, **changes: Any) -> Play:
    """The play of SMALL with three peers, a late one and two kills; `changes` as they are named in Play."""
    check_run(SMALL, "test")
    (tmp_path / "out").mkdir()
    given = {"run": SMALL, "peers": 3, "link": "", "join_at": 2, "kills": KILLS, "time_limit_s": TIME_LIMIT_S, **changes}
    return Play(out=tmp_path / "out", cache=tmp_path / "cache", **given)


def inner_steps_for(run: RunConfig, peers: int, round_s: float) -> int:
    """H with which `peers` trainers on this machine train `round_s` or longer: what a step costs alone, of all cores' time.

    In processor time, so that what else runs here now does not shorten the rounds of later.
    """
    torch.set_num_threads(1)
    replica = Replica(build.first_model(run), run.inner)
    tokens = torch.randint(run.data.vocab_size, (run.inner.batch_samples, run.data.context + 1))
    start_s, steps = time.process_time(), 0
    while time.process_time() - start_s < 1.0:
        replica.inner_step(tokens[:, :-1], tokens[:, 1:], run.inner.lr)
        steps += 1
    share = min(1.0, (os.cpu_count() or 1) / peers)
    return int(steps * round_s * share)


def lines_of(swarm: ProcessSwarm) -> str:
    """What happened, and the ends of all logs."""
    events = "\n".join(f"{at_s:7.1f} s {line}" for at_s, line in swarm.events)
    return events + "\n".join(f"\n--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(swarm.play.out.glob("*.log")))


async def until(lookout: Lookout, what: str, holds: Callable[[], bool], limit_s: float) -> None:
    """Look until something holds; a fault of any peer, or a minute too many, says what was awaited and how the peers stood."""
    deadline = time.monotonic() + limit_s
    while not holds():
        lookout.look()
        stand = {n: (lookout.seen[n].status["entry"], s.value) if n in lookout.seen else s.value for n, s in lookout.standings().items()}
        assert time.monotonic() < deadline, f"waited {limit_s:.0f} s for {what}; peers: {stand}"
        await asyncio.sleep(LOOK_S)


def strike(lookout: Lookout, fault: Fault) -> None:
    """Do it to the process, and write it down."""
    swarm = lookout.swarm
    daemon = swarm.daemons[fault.node]
    swarm.note(f"{fault.kind.value} {fault.node} at sync {lookout.rounds()}")
    match fault.kind:
        case Kind.KILL:
            daemon.kill()
        case Kind.STOP:
            daemon.stop()
        case Kind.WAKE:
            daemon.wake()
        case Kind.RESTART:
            swarm.restart(daemon)


def all_up(lookout: Lookout) -> bool:
    return all(standing is Standing.UP for standing in lookout.standings().values())


async def blow(lookout: Lookout, storm: Storm, duration_s: float, limit_s: float) -> None:
    """A storm of this length, and then the calm: sleepers wake, the dead come back, until all are up again."""
    start = time.monotonic()
    while time.monotonic() < start + duration_s:
        lookout.look()
        for fault in storm.due(time.monotonic() - start, lookout.standings(), len(lookout.newest()["view"])):
            strike(lookout, fault)
        await asyncio.sleep(LOOK_S)
    for fault in storm.calm(lookout.standings()):
        strike(lookout, fault)
    await until(lookout, "all peers to be up again", lambda: all_up(lookout), limit_s)


def all_level(lookout: Lookout) -> bool:
    """Whether all peers are up and tell one hash of an entry that is among the last three."""
    return all_up(lookout) and lookout.agreed()[0] >= lookout.newest()["entry"] - 2


def opens_to(state: Path) -> tuple[int, str, int]:
    """(r, h_r, incarnation) of a state directory whose node does not run. Raises StateError where it does not open."""
    opened = open_state(state)
    try:
        reached = opened.restore()
        return reached.state.r, reached.state_hash.hex(), opened.store.incarnation
    finally:
        opened.store.files.close()  # type: ignore[attr-defined]


def assert_committed(chain: Mapping[int, set[str]], r: int, state_hash: str) -> None:
    assert chain[r] == {state_hash}, f"h_{r} is {state_hash[:12]} on disk, the swarm told {sorted(h[:12] for h in chain[r])}"


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes whose temporary folder lies in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def assert_nothing_is_left(swarm: ProcessSwarm, temporary: Path) -> None:
    """No process, no socket, no temporary folder."""
    assert processes_of(temporary) == []
    assert swarm.left_behind == []
    assert list(temporary.iterdir()) == []
