"""Real daemons under faults: killed, stopped and started again, they come back as the members they were, and rounds go on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from decentra import build
from decentra.config import OuterConfig, RunConfig
from decentra.errors import SetupError
from decentra.sim.faults import Fault, Kind, Storm
from decentra.sim.lookout import Lookout, Seen, Window, longest_gap_s, rate, window
from decentra.sim.processes import ProcessSwarm

sys.path.insert(0, str(Path(__file__).parent))
from storms import (
    LOOK_S,
    SMALL,
    all_level,
    all_up,
    assert_committed,
    assert_nothing_is_left,
    blow,
    inner_steps_for,
    lines_of,
    opens_to,
    play_of,
    strike,
    until,
)

FOUR = dataclasses.replace(SMALL, start_members=4, stop_syncs=0, snapshot_every=16, outer=OuterConfig(inner_steps=20))
LIMIT_S = 120.0
"""For any one thing that is awaited."""


def take_in_the_end(lookout: Lookout) -> None:
    """What every daemon wrote down as it went: entries that were agreed while the others left."""
    for daemon in lookout.swarm.daemons:
        lookout.take_in(daemon.number, Seen(time.monotonic(), 0, json.loads((daemon.state / "status.json").read_text())))


def assert_all_is_well(lookout: Lookout, temporary: Path) -> None:
    """After the end: every node ended in order, no fork, every disk opens to what was committed, and nothing is left."""
    swarm = lookout.swarm
    assert [daemon.process.returncode for daemon in swarm.daemons] == [0] * len(swarm.daemons), lines_of(swarm)
    take_in_the_end(lookout)
    assert lookout.forks() == {}
    for daemon in swarm.daemons:
        r, state_hash, _ = opens_to(daemon.state)
        assert_committed(lookout.chain, r, state_hash)
    assert lookout.losses[max(lookout.losses)] < lookout.losses[min(lookout.losses)] - 0.2
    assert_nothing_is_left(swarm, temporary)


async def two_rounds(lookout: Lookout, what: str) -> None:
    start_s = time.monotonic()
    await until(lookout, f"two rounds after {what}", lambda: sum(at_s > start_s for at_s in lookout.commits.values()) >= 2, LIMIT_S)


async def kill_stop_restart_join(swarm: ProcessSwarm, lookout: Lookout) -> None:
    await until(lookout, "the first rounds of all four", lambda: bool(lookout.seen) and all_up(lookout) and lookout.rounds() >= 2, LIMIT_S)
    strike(lookout, Fault(Kind.KILL, 1))
    await two_rounds(lookout, "the kill")
    strike(lookout, Fault(Kind.RESTART, 1))
    await until(lookout, "the killed one to be back", lambda: all_up(lookout), LIMIT_S)
    strike(lookout, Fault(Kind.STOP, 2))
    await two_rounds(lookout, "the stop")
    slept_at = lookout.newest()["entry"]
    strike(lookout, Fault(Kind.WAKE, 2))
    swarm.start_daemon(["--join", swarm.join_string])
    await until(lookout, "the sleeper and the late joiner", lambda: all_up(lookout), LIMIT_S)
    assert lookout.seen[2].status["entry"] >= slept_at
    await until(lookout, "a round that counts all five", lambda: any(r["averaged"] == 5 for r in lookout.newest()["rounds"]), LIMIT_S)
    await until(lookout, "all five at one entry", lambda: all_level(lookout), LIMIT_S)


@pytest.mark.timeout(600)
def test_four_daemons_killed_stopped_restarted_and_joined_by_a_fifth_go_on(tmp_path: Path, temporary: Path) -> None:
    swarm = ProcessSwarm(play_of(tmp_path, run=FOUR, peers=4, join_at=-1, kills=()), build.wiring(), lambda *_: None)

    async def main() -> Lookout:
        async with swarm:
            await swarm.begin()
            async with Lookout(swarm, build.wiring()) as lookout:
                await kill_stop_restart_join(swarm, lookout)
        return lookout

    try:
        lookout = asyncio.run(main())
    except (AssertionError, SetupError) as error:
        raise AssertionError(f"{error}\n{lines_of(swarm)}") from error
    assert swarm.dht.startswith("/ip4/127.0.0.1/tcp/")
    assert "fetching the snapshot" not in (swarm.daemons[2].log.read_text().split("join string")[1]), "the sleeper took a snapshot"
    assert_all_is_well(lookout, temporary)


# -- soak ---------------------------------------------------------------------------------------------------------------

KILLS = 20
SEED = 4


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_twenty_kills_at_random_instants_leave_a_state_that_opens_to_what_was_committed(tmp_path: Path, temporary: Path) -> None:
    run = dataclasses.replace(SMALL, stop_syncs=0)
    swarm = ProcessSwarm(play_of(tmp_path, run=run, join_at=-1, kills=()), build.wiring(), lambda *_: None)

    async def main() -> Lookout:
        async with swarm:
            await swarm.begin()
            async with Lookout(swarm, build.wiring()) as lookout:
                await until(lookout, "the first rounds", lambda: bool(lookout.seen) and all_up(lookout) and lookout.rounds() >= 2, LIMIT_S)
                rng = random.Random(SEED)
                for _ in range(KILLS):
                    await asyncio.sleep(rng.uniform(0.0, 3.0))
                    await kill_and_come_back(lookout, rng.randrange(3))
                await until(lookout, "all three at one entry", lambda: all_level(lookout), LIMIT_S)
        return lookout

    try:
        lookout = asyncio.run(main())
    except (AssertionError, SetupError) as error:
        raise AssertionError(f"{error}\n{lines_of(swarm)}") from error
    assert_all_is_well(lookout, temporary)


async def kill_and_come_back(lookout: Lookout, number: int) -> None:
    """The state directory of the killed opens to a committed hash, and the node comes back from it as the member it was."""
    daemon, peer = lookout.swarm.daemons[number], lookout.swarm.daemons[number].peer()
    strike(lookout, Fault(Kind.KILL, number))
    r, state_hash, incarnation = await asyncio.to_thread(opens_to, daemon.state)
    await until(lookout, f"entry {r} at the others", lambda: r in lookout.chain, LIMIT_S)
    assert_committed(lookout.chain, r, state_hash)
    strike(lookout, Fault(Kind.RESTART, number))
    await until(lookout, f"{number} to be back", lambda: all_up(lookout), LIMIT_S)
    assert daemon.peer() == peer and lookout.seen[number].status["incarnation"] == incarnation


EIGHT = dataclasses.replace(FOUR, start_members=8)
ROUND_S = 12.0
BLOCKS, BLOCK_S = 2, 300.0
CALM_S = 240.0
"""For the swarm to be whole after a storm."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_eight_daemons_in_a_storm_commit_at_least_85_percent_of_the_rounds_of_a_calm(tmp_path: Path, temporary: Path) -> None:
    """Ten minutes of storm in two blocks, each after as long a calm of the same swarm on the same machine.

    Blocks alternate in one run, so that a machine that gets slower, or a model that gets dearer, weighs on both sides alike, and both
    have the same processes, data and caches. A window begins and ends with a commit; that of a storm lasts until all peers are
    up again, so that what a fault costs after the storm is the storm's.
    """
    shared_memory = sorted(Path("/dev/shm").glob("*"))
    run = dataclasses.replace(EIGHT, outer=OuterConfig(inner_steps=inner_steps_for(EIGHT, 8, ROUND_S)))
    calm, storm, lookout = play_blocks(tmp_path, run, 8, BLOCKS, BLOCK_S)
    assert_all_is_well(lookout, temporary)
    assert sorted(Path("/dev/shm").glob("*")) == shared_memory
    assert min(w.seconds / w.rounds for w in calm) >= 10.0, f"rounds are too short to measure: {calm}; raise ROUND_S"
    assert rate(storm) >= 0.85 * rate(calm), f"storm {storm}, calm {calm}\n{lines_of(lookout.swarm)}"


def play_blocks(tmp_path: Path, run: RunConfig, peers: int, blocks: int, block_s: float) -> tuple[list[Window], list[Window], Lookout]:
    """(windows of calm, windows of storm, what was seen) of a swarm that sees both by turns."""
    swarm = ProcessSwarm(play_of(tmp_path, run=run, peers=peers, join_at=-1, kills=()), build.wiring(), lambda *_: None)
    calm, storm = [], []

    async def main() -> Lookout:
        async with swarm:
            await swarm.begin()
            async with Lookout(swarm, build.wiring()) as lookout:
                await until(lookout, "the first round", lambda: bool(lookout.seen) and all_up(lookout) and lookout.rounds() >= 1, CALM_S)
                for block in range(blocks):
                    calm.append(await timed(lookout, quiet(lookout, block_s)))
                    storm.append(await timed(lookout, blow(lookout, Storm(SEED + block), block_s, CALM_S)))
                    print(f"\nblock {block}: calm {calm[-1]}, storm {storm[-1]}, {swarm.elapsed_s():.0f} s", flush=True)
                await until(lookout, "all at one entry", lambda: all_level(lookout), CALM_S)
        return lookout

    try:
        lookout = asyncio.run(main())
    except (AssertionError, SetupError) as error:
        raise AssertionError(f"{error}\n{lines_of(swarm)}") from error
    finally:
        print("\n".join(f"{at_s:7.1f} s {line}" for at_s, line in swarm.events))
    longest = longest_gap_s(list(lookout.commits.values()))
    print(f"storm / calm = {rate(storm) / rate(calm):.3f}, calm {60 * rate(calm):.2f} rounds a minute, longest round {longest:.0f} s")
    return calm, storm, lookout


async def quiet(lookout: Lookout, duration_s: float) -> None:
    start = time.monotonic()
    while time.monotonic() < start + duration_s:
        lookout.look()
        await asyncio.sleep(LOOK_S)


async def timed(lookout: Lookout, play: Awaitable[None]) -> Window:
    """The window of the commits while something is played."""
    start = time.monotonic()
    await play
    stop = time.monotonic()
    await until(lookout, "the commit that ends the window", lambda: max(lookout.commits.values()) >= stop, LIMIT_S)
    return window(list(lookout.commits.values()), start, stop)
