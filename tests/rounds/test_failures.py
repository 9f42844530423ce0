"""The rows of the failure table of design.md section 5, one by one, on the virtual clock."""


import dataclasses

import pytest
from stories import follower, swarm_of

LIMIT_S = 400.0


async def due(swarm, phase):
    """(leader, entry number, sync) at the moment the leader reaches a phase."""
    leader = await swarm.when_leader(phase)
    return leader, leader.member.state.r, leader.member.state.sync


async def until_accepted(swarm, nodes):
    """Wait until all these nodes have accepted the entry that is due, or applied it."""
    r = swarm.newest().state.r

    def done(member):
        vote = member.ports.store.vote
        return member.state.r > r or (vote.r == r and vote.accepted_ballot >= 0)

    await swarm.until(lambda: all(done(n.member) for n in nodes), step_s=0.001)


# -- contributors -------------------------------------------------------------------------------------------------------


def test_a_contributor_that_dies_before_the_close_is_left_out_and_keeps_its_lease():
    async def story(swarm):
        await swarm.until(lambda: swarm.newest().state.sync == 2)
        state = swarm.newest().state
        victim = swarm.nodes[3]
        lease = state.leases[victim.peer]
        swarm.kill(victim)
        await swarm.until(lambda: swarm.newest().state.sync == 3)
        after = swarm.newest().state
        assert "n3" not in swarm.counted(2) and after.leases[victim.peer] == lease
        await swarm.until(lambda: swarm.newest().state.sync == 5)
        gone = swarm.newest().state
        assert victim.peer not in gone.peers() and victim.peer not in gone.leases
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_contributor_that_dies_after_the_close_is_counted_and_nobody_waits_for_it():
    async def story(swarm):
        leader, _, sync = await due(swarm, "votes")
        victim = follower(swarm, leader)
        others = [n for n in swarm.live() if n not in (leader, victim)]
        await until_accepted(swarm, others)
        start = swarm.now()
        swarm.kill(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync)
        assert victim.name in swarm.counted(sync) and swarm.now() - start < 1.0
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_contributor_that_goes_silent_before_its_parts_are_pulled_is_not_waited_for():
    async def story(swarm):
        for node in swarm.nodes:
            node.trainer.step_s = 6.0
        sync, leader = swarm.newest().state.sync, await swarm.when_leader("offers")
        victim = follower(swarm, leader)
        await swarm.until(lambda: victim.peer in leader.member.book.offers, 100.0, step_s=0.001)
        root, start = leader.member.book.offers[victim.peer].root, swarm.now()
        assert not leader.member.parts.holds(root, leader.member.state.parts), "its parts were pulled already"
        swarm.kill(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync, 100.0)
        assert victim.name not in swarm.counted(sync)
        assert swarm.now() - start < 3 * leader.member.silence_s(), "it waited as long for parts of the dead as all had trained"
        await swarm.finish(2000.0)

    swarm_of(4, story)


def test_who_is_killed_at_the_end_of_a_slot_is_missing_at_once():
    async def story(swarm):
        for node in swarm.nodes:
            node.trainer.step_s = 3.0
        sync, leader = swarm.newest().state.sync, await swarm.when_leader("offers")
        victim = follower(swarm, leader)
        await swarm.until(lambda: victim.trainer.progress()[0] == 9, 100.0, step_s=0.01)
        await swarm.sleep(2.9)
        swarm.kill(victim)
        start = swarm.now()
        await swarm.until(lambda: swarm.newest().state.sync > sync, 100.0)
        assert victim.name not in swarm.counted(sync)
        assert swarm.now() - start < 0.9 * leader.member.silence_s(), "it waited for a silence though nobody answers there any more"
        await swarm.finish(2000.0)

    swarm_of(4, story)


# -- owners -------------------------------------------------------------------------------------------------------------


def test_when_an_owner_dies_before_its_blob_is_held_its_parts_go_to_others():
    async def story(swarm):
        leader, r, sync = await due(swarm, "the reductions")
        victim = next(n for n in swarm.live() if n is not leader and n.peer in [p.owner for p in leader.member.state.parts])
        swarm.kill(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync)
        report = next(h for h in swarm.newest().history if h.entry == r)
        assert report.attempts == 1 and swarm.entry(r).sync == sync
        await swarm.finish(LIMIT_S)

    swarm_of(5, story)


def test_when_an_owner_dies_after_its_blob_is_held_the_bytes_come_from_any_holder():
    async def story(swarm):
        leader, r, sync = await due(swarm, "votes")
        victim = follower(swarm, leader)
        await until_accepted(swarm, [victim])
        late = next(n for n in swarm.live() if n not in (leader, victim))
        swarm.isolate(late)
        await swarm.until(lambda: swarm.newest().state.r > r)
        swarm.kill(victim)
        swarm.heal()
        await swarm.until(lambda: late.member.state.r > r, what="the late member replays")
        assert swarm.entry(r).sync == sync
        await swarm.finish(LIMIT_S)

    swarm_of(5, story)


# -- leaders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["offers of", "the reductions", "votes"])
def test_the_next_leader_goes_on_where_a_leader_died(phase):
    async def story(swarm):
        leader, r, _ = await due(swarm, phase)
        swarm.kill(leader)
        await swarm.until(lambda: swarm.newest().state.r > r, what="another leader")
        assert next(h for h in swarm.newest().history if h.entry == r).attempts > 1
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_an_entry_accepted_by_a_quorum_is_the_one_that_the_next_leader_proposes():
    async def story(swarm):
        leader, r, _ = await due(swarm, "votes")

        await until_accepted(swarm, [n for n in swarm.live() if n is not leader])
        chosen = leader.member.ports.store.vote.accepted_entry
        swarm.isolate(leader)
        swarm.kill(leader)
        await swarm.until(lambda: swarm.newest().state.r > r)
        swarm.check()
        assert swarm.watch.entries[r] == chosen
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


@pytest.mark.parametrize("reached", [0, 1])
def test_a_certificate_that_reached_only_its_leader_or_one_member_stands(reached):
    async def story(swarm):
        leader, r, _ = await due(swarm, "votes")
        await swarm.until(lambda: leader.member.commit_lock.locked(), step_s=0.001)
        others = [n for n in swarm.live() if n is not leader]
        for node in others[reached:]:
            swarm.cut(leader, node)
        await swarm.until(lambda: leader.member is not None and leader.member.state.r > r, step_s=0.001)
        if reached:
            await swarm.until(lambda: others[0].member.state.r > r, step_s=0.001)
        swarm.check()
        swarm.kill(leader)
        await swarm.until(lambda: all(n.member.state.r > r for n in others), what="the others agree on it")
        swarm.heal()
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_voter_that_restarts_still_shows_what_it_accepted():
    async def story(swarm):
        leader, r, _ = await due(swarm, "votes")
        voters = {n: n.member.ports.store for n in swarm.live() if n is not leader}
        await swarm.until(lambda: any(s.vote.r == r and s.vote.accepted_ballot == 0 for s in voters.values()), step_s=0.001)
        voter, vote = next((n, s.vote) for n, s in voters.items() if s.vote.r == r)
        swarm.isolate(leader)
        swarm.kill(voter)
        swarm.boot(voter)
        await swarm.until(lambda: voter.member is not None)
        assert voter.member.state.r == r and voter.member.vote() == vote
        swarm.heal()
        await swarm.finish(LIMIT_S)

    swarm_of(3, story)


def test_a_restarted_leader_uses_only_a_higher_attempt():
    async def story(swarm):
        leader, r, _ = await due(swarm, "votes")
        store = leader.member.ports.store
        await swarm.until(lambda: store.vote.r == r and store.vote.proposed == 0, step_s=0.001)
        entry = leader.member.ports.store.vote.accepted_entry
        swarm.isolate(leader)
        swarm.kill(leader)
        swarm.boot(leader)
        await swarm.until(lambda: leader.member is not None and leader.member.attempt > 0)
        assert leader.member.vote().proposed == 0 and leader.member.vote().accepted_entry == entry
        swarm.heal()
        await swarm.until(lambda: swarm.newest().state.r > r)
        await swarm.finish(LIMIT_S)

    swarm_of(3, story)


def test_a_part_that_cannot_travel_directly_goes_through_a_member_both_ends_reach():
    async def story(swarm):
        owner = next(n for n in swarm.live() if n.peer in [p.owner for p in swarm.newest().state.parts])
        sender = next(n for n in swarm.live() if n is not owner and not n.member.leading)
        swarm.cut(sender, owner)
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync > sync + 8, LIMIT_S)
        both = [s for s in range(sync, sync + 8) if {sender.name, owner.name} <= set(swarm.counted(s))]
        assert both, "no sync counts both ends of the broken link"
        swarm.heal()
        await swarm.finish(LIMIT_S)

    swarm_of(6, story, stop_syncs=14)


def test_an_owner_that_always_fails_loses_its_parts_in_the_same_attempt(monkeypatch):
    async def story(swarm):
        leader = await swarm.when_leader("offers")
        r = leader.member.state.r
        victim = next(n for n in swarm.live() if n is not leader and n.peer in [p.owner for p in leader.member.state.parts])
        monkeypatch.setattr(type(victim.member.parts), "blocks", refusing(victim.member.parts, type(victim.member.parts).blocks))
        await swarm.until(lambda: swarm.newest().state.r > r)
        assert swarm.entry(r).sync is not None
        assert next(h for h in leader.member.history if h.entry == r).attempts == 1
        await swarm.finish(LIMIT_S)

    def refusing(broken, blocks):
        def answer(self, *arguments):
            if self is broken:
                raise KeyError("lost")
            return blocks(self, *arguments)

        return answer

    swarm_of(4, story)


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("overlap_steps", [0, 3])
def test_who_took_a_bad_step_sits_the_sync_out_or_leaves(leave, overlap_steps):
    async def story(swarm):
        victim = follower(swarm, await swarm.when_leader("offers"))
        train, bad = victim.trainer.train, swarm.newest().state.sync + 2

        async def spoilt(plan, final=None):
            result = await train(plan, final)
            return dataclasses.replace(result, fault="a bad step", leave=leave) if plan.sync == bad else result

        victim.trainer.train = spoilt
        await swarm.until(lambda: swarm.newest().state.sync > bad + 2)
        assert victim.name not in swarm.counted(bad) and len(swarm.counted(bad)) == 3
        assert (victim.name in swarm.counted(bad + 2)) != leave
        assert (victim.peer in swarm.newest().state.peers()) != leave
        assert any("a bad step; this node" in line for line in swarm.trace)
        victim.gone = leave
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, overlap_steps=overlap_steps)


def test_a_sync_that_nobody_can_offer_for_is_skipped():
    async def story(swarm):
        sync = swarm.newest().state.sync + 1
        for node in swarm.live():
            node.trainer.spoiled_sync = sync
        await swarm.until(lambda: swarm.newest().state.sync > sync + 1, 120)
        assert swarm.counted(sync) == [] and len(swarm.counted(sync + 1)) == 3
        await swarm.finish(LIMIT_S)

    swarm_of(3, story)
