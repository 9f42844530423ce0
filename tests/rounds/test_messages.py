"""Single messages at the wrong time, from the wrong sender or in the wrong shape: refused by name, and nothing moves."""

import asyncio
import dataclasses

import pytest

from decentra.errors import PeerFault, RefusedError
from decentra.ledger.store import Vote
from decentra.rounds import ballot, catchup, records
from decentra.rounds.founding import empty_tensors
from decentra.rounds.ports import learn_record
from decentra.rounds.view import leader_order
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 300.0


def swarm_of(count, story, **settings):
    """Play `story(swarm)` once `count` members have started; then the run must still end well."""

    async def whole(swarm):
        await swarm.start(count)
        await swarm.until(lambda: swarm.newest().state.sync >= 1, what="the first sync")
        await story(swarm)
        await swarm.finish(LIMIT_S)

    return play(Swarm(seed=11, **{"start_members": count, "stop_syncs": 6, **settings}), whole)


async def refused(call, *words):
    """The call is refused with a reason that holds all words."""
    with pytest.raises(PeerFault) as caught:
        await call
    assert all(word in caught.value.reason for word in words), caught.value.reason
    assert "internally" not in caught.value.reason


def again(member, offer, **changes):
    """A contribution like `offer` but for `changes`, signed by `member`, as the request that offers it."""
    payload = records.contribution_payload(dataclasses.replace(offer, **changes), member.run.run_id, 1.0)
    signed = member.ports.signer.sign(records.DOMAIN_OFFER, payload)
    return rounds_pb2.Request(offer=rounds_pb2.Offer(contribution=records.to_signed(signed)))


async def has_offered(swarm, number):
    """Wait until a member has offered, and a slower one keeps the sync open."""
    swarm.nodes[0].trainer.stalled_until_s = swarm.now() + 8.0
    sync = swarm.newest().state.sync
    await swarm.until(lambda: (own := swarm.member(number).own) is not None and own.sync == sync, step_s=0.01)
    return swarm.member(number)


def test_a_second_root_a_late_offer_and_a_strangers_are_refused_and_a_resend_is_not():
    async def story(swarm):
        member, peer = await has_offered(swarm, 1), swarm.nodes[2].peer
        own = member.own
        await refused(member.call(peer, again(member, own, num_steps=own.num_steps + 1), 5.0), "second root", member.peer[:8])
        await refused(member.call(peer, again(member, own, sync=own.sync - 1), 5.0), f"it is for sync {own.sync - 1}")
        await refused(member.call(peer, again(member, own, incarnation=5), 5.0), "another incarnation")
        await refused(member.call(peer, again(member, own, claim=((5, 9),)), 5.0), "prefix")
        await refused(member.call(peer, again(member, own, sender="stranger"), 5.0), "stranger"[:8])
        resend = rounds_pb2.Request(offer=rounds_pb2.Offer(contribution=records.to_signed(own.signed)))
        assert (await member.call(peer, resend, 5.0)).WhichOneof("kind") == "done"
        assert swarm.member(2).book.offers[member.peer].root == own.root

    swarm_of(3, story)


def test_what_cannot_be_read_is_refused_and_is_no_internal_error():
    async def story(swarm):
        member, peer = swarm.member(1), swarm.nodes[2].peer
        transport = member.ports.transport
        await refused(transport.call(peer, b"\xff\xff garbage", 5.0), "")
        for broken in (
            rounds_pb2.Request(commit=swarm_pb2.CertifiedEntry(entry=b"\xff\xff", certificate=b"x")),
            rounds_pb2.Request(heartbeat=rounds_pb2.Heartbeat(r=member.state.r, state_hash=member.hash)),
            rounds_pb2.Request(offer=rounds_pb2.Offer()),
        ):
            await refused(member.call(peer, broken, 5.0))
        with pytest.raises(PeerFault):
            async for _ in transport.pull(peer, b"\xff\xff", 5.0):
                pass
        pull = state_pb2.PullRequest(run_id=member.run.run_id, contribution_root=b"?" * 32, first_block=0, num_blocks=2**31)
        with pytest.raises(PeerFault, match="not held here"):
            async for _ in transport.pull(peer, pull.SerializeToString(), 5.0):
                pass

    swarm_of(3, story)


def test_only_the_leader_of_an_attempt_may_prepare_propose_or_close_it():
    async def story(swarm):
        leader = await swarm.when_leader("offers")
        member = next(n.member for n in swarm.live() if n is not leader)
        await swarm.until(lambda: len({n.member.state.r for n in swarm.live()}) == 1)
        order = leader_order(member.hash, member.state.members)
        r, attempt = member.state.r, next(b for b in range(2**31, 2**31 + 3) if order[b % 3] != member.peer)
        target = next(n for n in swarm.live() if n.member is not member)
        words = (f"attempt {attempt} is not {member.peer[:8]}'s",)
        await refused(member.call(target.peer, rounds_pb2.Request(prepare=rounds_pb2.Prepare(r=r, ballot=attempt)), 5.0), *words)
        close = rounds_pb2.Close(r=r, ballot=attempt, sync=member.state.sync, roots=[b"x"])
        await refused(member.call(target.peer, rounds_pb2.Request(close=close), 5.0), *words)
        proposal = rounds_pb2.Proposal(r=r, ballot=attempt, entry=b"")
        await refused(member.call(target.peer, rounds_pb2.Request(proposal=proposal), 5.0), *words)
        assert target.member.vote().promised == 0

    swarm_of(3, story)


def test_who_promised_a_higher_attempt_obeys_no_lower_close_or_proposal():
    async def story(swarm):
        leader = await swarm.when_leader("the reductions")
        r, sync = leader.member.state.r, leader.member.state.sync
        order = leader_order(leader.member.hash, leader.member.state.members)
        second = swarm.by_peer(order[1])
        target = next(n for n in swarm.live() if n not in (leader, second))
        swarm.cut(leader, target)
        swarm.cut(leader, second)
        prepare = rounds_pb2.Request(prepare=rounds_pb2.Prepare(r=r, ballot=1))
        promise = (await second.member.call(target.peer, prepare, 5.0)).promise
        assert promise.promised and target.member.attempt == 1
        swarm.heal()
        close = rounds_pb2.Close(r=r, ballot=0, sync=sync, roots=[o.root for o in target.member.book.offers.values()])
        await refused(leader.member.call(target.peer, rounds_pb2.Request(close=close), 5.0), "not obeyed")

    swarm_of(3, story)


def test_who_promised_a_higher_attempt_does_not_sign_a_lower_one(monkeypatch):
    composed, may_propose = [], ballot.may_propose
    monkeypatch.setattr(ballot, "may_propose", lambda vote, number, entry: composed.append(entry) or may_propose(vote, number, entry))

    async def story(swarm):
        leader = await swarm.when_leader("votes")
        r, store = leader.member.state.r, leader.member.ports.store
        order = leader_order(leader.member.hash, leader.member.state.members)
        second = swarm.by_peer(order[1])
        target = next(n for n in swarm.live() if n not in (leader, second))
        await swarm.until(lambda: store.vote.r == r and store.vote.proposed == 0, step_s=0.001)
        swarm.isolate(leader)
        prepare = rounds_pb2.Request(prepare=rounds_pb2.Prepare(r=r, ballot=1))
        promise = (await second.member.call(target.peer, prepare, 5.0)).promise
        assert promise.promised and not promise.HasField("accepted_ballot"), "nothing had reached it"
        swarm.network.heal(leader.peer, target.peer)
        swarm.network.heal(target.peer, leader.peer)
        proposal = rounds_pb2.Proposal(r=r, ballot=0, entry=composed[-1], holders=[leader.peer])
        answer = (await leader.member.call(target.peer, rounds_pb2.Request(proposal=proposal), 5.0)).accept
        assert not answer.HasField("vote") and answer.highest == 1, answer.reason
        swarm.heal()

    swarm_of(3, story)


def test_a_store_older_than_what_it_signed_neither_votes_nor_promises():
    async def story(swarm):
        node = swarm.nodes[1]
        node.member.ports.store.save_vote(Vote(node.member.state.r + 3, promised=0))
        assert not node.member.may_vote()
        r, other = node.member.state.r, swarm.member(2)
        order = leader_order(other.hash, other.state.members)
        attempt = 3 + order.index(other.peer)
        promise = (await other.call(node.peer, rounds_pb2.Request(prepare=rounds_pb2.Prepare(r=r, ballot=attempt)), 5.0)).promise
        assert not promise.promised
        await swarm.until(lambda: node.member.state.r > r + 3)
        assert node.member.may_vote()

    swarm_of(4, story)


def test_a_stranger_that_claims_to_be_ahead_is_not_believed():
    async def story(swarm):
        member, donor = swarm.member(1), swarm.nodes[2]
        stranger = swarm.new_node()
        ports, _ = swarm._ports(stranger)
        record = swarm._record(stranger, ports)
        donor.member.learn_record(record)
        for signed in (await ports.directory.records()).values():
            learn_record(ports, member.run.run_id, signed)
        beat = rounds_pb2.Heartbeat(r=10**6, state_hash=b"?" * 32, member=records.to_member(member.me))
        request = rounds_pb2.Request(heartbeat=beat, run_id=member.run.run_id)
        await ports.transport.call(member.peer, request.SerializeToString(), 5.0)
        assert member.behind is None
        await ports.transport.close()
        stranger.transport = None

    swarm_of(3, story)


def test_a_certificate_whose_giver_gives_up_half_way_is_applied_once_and_whole():
    async def story(swarm):
        leader = await swarm.when_leader("votes")
        r = leader.member.state.r
        await swarm.until(lambda: leader.member.vote().accepted_ballot >= 0, step_s=0.001)
        late = next(n for n in swarm.live() if n is not leader)
        swarm.isolate(late)
        await swarm.until(lambda: leader.member.state.r > r, step_s=0.001)
        certified, member = leader.member.last_certified, late.member
        assert member.state.r == r
        swarm.heal()
        giving = asyncio.ensure_future(member.commit(certified, leader.peer))
        await swarm.until(lambda: member.ports.store.entries(r, 1), step_s=0.001)
        giving.cancel()
        await asyncio.wait([giving])
        assert giving.cancelled() and member.state.r == r, "logged, not yet moved"
        await swarm.until(lambda: member.state.r > r, 2.0, step_s=0.001)
        assert not await member.commit(certified, leader.peer)
        swarm.watch.check_tensors()
        swarm.check()
        swarm.check()

    swarm_of(3, story, work_s=0.2)


def test_an_older_snapshot_never_replaces_a_newer_state():
    async def story(swarm):
        member, other = swarm.member(1), swarm.nodes[2]
        tensors = empty_tensors(member.run.layout)
        snapshot = await catchup.download_snapshot(member.ports, member.run, tensors, [other.peer])
        before = member.state.r
        assert snapshot.r <= before
        assert not await member.adopt(snapshot, tensors) and member.state.r >= before

    swarm_of(3, story)


def test_a_relay_whose_own_source_fails_is_refused_by_name():
    async def story(swarm):
        member, other = await has_offered(swarm, 1), swarm.nodes[2]
        root, blocks = member.own.root, member.own.num_chunks
        await swarm.until(lambda: member.peer in other.member.book.offers, step_s=0.01)
        swarm.kill(swarm.nodes[1])
        pull = state_pb2.PullRequest(run_id=swarm.run.run_id, contribution_root=root, num_blocks=blocks, relay=True)
        with pytest.raises(RefusedError, match=f"needed another peer: {member.peer[:8]}"):
            async for _ in other.transport.handler.on_pull(swarm.nodes[0].peer, pull.SerializeToString()):
                pass
        swarm.boot(swarm.nodes[1])

    swarm_of(4, story)
