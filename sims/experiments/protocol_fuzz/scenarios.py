"""Named catastrophes, one in about half of the schedules, each among other faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from decentra.directory.memory import MemoryBoard
from sims.experiments.protocol_fuzz.machines import Node

if TYPE_CHECKING:
    from sims.experiments.protocol_fuzz.schedule import Schedule

GO_ON_S = 400.0
"""Virtual seconds within which a connected quorum must commit its next sync."""

LEFT_IN_TIME_S = 4.5
"""A leaver that took longer may have gone without being told that others hold the certificate."""


async def minority_vanishes(schedule: Schedule) -> None:
    """The largest minority that the view can spare vanishes for good right after a commit, whoever committed first with it."""
    swarm, rng = schedule.swarm, schedule.rng
    schedule.repair()
    for _ in range(20):
        first = await swarm.trapped("committed", 15.0)
        if first is None or schedule.is_over():
            return
        others = [n for n in schedule.up() if n is not first and swarm.watch.newest().member(n.peer) is not None]
        rng.shuffle(others)
        doomed = [first]
        if not schedule.spare(doomed):
            continue
        for node in others:
            if schedule.spare([*doomed, node]):
                doomed.append(node)
        for node in doomed:
            swarm.kill(node, lose_files=True)
            node.gone = True
        break
    await schedule.progress(GO_ON_S)


async def all_but_one_leave(schedule: Schedule) -> None:
    """In fair weather the oldest member, which decides ties, leaves, then the next, as far as one: the rest always goes on.

    The last that leaves may lose its voice before: it still decides alone, and must not go before it was heard again.
    """
    swarm = schedule.swarm
    schedule.repair()
    await swarm.sleep(12.0)
    for _ in range(4):
        state = swarm.watch.newest()
        node = swarm.by_peer(state.members[0].peer)
        whole = all(schedule.is_whole(m.peer, m.incarnation) and swarm.by_peer(m.peer).member is not None for m in state.members)
        if not whole or len(state.members) == 1 or node.task is None or not state.started(swarm.start_members):
            break
        if len(state.members) == 2 and schedule.rng.random() < 0.5:
            swarm.cut(node, swarm.by_peer(state.members[1].peer), both=False)
        await _leave_in_peace(schedule, node, node.task)
        swarm.heal()
        await schedule.progress(GO_ON_S)


async def _leave_in_peace(schedule: Schedule, node: Node, task: asyncio.Task[None]) -> None:
    """It is gone once others hold the certificate that let it go; where it went as if crashed it may be needed, and is back."""
    swarm = schedule.swarm
    asked_s, member = swarm.now(), node.member
    swarm.leave(node, switch_off=True)
    await swarm.unless_failed(asyncio.wait([task], timeout=30.0))
    if not task.done() or member is None or member.in_view() or swarm.now() - asked_s > LEFT_IN_TIME_S:
        if node.up:
            swarm.kill(node)
        node.gone = False
        swarm.boot(node)


async def asleep(schedule: Schedule) -> None:
    """One member is cut off, its process alive, until the others have removed it; then it is back."""
    swarm = schedule.swarm
    schedule.repair()
    await swarm.sleep(8.0)
    nodes = [node for node, member in schedule.live() if member.in_view()]
    if not nodes or not schedule.spare([node := schedule.rng.choice(nodes)]):
        return
    swarm.isolate(node)
    for _ in range(60):
        await swarm.sleep(1.0)
        if swarm.watch.newest().member(node.peer) is None or schedule.is_over():
            break
    swarm.heal()
    await swarm.sleep(schedule.rng.choice((0.5, 5.0)))


async def links_slow_for_good(schedule: Schedule) -> None:
    """The links of a part of the machines get ten times slower and stay so."""
    swarm, rng = schedule.swarm, schedule.rng
    for node in swarm.nodes:
        if rng.random() < 0.5:
            node.link_factor = 10.0
            node.slow(1.0)
    swarm.say(f"EVENT slow for good: {' '.join(n.name for n in swarm.nodes if n.link_factor > 1)}")


async def broken_ring(schedule: Schedule) -> None:
    """The link from each member to the next is broken one way. From five members on, each still hears a quorum."""
    swarm = schedule.swarm
    schedule.repair()
    await swarm.sleep(10.0)
    ring = [swarm.by_peer(peer) for peer in swarm.watch.newest().peers()]
    for node, following in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        if node is not following:
            swarm.cut(node, following, both=False)
    if len(ring) >= 5 and all(n.up for n in ring):
        await schedule.progress(GO_ON_S)
    else:
        await swarm.sleep(schedule.rng.choice((5.0, 20.0, 60.0)))


async def half_vanish(schedule: Schedule) -> None:
    """Half of the machines lose their power at once, and get it back later."""
    swarm, rng, up = schedule.swarm, schedule.rng, schedule.up()
    if rng.random() < 0.5:
        await swarm.trapped(rng.choice(("accepted", "committed", "votes")), 5.0)
    half = rng.sample(up, (len(up) + 1) // 2)
    for node in half:
        if node.up:
            swarm.kill(node)
    await swarm.sleep(rng.choice((1.0, 8.0, 30.0)))
    for node in half:
        if not node.up:
            swarm.boot(node)


async def joiner_storm(schedule: Schedule) -> None:
    """More machines than there are members join at once, as many as 16 machines allow."""
    swarm = schedule.swarm
    present = len([n for n in swarm.nodes if not n.gone])
    for _ in range(min(16 - present, present + schedule.rng.randint(1, 3))):
        swarm.boot(schedule.machine())


async def new_addresses(schedule: Schedule) -> None:
    """Every process ends; all come back on new addresses, the directory knowing nothing but what they tell it anew."""
    swarm, rng = schedule.swarm, schedule.rng
    for node in schedule.up():
        swarm.kill(node)
    swarm.board = MemoryBoard()
    await swarm.sleep(rng.choice((0.0, 5.0)))
    for node in rng.sample(schedule.down(), len(schedule.down())):
        node.address = f"{node.name}:{node.boots + 1}"
        swarm.boot(node)
        await swarm.sleep(rng.choice((0.0, 0.5, 4.0)))


SCENARIOS: dict[str, Callable[[Schedule], Awaitable[None]]] = {
    "minority vanishes": minority_vanishes,
    "all but one leave": all_but_one_leave,
    "asleep": asleep,
    "links slow for good": links_slow_for_good,
    "broken ring": broken_ring,
    "half vanish": half_vanish,
    "joiner storm": joiner_storm,
    "new addresses": new_addresses,
}
