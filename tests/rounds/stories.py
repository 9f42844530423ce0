"""How a named test of the protocol is played."""

from sims.experiments.protocol_fuzz.swarm import Swarm, play


def swarm_of(count, story, **settings):
    """Play `story(swarm)` once `count` members have started."""

    async def whole(swarm):
        await swarm.start(count)
        await swarm.until(lambda: swarm.newest().state.sync >= 1, what="the first sync")
        await story(swarm)

    return play(Swarm(seed=7, **{"start_members": count, "stop_syncs": 8, **settings}), whole)


def follower(swarm, leader):
    """A member that does not lead and is not the oldest, which decides ties."""
    return next(n for n in swarm.live() if n is not leader and n.number != 0)
