"""Members cut off, asleep, leaving, restarted, joining; and swarms of one and two, on the virtual clock."""

import asyncio

import pytest
from stories import follower, swarm_of

from decentra.ledger import intervals
from decentra.rounds import exchange
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 400.0


# -- cuts and sleepers --------------------------------------------------------------------------------------------------


def test_a_minority_cut_off_waits_saying_so_and_catches_up_by_replay():
    async def story(swarm):
        minority = swarm.nodes[3:]
        swarm.isolate(*minority)
        r = max(n.member.state.r for n in minority)
        await swarm.until(lambda: swarm.newest().state.sync >= 5)
        for node in minority:
            assert node.member.state.r <= r + 1
            assert "quorum" in node.member.waiting_for or "leader" in node.member.waiting_for
        swarm.heal()
        await swarm.until(lambda: all(n.member.state.r >= swarm.newest().state.r - 1 for n in minority), 20.0)
        assert all(n.member.ports.store.entries(0, 1) for n in minority), "they replayed; no snapshot replaced their log"
        await swarm.finish(LIMIT_S)

    swarm_of(5, story, snapshot_every=16)


@pytest.mark.parametrize(("snapshot_every", "replays"), [(32, True), (2, False)])
def test_a_member_asleep_for_several_syncs_replays_or_takes_a_snapshot_and_is_a_member_again(snapshot_every, replays):
    async def story(swarm):
        sleeper = swarm.nodes[2]
        swarm.isolate(sleeper)
        await swarm.until(lambda: swarm.newest().state.sync >= 7)
        assert not swarm.newest().state.member(sleeper.peer)
        swarm.heal()
        await swarm.until(lambda: swarm.newest().state.member(sleeper.peer) is not None and sleeper.member.in_view(), 20.0)
        assert bool(sleeper.member.ports.store.entries(0, 1)) == replays
        await swarm.finish(LIMIT_S)
        assert sleeper.name in swarm.counted(11)

    swarm_of(4, story, snapshot_every=snapshot_every, stop_syncs=12)


# -- who leaves and who comes back --------------------------------------------------------------------------------------


def test_a_leaver_is_gone_within_five_seconds_and_its_lease_returns():
    async def story(swarm):
        leaver, start = swarm.nodes[2], swarm.now()
        swarm.leave(leaver)
        await swarm.until(lambda: leaver.task.done())
        assert swarm.now() - start < 5.0
        await swarm.until(lambda: leaver.peer not in swarm.newest().state.peers())
        assert leaver.peer not in swarm.newest().state.leases
        await leaver.transport.close()
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_leaver_that_has_offered_does_not_hold_up_the_sync():
    async def story(swarm):
        sync = swarm.newest().state.sync
        leaver = follower(swarm, swarm.leader())
        await swarm.until(lambda: swarm.newest().state.sync == sync + 1, step_s=0.01)
        slow = next(n for n in swarm.live() if n is not leaver)
        slow.trainer.stalled_until_s = swarm.now() + 1.0
        await swarm.until(lambda: leaver.member.own is not None and leaver.member.state.sync == sync + 1, step_s=0.01)
        swarm.leave(leaver)
        start = swarm.now()
        await swarm.until(lambda: swarm.newest().state.sync == sync + 2)
        assert swarm.now() - start < 15.0
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


@pytest.mark.parametrize("count", [1, 2])
def test_a_leaver_without_a_quorum_goes_within_five_seconds_as_if_crashed(count):
    async def story(swarm):
        for node in swarm.nodes[:-1]:
            swarm.kill(node)
        leaver, start = swarm.nodes[-1], swarm.now()
        swarm.leave(leaver)
        await swarm.until(lambda: leaver.task.done(), 8.0)
        assert swarm.now() - start < 5.5
        await swarm.close()

    swarm_of(count, story)


def test_a_restarted_member_offers_the_same_bytes_again_or_sits_the_sync_out():
    for payload_is_lost in (False, True):

        async def story(swarm, payload_is_lost=payload_is_lost):
            sync = swarm.newest().state.sync + 1
            node = swarm.nodes[3]
            swarm.nodes[1].trainer.stalled_until_s = swarm.now() + 12.0
            await swarm.until(lambda: node.member.own is not None and node.member.own.sync == sync, step_s=0.01)
            root, incarnation = node.member.own.root, node.member.me.incarnation
            swarm.kill(node)
            if payload_is_lost:
                node.files.remove("offer.bin")
            swarm.boot(node)
            await swarm.until(lambda: node.member is not None)
            await swarm.until(lambda: swarm.newest().state.sync == sync + 1, what="the sync")
            assert node.member.me.incarnation == incarnation
            roots = [c.root for c in swarm.entry_of(sync).counted if c.sender == node.peer]
            assert roots == ([] if payload_is_lost else [root])
            await swarm.finish(LIMIT_S)
            assert node.name in swarm.counted(sync + 2)

        swarm_of(4, story)


@pytest.mark.parametrize(("share", "counts"), [(0.2, True), (0.6, True), (0.92, False)])
@pytest.mark.parametrize("away", ["killed", "asleep"])
def test_who_comes_back_late_in_a_sync_begins_where_the_others_are_or_sits_it_out_and_nobody_waits_for_it(share, counts, away):
    async def story(swarm):
        for node in swarm.nodes:
            node.trainer.step_s = 3.0
        sync, leader = swarm.newest().state.sync, await swarm.when_leader("offers")
        victim = follower(swarm, leader)
        swarm.kill(victim) if away == "killed" else swarm.freeze(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync, 200.0, step_s=0.01)
        start, slot_s = swarm.now(), 10 * 3.0
        await swarm.sleep(share * slot_s)
        if away == "killed":
            swarm.boot(victim)
            await swarm.until(lambda: victim.trainer is not None, step_s=0.01)
            victim.trainer.step_s = 3.0
        else:
            swarm.thaw(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync + 1, 200.0, step_s=0.01)
        assert (victim.name in swarm.counted(sync + 1)) == counts
        assert swarm.now() - start < 1.15 * slot_s
        if counts:
            steps = {c.sender: c.num_steps for c in swarm.entry_of(sync + 1).counted}
            assert 10 * (1 - share) - 2 <= steps.pop(victim.peer) <= 10 * (1 - share) + 1 and set(steps.values()) == {10}
        for node in swarm.live():
            node.trainer.step_s = 0.2
        await swarm.until(lambda: victim.name in swarm.counted(swarm.newest().state.sync - 1), 200.0)
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_member_that_lost_its_files_comes_back_as_a_newcomer_with_a_new_incarnation():
    async def story(swarm):
        node = swarm.nodes[1]
        before = swarm.newest().state.member(node.peer).incarnation
        swarm.kill(node, lose_files=True)
        swarm.boot(node)
        await swarm.until(lambda: node.member is not None and node.member.in_view())
        state = node.member.state
        assert state.member(node.peer).incarnation == node.member.me.incarnation != before
        assert state.peers()[-1] == node.peer, "a new incarnation is youngest"
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_joiner_admitted_in_mid_sync_starts_at_the_next():
    async def story(swarm):
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync == sync)
        node = swarm.new_node()
        swarm.boot(node)
        await swarm.until(lambda: node.member is not None and node.member.in_view())
        assert swarm.newest().state.sync == sync, "admitted by an entry without sync"
        assert swarm.newest().state.member(node.peer).first_sync == sync + 1
        await swarm.finish(LIMIT_S)
        assert "n3" not in swarm.counted(sync) and "n3" in swarm.counted(sync + 1)

    swarm_of(3, story)


def test_a_newcomer_whose_whole_view_has_gone_catches_up_from_those_that_came_after():
    async def story(swarm):
        founders, node = list(swarm.nodes), swarm.new_node()
        swarm.boot(node)
        await swarm.until(lambda: node.member is not None, step_s=0.001)
        swarm.freeze(node)
        known = set(node.member.state.peers())
        for later in (swarm.new_node(), swarm.new_node()):
            swarm.boot(later)
            await swarm.until(lambda later=later: later.member is not None and later.member.in_view())
        for founder in founders:
            swarm.leave(founder, switch_off=True)
            await swarm.until(lambda founder=founder: not founder.up)
        assert not known & set(swarm.watch.newest().peers())
        swarm.thaw(node)
        await swarm.until(lambda: node.member.in_view(), 120.0)
        await swarm.finish(LIMIT_S)

    swarm_of(2, story, stop_syncs=40)


def test_a_member_whose_whole_view_has_gone_follows_those_that_came_after():
    async def story(swarm):
        oldest, sleeper = swarm.nodes
        swarm.freeze(sleeper)
        known = set(sleeper.member.state.peers())
        await swarm.until(lambda: sleeper.peer not in swarm.newest().state.peers(), 200.0)
        for later in (swarm.new_node(), swarm.new_node()):
            swarm.boot(later)
            await swarm.until(lambda later=later: later.member is not None and later.member.in_view())
        swarm.leave(oldest, switch_off=True)
        await swarm.until(lambda: not oldest.up)
        assert not known & set(swarm.watch.newest().peers())
        swarm.thaw(sleeper)
        await swarm.until(lambda: sleeper.member.state.r >= 10 and sleeper.member.in_view(), 120.0)
        await swarm.finish(LIMIT_S)

    swarm_of(2, story, stop_syncs=60)


def test_with_several_fragments_a_lease_that_is_all_carried_is_offered_without_another_step():
    async def story(swarm):
        await swarm.start(3)
        cut_off = swarm.nodes[2]
        await swarm.until(lambda: cut_off.trainer.progress()[0] > 5, step_s=0.01)
        swarm.isolate(cut_off)
        await swarm.until(lambda: swarm.newest().state.sync == 1, 100.0)
        swarm.heal()
        await swarm.until(lambda: any(cut_off.name in swarm.counted(sync) for sync in range(swarm.newest().state.sync)), 60.0)
        first = next(c for e in map(swarm.entry_of, range(swarm.newest().state.sync)) for c in e.counted if c.sender == cut_off.peer)
        assert (intervals.total(first.claim), first.num_steps, first.base_sync) == (40, 10, -1)
        await swarm.finish(LIMIT_S)

    play(Swarm(seed=7, start_members=3, stop_syncs=8, fragments=2), story)


# -- small swarms -------------------------------------------------------------------------------------------------------


def test_a_swarm_of_two_whose_oldest_dies_waits_and_says_for_whom():
    async def story(swarm):
        oldest, other = swarm.nodes
        swarm.kill(oldest)
        r = other.member.state.r
        said = set()
        for _ in range(600):
            await asyncio.sleep(0.1)
            said.add(other.member.waiting_for)
        assert other.member.state.r <= r + 1
        assert any("quorum" in text and oldest.peer[:8] in text for text in said), said
        swarm.boot(oldest)
        await swarm.finish(LIMIT_S)

    swarm_of(2, story)


def test_a_swarm_of_two_whose_youngest_dies_goes_on():
    async def story(swarm):
        swarm.kill(swarm.nodes[1])
        await swarm.finish(LIMIT_S)

    swarm_of(2, story)


def test_a_swarm_of_one_runs_and_leaves_no_id_out():
    async def story(swarm):
        await swarm.finish(LIMIT_S)
        state = swarm.newest().state
        assert state.sync == 8 and state.fresh_sample == 8 * 40 + intervals.total(state.leases[swarm.nodes[0].peer])

    swarm_of(1, story)


@pytest.mark.parametrize("count", [1, 3])
def test_a_swarm_that_loses_its_power_after_offering_goes_on(count):
    async def story(swarm):
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: any(m.own is not None and m.own.sync == sync for m in swarm.members()), step_s=0.001)
        for node in swarm.nodes:
            swarm.kill(node)
        for node in swarm.nodes:
            swarm.boot(node)
        await swarm.finish(LIMIT_S)

    swarm_of(count, story)


def test_in_long_slots_members_speak_seldom_and_a_silent_one_is_still_noticed(monkeypatch):
    spoken = []
    hear = exchange.hear
    monkeypatch.setattr(exchange, "hear", lambda member, sender, *rest: (spoken.append(sender), hear(member, sender, *rest)))

    async def story(swarm):
        for node in swarm.live():
            node.trainer.step_s = 60.0
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync == sync, 900)
        spoken.clear()
        await swarm.until(lambda: swarm.newest().state.sync == sync + 1, 900)
        assert len(spoken) < 3 * 500, "600 s at four a second would be 2400 each"
        leader = swarm.leader() or await swarm.when_leader("offers")
        victim = follower(swarm, leader)
        swarm.isolate(victim)
        await swarm.until(lambda: victim.peer not in leader.member.heard() or not leader.member.leading, 300, "it is missed")
        swarm.heal()
        await swarm.finish(20_000)

    swarm_of(3, story, stop_syncs=5)


def test_a_member_that_is_behind_at_the_end_of_the_run_is_waited_for_until_it_has_caught_up():
    async def story(swarm):
        await swarm.until(lambda: swarm.newest().state.sync == 3)
        late = next(n for n in swarm.live() if n is not swarm.leader() and n.number)
        swarm.isolate(late)
        end = swarm.run.config.stop_syncs
        await swarm.until(lambda: sum(m.state.sync == end for m in swarm.members()) >= 2, LIMIT_S, step_s=0.001)
        swarm.heal()
        await swarm.finish(LIMIT_S)
        assert late.member.state.sync == end

    swarm_of(3, story, stop_syncs=5)
