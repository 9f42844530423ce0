"""Gather: contributions themselves are the blobs, weighed in the entry; no owner, no second encoding."""

import torch
from stories import follower, swarm_of

from decentra.config import CodecConfig
from decentra.ledger.apply import averaged
from decentra.outer.average import coefficient

LIMIT_S = 300.0
GATHER = CodecConfig(aggregate="gather")


def test_a_gathering_swarm_counts_everybody_and_sums_in_the_order_of_senders():
    async def story(swarm):
        entry = swarm.entry_of(0)
        machine, store = swarm.run.machine, swarm.member(0).ports.store
        assert [c.sender for c in entry.counted] == sorted(n.peer for n in swarm.nodes)
        (total,) = entry.sums
        decoded = []
        for term in total.terms:
            out = torch.empty(machine.fragments[0].num_chunks, 4096)
            packed = torch.frombuffer(bytearray(store.blob(term.blob)), dtype=torch.uint8).view(len(out), -1)
            machine.codecs["int8"].decode(packed, out)
            decoded.append(out.flatten() * coefficient(term.coefficient_bits))
        found = torch.cat([block.clone() for _, block in averaged(machine, machine.fragments[0], entry, store.blob)])
        assert torch.equal(found, decoded[0] + decoded[1] + decoded[2])
        await swarm.finish(LIMIT_S)

    swarm_of(3, story, codec=GATHER)


def test_a_contribution_held_by_two_others_is_counted_though_its_sender_dies():
    async def story(swarm):
        victim = swarm.nodes[3]
        await swarm.until(lambda: victim.member.own is not None, step_s=0.001)
        sync = victim.member.state.sync
        root = victim.member.own.root

        def holders():
            return [n for n in swarm.live() if n is not victim and n.member.parts.whole(root) is not None]

        await swarm.until(lambda: len(holders()) >= 2, step_s=0.001)
        swarm.kill(victim)
        await swarm.until(lambda: swarm.newest().state.sync > sync)
        assert victim.name in swarm.counted(sync)
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, codec=GATHER)


def test_a_leader_that_dies_while_it_gathers_is_followed_by_another():
    async def story(swarm):
        leader = await swarm.when_leader("votes")
        r = leader.member.state.r
        swarm.kill(leader)
        await swarm.until(lambda: swarm.newest().state.r > r)
        swarm.boot(leader)
        await swarm.until(lambda: leader.member is not None)
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, codec=GATHER)


def test_two_members_gather_what_each_sends_the_other():
    async def story(swarm):
        assert swarm.counted(0) == ["n0", "n1"]
        assert follower(swarm, swarm.nodes[0]).name == "n1"
        await swarm.finish(LIMIT_S)

    swarm_of(2, story, codec=GATHER)
