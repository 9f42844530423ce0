"""Fragments synced in turn and slots that begin before the last sync is decided, on the virtual clock.

That a contribution is against the anchor of its fragment's last sync, and claims what its replica carries, is what the watch judges.
"""

import pytest
from stories import swarm_of

from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 400.0


@pytest.mark.parametrize("merge", [{"overlap_steps": 0}, {"overlap_steps": 5}, {"merge": "eager"}])
def test_a_replica_that_missed_more_than_one_sync_starts_anew_at_the_anchor(merge):
    async def story(swarm):
        sleeper = swarm.nodes[3]
        sync = swarm.newest().state.sync
        await swarm.until(lambda: sleeper.member.own is not None and sleeper.member.own.sync > sync, step_s=0.01)
        swarm.isolate(sleeper)
        sync = sleeper.member.state.sync
        await swarm.until(lambda: swarm.newest().state.sync >= sync + 2)
        assert sleeper.member.state.sync == sync and sleeper.member.own is not None
        swarm.heal()
        await swarm.until(lambda: swarm.newest().state.sync >= sync + 5)
        assert sleeper.name in swarm.counted(sync + 4)
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, fragments=2, stop_syncs=10, snapshot_every=32, **merge)


LONG_ROUNDS = {"slot_steps": 10, "rate": 25e3, "stop_syncs": 10, "snapshot_every": 32}
"""Slots of 10 s, rounds of 7 s."""


@pytest.mark.parametrize("merge", [{"overlap_steps": 0}, {"overlap_steps": 5}, {"overlap_steps": 9}, {"merge": "eager"}])
def test_a_joiner_and_a_slower_member_are_counted_though_the_others_begin_their_slots_ahead(merge):
    async def story(swarm):
        await swarm.start(3, 1.0)
        slow, joiner = swarm.new_node(1.4), swarm.new_node(1.0)
        swarm.boot(slow)
        await swarm.until(lambda: swarm.newest().state.sync >= 3)
        swarm.boot(joiner)
        await swarm.finish(LIMIT_S)
        counted = [swarm.counted(sync) for sync in range(10)]
        assert all(slow.name in names for names in counted[2:])
        assert all(joiner.name in names for names in counted[5:])

    play(Swarm(seed=7, start_members=3, **merge, **LONG_ROUNDS), story)
