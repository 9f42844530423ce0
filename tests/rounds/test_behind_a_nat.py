"""Members that cannot be dialled: they take full part, own nothing, never lead, and wait when no other is left."""

import asyncio
import json

import pytest

from decentra.errors import PeerFault
from decentra.rounds.view import leader_order
from decentra.wire.v1 import rounds_pb2
from sims.experiments.protocol_fuzz.machines import STEP_S
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 400.0


def swarm_behind(dialable, hidden, story, **settings):
    """Play `story(swarm)` once so many members that can be dialled, then so many that cannot, have started."""

    async def whole(swarm):
        await swarm.found(STEP_S)
        for number in range(1, dialable + hidden):
            swarm.boot(swarm.new_node(dialable=number < dialable))
        for node in swarm.nodes[1:]:
            await node.booting
        await swarm.until(lambda: swarm.newest().state.sync >= 1, what="the first sync")
        await story(swarm)

    return play(Swarm(seed=7, **{"start_members": dialable + hidden, "stop_syncs": 8, **settings}), whole)


def hidden_of(swarm):
    return [n for n in swarm.nodes if not n.dialable]


async def never(swarm, condition, seconds):
    for _ in range(int(seconds / 0.05)):
        await asyncio.sleep(0.05)
        swarm.check()
        assert not condition(), swarm.standing()


def test_members_that_cannot_be_dialled_are_counted_in_every_sync_own_nothing_and_never_lead():
    async def story(swarm):
        hidden = {n.peer for n in hidden_of(swarm)}

        def led_or_owned():
            leads = any(m.leading for m in swarm.members() if m.peer in hidden)
            return leads or bool(hidden & {p.owner for m in swarm.members() for p in m.state.parts})

        while any(not m.is_done() for m in swarm.members()):
            await never(swarm, led_or_owned, 0.5)
        await swarm.finish(LIMIT_S)
        for sync in range(8):
            assert swarm.counted(sync) == ["n0", "n1", "n2", "n3", "n4"]
        state = swarm.newest().state
        assert hidden == {m.peer for m in state.members if not m.dialable}
        assert not hidden & set(leader_order(swarm.newest().hash, state.members))

    swarm = swarm_behind(3, 2, story)
    said = [line for line in swarm.trace if "cannot be dialled" in line]
    assert not said, "who cannot be dialled asks only those who can, and they need not be told"
    assert not any("members can be dialled" in line for line in swarm.trace)


def test_a_member_behind_a_nat_that_crashes_comes_back_and_is_counted_again():
    async def story(swarm):
        node = hidden_of(swarm)[0]
        sync = swarm.newest().state.sync
        swarm.kill(node)
        await swarm.until(lambda: swarm.newest().state.sync >= sync + 2)
        swarm.boot(node)
        await swarm.until(lambda: node.member is not None and node.member.state.r == swarm.newest().state.r, what="it has caught up")
        back = swarm.newest().state.sync
        await swarm.finish(LIMIT_S)
        assert node.name not in swarm.counted(sync + 1)
        assert node.name in swarm.counted(back + 1)

    swarm_behind(3, 2, story)


def test_one_that_slept_for_long_catches_up_from_those_it_can_dial():
    async def story(swarm):
        sleeper = hidden_of(swarm)[0]
        swarm.isolate(sleeper)
        await swarm.until(lambda: swarm.newest().state.sync >= 7)
        swarm.heal()
        await swarm.until(lambda: swarm.newest().state.member(sleeper.peer) is not None and sleeper.member.in_view(), 30.0)
        assert not swarm.newest().state.member(sleeper.peer).dialable
        await swarm.finish(LIMIT_S)
        assert sleeper.name in swarm.counted(12)

    swarm_behind(3, 2, story, snapshot_every=2, stop_syncs=13)


def test_a_newcomer_behind_a_nat_is_admitted_and_a_leaver_goes():
    async def story(swarm):
        joiner = swarm.new_node(dialable=False)
        swarm.boot(joiner)
        await swarm.until(lambda: joiner.member is not None and joiner.member.in_view())
        leaver = hidden_of(swarm)[0]
        begun_s = swarm.now()
        swarm.leave(leaver)
        await swarm.until(lambda: leaver.task.done())
        assert swarm.now() - begun_s < 5.0
        await swarm.until(lambda: leaver.peer not in swarm.newest().state.peers())
        await leaver.transport.close()
        await swarm.finish(LIMIT_S)
        assert joiner.name in swarm.counted(7) and leaver.name not in swarm.counted(7)

    swarm_behind(3, 1, story)


def test_others_tell_the_status_of_a_member_that_cannot_be_dialled():
    async def story(swarm):
        node, hidden = swarm.nodes[0], hidden_of(swarm)[0]
        onlooker = swarm.nodes[1].member

        async def status_of(peer):
            query = rounds_pb2.Request(status=rounds_pb2.StatusQuery(peer=peer))
            return json.loads((await onlooker.call(node.peer, query, 5.0)).status.json)

        assert (await status_of(hidden.peer))["peer"] == hidden.peer
        assert (await status_of(""))["peer"] == node.peer
        assert hidden.peer not in (await status_of(hidden.peer))["dialable"]
        with pytest.raises(PeerFault, match="not a member here"):
            await status_of("z" * 32)
        await swarm.finish(LIMIT_S)

    swarm_behind(3, 1, story)


def test_a_leader_that_dies_is_followed_by_another_that_can_be_dialled():
    async def story(swarm):
        leader = await swarm.when_leader("offers of")
        r = leader.member.state.r
        swarm.kill(leader)
        await swarm.until(lambda: swarm.newest().state.r > r)
        await swarm.finish(LIMIT_S)

    swarm_behind(3, 2, story)


@pytest.mark.parametrize("dialable", [1, 2])
def test_when_the_last_that_can_be_dialled_is_gone_the_others_wait_saying_so_and_go_on_when_one_is_back(dialable):
    async def story(swarm):
        gone = [n for n in swarm.nodes if n.dialable]
        for node in gone:
            swarm.kill(node)
        r = swarm.newest().state.r
        await asyncio.sleep(120.0)
        for node in hidden_of(swarm):
            assert node.member.state.r <= r + 1
            assert "no member that can be dialled answers" in node.member.waiting_for
            assert all(g.peer[:8] in node.member.waiting_for for g in gone)
            assert node.member.attempt < 40, "they do not count attempts up in haste"
        assert sum("attempt" in line for line in swarm.trace) < 200
        assert sum("for a leader: no member that can be dialled answers" in line for line in swarm.trace) >= 3
        for node in gone:
            swarm.boot(node)
        sync = swarm.newest().state.sync
        await swarm.until(lambda: swarm.newest().state.sync > sync, 60.0, "the next sync")
        await swarm.finish(LIMIT_S)

    swarm_behind(dialable, 3, story)


@pytest.mark.parametrize(("dialable", "warns"), [(1, True), (2, True), (3, False)])
def test_a_view_warns_once_below_three_that_can_be_dialled(dialable, warns):
    async def story(swarm):
        await swarm.finish(LIMIT_S)

    swarm = swarm_behind(dialable, 2, story)
    said = [line for line in swarm.trace if f"only {dialable} of {dialable + 2} members can be dialled" in line]
    assert len(said) == (dialable + 2 if warns else 0)


def test_the_last_that_can_be_dialled_cannot_be_voted_out():
    async def story(swarm):
        leaver = swarm.nodes[0]
        swarm.leave(leaver)
        await swarm.until(lambda: leaver.task.done(), 8.0)
        await leaver.transport.close()
        assert leaver.peer in swarm.newest().state.peers()
        leaver.member = leaver.task = leaver.transport = leaver.booting = None
        await asyncio.sleep(30.0)
        assert all("no member that can be dialled answers" in m.waiting_for for m in swarm.members())
        await swarm.close()

    swarm_behind(1, 2, story)
