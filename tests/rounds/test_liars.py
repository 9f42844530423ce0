"""Members that lie, each in its own way: named, left out where it matters, and no one else stops."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

import pytest
import torch
from stories import Lying, tell

from decentra.config import CodecConfig
from decentra.errors import PeerFault, RefusedError
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner
from decentra.ledger import chain
from decentra.ledger.chain import digest
from decentra.rounds import ahead, bounds, contribute, exchange, lead, records
from decentra.rounds.contribution import cut
from decentra.rounds.view import MAX_ANNOUNCED_SAMPLES, leader_order
from decentra.wire.v1 import rounds_pb2, state_pb2
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 300.0
NAN = b"\0\0\xc0\x7f"
TOPK = CodecConfig(up="topk", aggregate="gather", feedback=0.95)


def swarm_of(count, story, **settings):
    """Play `story(swarm)` once `count` members have committed a sync; then the run must still end well."""

    async def whole(swarm):
        await swarm.start(count)
        await swarm.until(lambda: swarm.newest().state.sync >= 1, what="the first sync")
        await story(swarm)
        await swarm.finish(LIMIT_S)

    return play(Swarm(seed=23, **{"start_members": count, "stop_syncs": 6, **settings}), whole)


# -- contributions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "where", "what"),
    [
        (CodecConfig(), slice(0, 4), NAN),
        (CodecConfig(aggregate="gather"), slice(0, 4), NAN),
        (TOPK, slice(0, 4), NAN),
        (TOPK, slice(8, 24), b"\xff" * 16),
        (dataclasses.replace(TOPK, aggregate="reduce"), slice(40, 88), b"\0" * 48),
    ],
    ids=["reduce int8", "gather int8", "topk level", "topk indices", "reduce topk"],
)
def test_a_contribution_that_holds_nan_or_malformed_chunks_is_left_out_by_name(monkeypatch, codec, where, what):
    liar = []
    encode = contribute._encode

    def poisoned(member, fragment):
        made = encode(member, fragment)
        if member.peer not in liar:
            return made
        made.packed[0, where] = torch.frombuffer(bytearray(what), dtype=torch.uint8)
        blocks, digests, root = cut(made.packed)
        return dataclasses.replace(made, blocks=blocks, block_digests=digests, blocks_digest=root)

    monkeypatch.setattr(contribute, "_encode", poisoned)

    async def story(swarm):
        liar.append(swarm.nodes[2].peer)
        swarm.watch.liars.add(swarm.nodes[2].peer)
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync > sync + 1, LIMIT_S)
        assert swarm.counted(sync) == swarm.counted(sync + 1) == ["n0", "n1", "n3"]
        assert any(f"the contribution of {liar[0][:8]} holds NaN or infinity" in line for line in swarm.trace)
        assert all(bool(torch.isfinite(m.tensors.anchor).all()) for m in swarm.members())
        liar.clear()

    swarm_of(4, story, codec=codec)


def test_a_leader_that_gathers_malformed_bytes_is_refused_by_name(monkeypatch):
    lies, gathered = [], lead._gathered

    async def lied(member, offers):
        (total,) = await gathered(member, offers)
        if not lies:
            return (total,)
        first, *others = total.terms
        blob = member.ports.store.put_blob(b"\xff" * len(member.ports.store.blob(first.blob)), member.state.r)
        return (dataclasses.replace(total, terms=(dataclasses.replace(first, blob=blob), *others)),)

    monkeypatch.setattr(lead, "_gathered", lied)

    def said(swarm):
        return any("it counts the contribution of" in line and "which holds NaN or infinity" in line for line in swarm.trace)

    async def story(swarm):
        lies.append(True)
        await swarm.until(lambda: said(swarm), LIMIT_S)
        lies.clear()
        sync = swarm.newest().state.sync
        await swarm.until(lambda: swarm.newest().state.sync > sync, LIMIT_S)
        assert all(bool(torch.isfinite(m.tensors.anchor).all()) for m in swarm.members())

    swarm_of(4, story, codec=TOPK)


def test_a_contribution_whose_blocks_have_another_size_is_left_out_by_name(monkeypatch):
    liar, encode = [], contribute._encode

    def shortened(member, fragment):
        made = encode(member, fragment)
        if member.peer not in liar:
            return made
        blocks = tuple(block[:-1] for block in made.blocks)
        digests = tuple(chain.bytes_block(block) for block in blocks)
        return dataclasses.replace(made, blocks=blocks, block_digests=digests, blocks_digest=chain.tree(digests))

    monkeypatch.setattr(contribute, "_encode", shortened)
    monkeypatch.setattr(ahead, "average_ahead", lambda member: asyncio.sleep(LIMIT_S))  # a liar would stumble over its own blocks

    async def story(swarm):
        liar.append(swarm.nodes[2].peer)
        swarm.watch.liars.add(swarm.nodes[2].peer)
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync > sync, LIMIT_S)
        assert "n2" not in swarm.counted(sync)
        assert any(f"{liar[0][:8]}: block" in line and "of a contribution has" in line for line in swarm.trace)
        liar.clear()

    swarm_of(4, story)


# -- votes and promises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["garbage", "another entry", "another voter", "another ballot"])
def test_what_is_no_vote_for_the_proposal_is_not_counted_and_the_leader_lives(lie):
    def answer(swarm, node):
        def lied(sender, message, reply):
            if reply.WhichOneof("kind") != "accept" or not reply.accept.HasField("vote"):
                return None
            vote = records.open_vote(swarm.verifier, reply.accept.vote.SerializeToString())
            changes = {"another entry": {"entry_digest": b"?" * 32}, "another ballot": {"ballot": vote.ballot + 1}}.get(lie, {})
            signer = IdentitySigner(Identity.from_seed(digest("test/identity", b"x")) if lie == "another voter" else node.identity)
            signed = signer.sign(records.DOMAIN_VOTE, records.vote_payload(dataclasses.replace(vote, **changes)))
            reply.accept.vote.CopyFrom(records.to_signed(signed))
            if lie == "garbage":
                reply.accept.vote.signature = b"?" * 64
            return reply

        return lied

    async def story(swarm):
        handlers = [Lying(node, answer(swarm, node)) for node in swarm.nodes[2:3]]
        r = swarm.newest().state.r
        await swarm.until(lambda: swarm.newest().state.r >= r + 3)
        assert "proposal" in handlers[0].asked and all(h.attempts == 1 for h in list(swarm.newest().history)[-2:])

    swarm_of(4, story)


def test_a_promise_that_shows_what_no_member_can_have_accepted_forces_nothing():
    async def story(swarm):
        leader = await swarm.when_leader("votes")
        r, ballots = leader.member.state.r, itertools.cycle((2**64 - 1, 0))
        order = leader_order(leader.member.hash, leader.member.state.members)
        liar = next(n for n in swarm.live() if n.peer not in order[:2] and n.number)

        def lied(sender, message, reply):
            if reply.WhichOneof("kind") != "promise":
                return None
            reply.promise.accepted_ballot, reply.promise.accepted_entry = next(ballots), b"\xff\xff"
            return reply

        handler = Lying(liar, lied)
        swarm.kill(leader)
        await swarm.until(lambda: swarm.newest().state.r > r)
        assert "prepare" in handler.asked and swarm.entry(r).r == r
        report = next(h for h in swarm.newest().history if h.entry == r)
        assert report.attempts == 2, "the lie cost no further attempt"
        swarm.boot(leader)

    swarm_of(5, story)


# -- attempts -----------------------------------------------------------------------------------------------------------


def test_nobody_is_moved_to_an_attempt_that_waiting_could_not_reach():
    async def story(swarm):
        node, liar = swarm.nodes[0], swarm.nodes[1]
        member = node.member
        await swarm.until(lambda: member.state.r == liar.member.state.r)
        order = leader_order(member.hash, member.state.members)
        attempt = next(b for b in range(2**64 - 1, 0, -1) if order[b % len(order)] == liar.peer)
        with pytest.raises(RefusedError, match="is absurd"):
            await tell(swarm, node, liar.peer, prepare=rounds_pb2.Prepare(r=member.state.r, ballot=attempt))
        beat = rounds_pb2.Heartbeat(
            r=member.state.r, state_hash=member.hash, attempt=attempt, member=records.to_member(liar.member.me)
        )
        with pytest.raises(RefusedError, match="is absurd"):
            await tell(swarm, node, liar.peer, heartbeat=beat)
        assert member.attempt == 0 and member.vote().promised == 0
        reply = rounds_pb2.HeartbeatReply(r=member.state.r, attempt=2**64 - 1, over=True)
        Lying(liar, lambda sender, message, true: rounds_pb2.Reply(heartbeat=reply) if true.HasField("heartbeat") else None)
        await swarm.until(lambda: swarm.newest().state.sync >= 4, LIMIT_S)
        assert member.attempt <= 8 * bounds.MAX_ATTEMPT_JUMP
        liar.transport.handler = liar.transport.handler.server

    swarm_of(3, story)


def test_a_stranger_does_not_move_a_lonely_member_to_another_attempt():
    async def story(swarm):
        node, stranger = swarm.nodes[0], swarm.new_node()
        member = node.member
        me = dataclasses.replace(member.me, peer=stranger.peer, incarnation=5)
        beat = rounds_pb2.Heartbeat(r=member.state.r, state_hash=member.hash, attempt=2**40, member=records.to_member(me))
        with pytest.raises(RefusedError, match="says that it is a member of the view"):
            await tell(swarm, node, stranger.peer, heartbeat=beat)
        assert member.attempt == 0 and not member.beats

    swarm_of(1, story)


# -- being ahead --------------------------------------------------------------------------------------------------------


def test_a_member_that_says_it_is_ahead_again_and_again_is_chased_ever_more_rarely():
    async def story(swarm):
        liar, victim = swarm.nodes[2], swarm.nodes[1]
        handler = Lying(liar, lambda sender, message, reply: None)
        start, rounds = swarm.now(), victim.member.state.r
        while swarm.now() < start + 40.0:
            beat = rounds_pb2.Heartbeat(r=2**63, state_hash=b"?" * 32, member=records.to_member(liar.member.me))
            await tell(swarm, victim, liar.peer, heartbeat=beat)
            await asyncio.sleep(0.1)
        assert 1 <= handler.asked.count("entries") <= 20, "400 claims"
        assert victim.member.state.r >= rounds + 5
        liar.transport.handler = handler.server

    swarm_of(4, story, stop_syncs=30)


# -- newcomers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"announced_samples": 2**63}, "announces 9223372036854775808 samples a sync"),
        ({"announced_samples": MAX_ANNOUNCED_SAMPLES + 1}, "samples a sync"),
        ({"up_bytes_per_s": 2**63}, "bytes/s up"),
        ({"incarnation": 2**64 - 1}, "announces incarnation"),
    ],
)
def test_a_newcomer_with_absurd_numbers_is_not_admitted_and_told_why(change, words):
    async def story(swarm):
        leader = await swarm.when_leader("offers")
        stranger = swarm.new_node()
        me = dataclasses.replace(leader.member.me, **{"peer": stranger.peer, "incarnation": 5, **change})
        member = leader.member
        beat = rounds_pb2.Heartbeat(r=member.state.r, state_hash=member.hash, member=records.to_member(me), newcomer=True)
        with pytest.raises(RefusedError, match=words):
            await tell(swarm, leader, stranger.peer, heartbeat=beat)
        assert stranger.peer not in member.beats
        swarm.nodes.remove(stranger)

    swarm_of(3, story)


def test_a_crowd_of_newcomers_is_kept_up_to_a_bound_and_the_others_are_asked_to_wait():
    async def story(swarm):
        leader = await swarm.when_leader("offers")
        member, r = leader.member, leader.member.state.r
        for number in range(bounds.MAX_NEWCOMERS + 1):
            me = dataclasses.replace(member.me, peer=f"newcomer{number:03}", incarnation=5)
            beat = rounds_pb2.Heartbeat(r=r, state_hash=member.hash, member=records.to_member(me), newcomer=True, leaving=True)
            if number < bounds.MAX_NEWCOMERS:
                await tell(swarm, leader, me.peer, heartbeat=beat)
            else:
                with pytest.raises(RefusedError, match="64 newcomers wait already"):
                    await tell(swarm, leader, me.peer, heartbeat=beat)
        assert member.state.r == r

    swarm_of(3, story)


# -- what is cheap to ask -----------------------------------------------------------------------------------------------


def test_status_is_made_anew_only_so_often_and_strangers_hand_on_no_records():
    async def story(swarm):
        node, stranger, other = swarm.nodes[0], swarm.new_node(), swarm.new_node()
        first = (await tell(swarm, node, stranger.peer, status=rounds_pb2.StatusQuery())).status.json
        assert (await tell(swarm, node, other.peer, status=rounds_pb2.StatusQuery())).status.json is not None
        assert node.member.status_said[1] == first
        await asyncio.sleep(1.0)
        assert (await tell(swarm, node, other.peer, status=rounds_pb2.StatusQuery())).status.json != first
        ports, _ = swarm._ports(other)
        record = swarm._record(other, ports)
        with pytest.raises(RefusedError, match=f"a record of {other.peer[:8]} came from {stranger.peer[:8]}, which is no member"):
            await tell(swarm, node, stranger.peer, records=rounds_pb2.Records(records=[record]))
        assert other.peer not in await node.member.ports.directory.records()
        assert (await tell(swarm, node, other.peer, records=rounds_pb2.Records(records=[record]))).HasField("records")
        with pytest.raises(RefusedError, match="17 records in one message"):
            await tell(swarm, node, other.peer, records=rounds_pb2.Records(records=[record] * 17))
        await ports.transport.close()
        other.transport = None
        del swarm.nodes[3:]

    swarm_of(3, story)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (rounds_pb2.Reply(head=state_pb2.Head(r=5)), "its reply to a heartbeat is a head"),
        (rounds_pb2.Reply(), "its reply to a heartbeat is a None"),
        (rounds_pb2.Reply(heartbeat=rounds_pb2.HeartbeatReply(heard=[""] * 200_000)), "to a heartbeat is over the limit of"),
    ],
)
def test_a_reply_of_another_kind_or_size_is_its_senders_fault(reply, words):
    async def story(swarm):
        asker, liar = swarm.member(1), swarm.nodes[2]
        handler = Lying(liar, lambda sender, message, true: reply)
        with pytest.raises(PeerFault, match=words):
            await asker.call(liar.peer, exchange.heartbeat(asker), 5.0)
        liar.transport.handler = handler.server

    swarm_of(3, story)
