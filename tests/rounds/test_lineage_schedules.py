"""Histories that part and meet at random: groups cut off, forced, restarted, joined again; all end in one lineage."""

import asyncio
import random

import pytest
from forking import recover

from sims.experiments.protocol_fuzz.swarm import Swarm, play


@pytest.mark.parametrize("seed", [3, 27, 59, 65, 70, 82, 83, 94])
def test_lineages_that_part_at_random_become_one_when_they_meet(seed):
    rng = random.Random(seed)
    count = rng.randint(3, 6)

    async def story(swarm):
        await swarm.start(count)
        await swarm.until(lambda: all(m.state.sync >= 1 for m in swarm.members()))
        await asyncio.sleep(rng.uniform(0, 4))
        group = rng.sample(swarm.nodes, rng.randint(1, count - 1))
        swarm.isolate(*group)
        await asyncio.sleep(rng.choice([0, 0.5, 3, 10]))
        rest = [n for n in swarm.nodes if n not in group]
        for side in (group, rest) if rng.random() < 0.5 else (group,):
            keep = rng.sample(side, rng.randint(max(1, len(side) - 1), len(side)))
            node = rng.choice(keep)
            swarm.kill(node)
            recover(swarm, node, keep)
            swarm.boot(node)
        await asyncio.sleep(rng.choice([0, 1, 5, 20]))
        restarted = rng.choice(swarm.nodes)
        if restarted.member is not None:
            swarm.kill(restarted)
            swarm.boot(restarted)
        swarm.heal()
        await swarm.until(lambda: one_lineage(swarm), 200.0, "one lineage, and all are members of it")
        sync = swarm.newest().state.sync
        await swarm.until(lambda: all(m.state.sync >= sync + 2 for m in swarm.members()), 200.0, "rounds go on")
        swarm.check()
        swarm.watch.check_tensors()
        for node in swarm.nodes:
            swarm.kill(node)

    swarm = play(Swarm(seed=seed, start_members=count, stop_syncs=200, snapshot_every=rng.choice([2, 8])), story)
    assert any("this node leaves" in line for line in swarm.trace), "lineages have met"


def one_lineage(swarm):
    """Whether every machine is up, and a member, in the same lineage."""
    members = [n.member for n in swarm.nodes]
    return all(members) and len({m.state.lineage for m in members}) == 1 and all(m.in_view() for m in members)
