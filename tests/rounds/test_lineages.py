"""Forced views and the lineage rule: whole swarms on the virtual clock."""

import asyncio

import pytest
from forking import recover, stop_and_recover
from stories import swarm_of

from decentra.errors import PeerFault, RefusedError
from decentra.identity.signing import IdentitySigner
from decentra.ledger.store import Store, Vote
from decentra.rounds.forks import DOMAIN_FORCED, fork_of
from decentra.rounds.meeting import Crossing
from decentra.wire.v1 import rounds_pb2, swarm_pb2

LIMIT_S = 600.0


def in_lineage(nodes, name):
    return all(n.member is not None and n.member.state.lineage == name for n in nodes)


def asides(node):
    """Folders of ledgers that a node has left."""
    return sorted({"/".join(name.split("/")[:2]) for name in node.files.names("aside")})


async def all_at_sync(swarm, sync):
    """Wait until every member has applied that many syncs."""
    await swarm.until(lambda: all(m.state.sync >= sync for m in swarm.members()))


async def lose(swarm, nodes):
    """Kill these at once, with their disks kept, after the next sync."""
    sync = swarm.newest().state.sync + 1
    await swarm.until(lambda: swarm.newest().state.sync >= sync)
    for node in nodes:
        swarm.kill(node)


# -- more than half gone ------------------------------------------------------------------------------------------------


def test_when_more_than_half_are_gone_for_good_a_forced_view_lets_the_rest_go_on():
    async def story(swarm):
        stay, gone = swarm.nodes[:2], swarm.nodes[2:]
        await lose(swarm, gone)
        await asyncio.sleep(10.0)
        before = swarm.newest().state
        await asyncio.sleep(20.0)
        assert swarm.newest().state == before and any("quorum" in n.member.waiting_for for n in stay), "the run pauses"
        name = await stop_and_recover(swarm, stay[0], stay)
        await swarm.until(lambda: in_lineage(stay, name), 60.0, "both in the new lineage")
        state, returned = stay[0].member.state, swarm.entry(before.r).returned
        assert state.peers() == tuple(n.peer for n in stay)
        assert returned == {n.peer: before.leases[n.peer] for n in gone} and not set(returned) & set(state.leases)
        await swarm.finish(LIMIT_S)
        assert swarm.newest().state.sync == 8 and [f.name for f in swarm.newest().state.forks] == [name]

    swarm_of(5, story)


def test_a_survivor_a_few_entries_behind_replays_up_to_the_forced_view_and_goes_on():
    async def story(swarm):
        ahead, behind, gone = swarm.nodes[0], swarm.nodes[1], swarm.nodes[2:]
        swarm.kill(behind)
        r = swarm.newest().state.r
        await swarm.until(lambda: swarm.newest().state.r >= r + 2)
        for node in gone:
            swarm.kill(node)
        name = await stop_and_recover(swarm, ahead, [ahead, behind])
        swarm.boot(behind)
        await swarm.until(lambda: in_lineage([behind], name), 60.0)
        assert not asides(behind), "it replayed; nothing was left aside"
        await swarm.finish(LIMIT_S)

    swarm_of(5, story)


def test_a_survivor_that_is_ahead_of_the_forced_view_leaves_its_last_entry_aside_and_follows():
    async def story(swarm):
        behind, ahead, gone = swarm.nodes[0], swarm.nodes[1], swarm.nodes[2:]
        swarm.isolate(behind)
        r = behind.member.state.r
        await swarm.until(lambda: ahead.member.state.r >= r + 2)
        for node in gone:
            swarm.kill(node)
        # The oldest is the one that is ahead: neither is a quorum of the forced view alone.
        name = await stop_and_recover(swarm, behind, [behind, ahead])
        swarm.heal()
        await swarm.until(lambda: in_lineage([ahead, behind], name), 60.0)
        assert len(asides(ahead)) == 1 and asides(ahead)[0].startswith("aside/first-")
        await swarm.finish(LIMIT_S)
        assert not {n.peer for n in gone} & set(swarm.newest().state.peers())

    swarm_of(5, story)


def test_the_gone_that_come_back_without_a_quorum_join_the_new_lineage_as_newcomers():
    async def story(swarm):
        stay, gone = swarm.nodes[:2], swarm.nodes[2:]
        await lose(swarm, gone)
        name = await stop_and_recover(swarm, stay[0], stay)
        sync = swarm.newest().state.sync + 2
        await swarm.until(lambda: stay[1].member.state.sync >= sync, 100.0)
        for node in gone[:2]:
            swarm.boot(node)
        await swarm.until(lambda: in_lineage(gone[:2], name) and all(n.member.in_view() for n in gone[:2]), 60.0)
        state = swarm.newest().state
        assert set(state.peers()[2:]) == {n.peer for n in gone[:2]}, "as newcomers"
        await swarm.finish(LIMIT_S)
        assert {n.name for n in gone[:2]} <= set(swarm.counted(11))

    swarm_of(5, story, stop_syncs=12)


# -- lineages that meet -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("syncs", "as_what"), [(1, "still a member"), (4, "as a newcomer")])
def test_a_minority_recovered_by_mistake_comes_back_to_the_majority(syncs, as_what):
    async def story(swarm):
        minority, majority = swarm.nodes[:2], swarm.nodes[2:]
        await all_at_sync(swarm, 1)
        swarm.isolate(*minority)
        name = await stop_and_recover(swarm, minority[0], minority)
        await swarm.until(lambda: in_lineage(minority, name), 60.0)
        for node in (minority[0], majority[0]):
            sync = node.member.state.sync
            await swarm.until(lambda node=node, sync=sync: node.member.state.sync >= sync + syncs, 200.0)
        assert in_lineage(minority, name) and in_lineage(majority, "")
        swarm.heal()
        await swarm.until(lambda: in_lineage(minority, ""), 60.0, "all in the first lineage")
        assert all(len(asides(n)) == 1 and name[:16] in asides(n)[0] for n in minority)
        await swarm.until(lambda: sum("in the first lineage at" in line and as_what in line for line in swarm.trace) == 2, 60.0, as_what)
        await swarm.until(lambda: all(n.member.in_view() for n in minority), 60.0)
        last = swarm.newest().state.sync + 2
        await swarm.until(lambda: swarm.newest().state.sync > last, 60.0)
        assert {n.name for n in minority} <= set(swarm.counted(last))
        await swarm.finish(LIMIT_S)

    swarm_of(5, story, stop_syncs=24)


def test_where_both_sides_were_forced_and_act_the_one_with_more_tokens_stands():
    async def story(swarm):
        left, right = swarm.nodes[:2], swarm.nodes[2:]
        await all_at_sync(swarm, 1)
        swarm.isolate(*left)
        lefts = await stop_and_recover(swarm, left[0], left)
        await swarm.until(lambda: in_lineage(left, lefts), 60.0)
        for node in right:
            swarm.kill(node)
        rights = recover(swarm, right[0], right).state.lineage
        for node in right:
            swarm.boot(node)
        await swarm.until(lambda: in_lineage(right, rights), 60.0)
        sync = right[0].member.state.sync
        await swarm.until(lambda: right[0].member.state.sync >= sync + 2, 200.0)
        tokens = {n.name: n.member.state.tokens for n in (left[0], right[0])}
        assert all(n.member.state.forks for n in swarm.live())
        swarm.heal()
        wins = lefts if tokens[left[0].name] > tokens[right[0].name] else rights
        await swarm.until(lambda: in_lineage(swarm.nodes, wins), 100.0, "all in one lineage")
        await swarm.finish(LIMIT_S)

    swarm_of(5, story, stop_syncs=14)


def test_where_no_lineage_has_a_quorum_the_node_waits_and_says_so():
    async def story(swarm):
        a, b, gone = swarm.nodes[0], swarm.nodes[1], swarm.nodes[2:]
        await lose(swarm, gone)
        swarm.cut(a, b)
        for node in (a, b):
            swarm.kill(node)
        # Each with two members that are gone: neither view has its quorum.
        first = recover(swarm, a, [a, *gone[:2]]).state.lineage
        second = recover(swarm, b, [b, *gone[1:]]).state.lineage
        for node in (a, b):
            swarm.boot(node)
        await swarm.until(lambda: a.member is not None and b.member is not None)
        swarm.heal()
        await swarm.until(lambda: sum("waits for a quorum of either" in line for line in swarm.trace) >= 2, 60.0)
        assert in_lineage([a], first) and in_lineage([b], second)
        swarm.boot(gone[2])
        await swarm.until(lambda: in_lineage([b], second) and b.member.state.r > b.member.state.forks[0].r + 1, 60.0, "one has its quorum")
        await swarm.until(lambda: in_lineage([a], second), 60.0)
        swarm.boot(gone[0])
        swarm.boot(gone[1])
        await swarm.finish(LIMIT_S)

    swarm_of(5, story)


# -- votes and refusals -------------------------------------------------------------------------------------------------


def test_votes_of_one_lineage_do_not_bind_in_another_and_are_kept():
    async def story(swarm):
        stay, gone = swarm.nodes[:2], swarm.nodes[2:]
        await lose(swarm, gone)
        node = stay[1]
        await swarm.until(lambda: "quorum" in stay[0].member.waiting_for, 60.0)
        r = node.member.state.r
        node.member.ports.store.save_vote(Vote(r, promised=9))
        Store.save_offer(node.member.ports.store, node.member.state.sync, b"signed")
        name = await stop_and_recover(swarm, stay[0], stay)
        await swarm.until(lambda: in_lineage(stay, name) and node.member.state.r > r + 1, 60.0)
        store = node.member.ports.store
        assert store.vote_in("") == Vote(r, promised=9)
        assert store.vote_in(name).promised < 9 and store.vote_in(name).lineage == name
        assert store.vote_in(name).r == node.member.state.r - 1
        await swarm.finish(LIMIT_S)
        assert node.member.me.incarnation == node.member.state.member(node.peer).incarnation

    swarm_of(5, story)


def test_a_forced_view_signed_by_no_operator_is_refused_by_name():
    async def story(swarm):
        stay, gone = swarm.nodes[:2], swarm.nodes[2:]
        await lose(swarm, gone)
        swarm.kill(stay[1])
        who = f"only an operator of run .* {stay[1].peer[:8]} is none; the founder, {swarm.nodes[0].peer}, is one"
        with pytest.raises(RefusedError, match=who):
            recover(swarm, stay[1], stay, by=stay[1])
        # Forged without that check, it is refused by who is asked to take it.
        recover(swarm, stay[1], stay)
        forged = swarm_pb2.CertifiedEntry.FromString(list(Store.open(stay[1].files)._log)[-1][1])
        forged.forced.ParseFromString(IdentitySigner(stay[1].identity).sign(DOMAIN_FORCED, forged.forced.payload))
        member, fork = stay[0].member, fork_of(forged)
        member.outlook.crossing = Crossing(fork.name, (fork,), (stay[1].peer,))
        with pytest.raises(ValueError, match="signed by a key that is no operator's"):
            await member.commit(forged.SerializeToString(), stay[1].peer)
        member.outlook.crossing = None
        assert member.state.lineage == ""
        await swarm.close()

    swarm_of(5, story)


def test_messages_of_another_lineage_are_refused_by_name():
    async def story(swarm):
        member, peer = swarm.member(1), swarm.nodes[2].peer
        request = rounds_pb2.Request(run_id=member.run.run_id, lineage=b"\1" * 32, prepare=rounds_pb2.Prepare(r=member.state.r, ballot=3))
        with pytest.raises(PeerFault, match="of lineage 01010101, this node is in the first lineage"):
            await member.ports.transport.call(peer, request.SerializeToString(), 5.0)
        assert swarm.member(2).vote().promised == 0
        await swarm.finish(LIMIT_S)

    swarm_of(3, story)
