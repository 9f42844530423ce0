"""Fragments synced in turn and slots that begin before the last sync is decided, on the virtual clock.

That a contribution is against the anchor of its fragment's last sync, and claims what its replica carries, is what the watch judges.
"""

import pytest
from stories import swarm_of

LIMIT_S = 400.0


@pytest.mark.parametrize("overlap_steps", [0, 5])
def test_a_replica_that_missed_more_than_one_sync_starts_anew_at_the_anchor(overlap_steps):
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

    swarm_of(4, story, fragments=2, overlap_steps=overlap_steps, stop_syncs=10, snapshot_every=32)
