"""Getting a state over slow links: what others pay for it, what a cut costs, what is kept for whom, which way is cheaper."""

import asyncio

import numpy as np
import pytest
import torch
from stories import swarm_of

from decentra import build
from decentra.codec.base import decode_then_add, refuse_not_finite
from decentra.errors import SetupError
from decentra.ledger.chain import CHUNK_BYTES
from decentra.ledger.files import MemoryFiles
from decentra.ledger.log import EntryLog
from decentra.rounds.pacing import PIN_S
from decentra.transport.base import MAX_CALL_BYTES
from decentra.types import CHUNK_ELEMENTS
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2
from sims.experiments.protocol_fuzz.machines import RATE_BYTES_PER_S
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 900.0
CHUNKS = 60
STATE_BYTES = 2 * CHUNKS * CHUNK_BYTES
SLOW = 100e3
"""Bytes a second of every link: a snapshot of 60 chunks then takes two rounds and more."""


def slow_swarm(count, story, **settings):
    """Play `story(swarm)` on slow links once `count` members have committed two syncs."""

    async def whole(swarm):
        await swarm.start(count)
        await swarm.until(lambda: swarm.newest().state.sync >= 2, LIMIT_S, "two syncs")
        await story(swarm)

    usual = {"chunks": CHUNKS, "start_members": count, "stop_syncs": 8, "rate": SLOW, "snapshot_every": 4}
    return play(Swarm(seed=7, **{**usual, **settings}), whole)


def down_bytes(node):
    return node.transport.counters()[1]


def joined(node):
    return node.member is not None


def said(swarm, node, words):
    return [line for line in swarm.trace if line.split(" ", 2)[1:] and f" {node.name} " in line and words in line]


async def begin(swarm, blocks=5):
    """A new node that has fetched some blocks of the snapshot and is not done."""
    node = swarm.new_node()
    swarm.boot(node)
    await swarm.until(lambda: len(arrived(node)) >= blocks, LIMIT_S, "the first blocks", 0.01)
    assert not joined(node)
    return node


def arrived(node):
    return [name for name in node.files.names("incoming") if name.rsplit("/", 1)[1].isdigit()]


# -- what others pay ----------------------------------------------------------------------------------------------------


def test_a_joiner_costs_the_others_at_most_one_round_and_a_fifth_of_their_round_time():
    times, left_out, spans = {}, {}, []

    async def story(swarm, with_joiner):
        start = swarm.now()
        if with_joiner:
            node = swarm.new_node()
            swarm.boot(node)
            await swarm.until(lambda: joined(node), LIMIT_S)
            spans.append((start, swarm.now()))
        await swarm.until(lambda: swarm.newest().state.sync >= 6, LIMIT_S)
        reports = [h for h in swarm.member(0).history if h.sync is not None and h.at_s > start]
        times[with_joiner] = [(h.at_s, h.times_s["round"]) for h in reports]
        left_out[with_joiner] = [h.sync for h in reports if {n.peer for n in swarm.nodes[:3]} & set(h.left_out)]
        await swarm.finish(LIMIT_S)

    for with_joiner in (False, True):
        slow_swarm(3, lambda swarm, joiner=with_joiner: story(swarm, joiner))
    begun, ended = spans[0]
    during = [took for at, took in times[True] if at - took < ended]
    alone = max(took for _, took in times[False])
    assert ended - begun > 2 * alone and len(during) >= 3, "the download takes several rounds"
    assert max(during) <= 1.2 * alone
    assert len(left_out[True]) <= 1 and left_out[False] == []


# -- cuts ---------------------------------------------------------------------------------------------------------------


def test_blocks_that_came_before_a_cut_of_the_joiners_link_are_not_fetched_twice():
    async def story(swarm):
        node = await begin(swarm, 30)
        swarm.isolate(node)
        await asyncio.sleep(60.0)
        assert not joined(node) and 30 <= len(arrived(node)) < 2 * CHUNKS
        assert said(swarm, node, "MB to come at 0.00 MB/s"), "whom it waits for, and for how much"
        swarm.heal()
        await swarm.until(lambda: joined(node), LIMIT_S)
        assert down_bytes(node) < 1.15 * STATE_BYTES and not arrived(node)
        await swarm.finish(LIMIT_S)

    slow_swarm(3, story)


def test_blocks_that_came_outlive_the_joiners_process_and_a_changed_one_is_fetched_again():
    async def story(swarm):
        node = await begin(swarm, 40)
        first = down_bytes(node)
        swarm.kill(node)
        kept = arrived(node)
        node.files.write(kept[3], bytes(CHUNK_BYTES))
        swarm.boot(node)
        await swarm.until(lambda: joined(node), LIMIT_S)
        # What was under way when it died, one block a donor and direction, may come again.
        assert first + down_bytes(node) < 1.2 * STATE_BYTES
        assert said(swarm, node, f"{len(kept) - 1} blocks are here already")
        assert not node.files.names("incoming")
        await swarm.finish(LIMIT_S)

    slow_swarm(3, story)


def test_a_donor_that_dies_is_replaced_and_all_donors_gone_for_a_while_are_waited_for():
    async def story(swarm):
        node = await begin(swarm, 20)
        swarm.kill(swarm.nodes[2])
        await swarm.until(lambda: len(arrived(node)) >= 30, LIMIT_S)
        for donor in swarm.nodes[:2]:
            swarm.kill(donor)
        await asyncio.sleep(150.0)
        assert not joined(node) and said(swarm, node, "what came is kept, asking again")
        for donor in swarm.nodes[:3]:
            swarm.boot(donor)
        await swarm.until(lambda: joined(node), LIMIT_S)
        assert down_bytes(node) < 1.25 * STATE_BYTES
        await swarm.finish(LIMIT_S)

    slow_swarm(3, story)


def test_a_snapshot_begun_that_nobody_holds_any_more_gives_way_to_the_newest():
    async def story(swarm):
        node = await begin(swarm, 20)
        begun = node.files.names("incoming")[0].split("/")[1]
        swarm.kill(node)
        await swarm.until(lambda: all(int(begun) not in m.ports.store.snapshots() for m in swarm.members()), LIMIT_S)
        swarm.boot(node)
        await swarm.until(lambda: joined(node), LIMIT_S)
        assert min(node.member.ports.store.snapshots()) > int(begun) and not node.files.names("incoming")
        await swarm.close()

    slow_swarm(3, story, stop_syncs=0)


def test_a_donor_whose_disk_changed_a_byte_says_so_and_others_give_the_snapshot():
    async def story(swarm):
        files = swarm.nodes[2].member.ports.store.files
        for name in files.names("snapshots"):
            if "anchor" in name:
                files._files[name] = b"\0" + files._files[name][1:]
        node = swarm.new_node()
        swarm.boot(node)
        await swarm.until(lambda: joined(node), LIMIT_S)
        assert said(swarm, swarm.nodes[2], "cannot give an object away: snapshots/")
        assert said(swarm, swarm.nodes[2], "is damaged on disk; move the state directory away and join again")
        await swarm.finish(LIMIT_S)

    slow_swarm(3, story, stop_syncs=4)


def test_a_member_whose_disk_is_full_says_so_and_the_others_go_on():
    async def story(swarm):
        node = swarm.nodes[2]
        files = node.member.ports.store.files

        def full(name, *data):
            raise SetupError(f"cannot write {name}: the disk is full; free some space")

        files.write = files.append = full
        node.task.remove_done_callback(swarm._ended)
        r = node.member.state.r
        await swarm.until(lambda: node.task.done(), LIMIT_S)
        with pytest.raises(SetupError, match=r"cannot write (log\.bin|offer\.bin|blobs/\w+\.\d+): the disk is full; free some space"):
            node.task.result()
        assert node.member.state.r <= r + 1
        node.task = None
        swarm.kill(node)
        await swarm.finish(LIMIT_S)

    slow_swarm(3, story, stop_syncs=5)


def test_an_answer_with_entries_of_any_size_stays_under_the_limit_of_a_call(monkeypatch):
    async def story(swarm):
        donor, node = swarm.nodes[0], swarm.nodes[1]
        store = donor.member.ports.store
        big = swarm_pb2.CertifiedEntry(entry=bytes(3 << 19)).SerializeToString()
        held = [(r, big) for r in range(100, 140)]
        monkeypatch.setattr(type(store), "oldest_entry", lambda self: 100)
        monkeypatch.setattr(type(store), "entries", lambda self, first, limit, cap: EntryLog.entries(log, first, limit, cap))
        log = EntryLog(MemoryFiles())
        log._records = held
        query = rounds_pb2.Request(entries=state_pb2.EntriesQuery(first_r=101, limit=32))
        reply = await node.member.call(donor.peer, query, 60.0)
        assert len(reply.entries.entries) == 2 and reply.ByteSize() <= MAX_CALL_BYTES
        monkeypatch.undo()
        await swarm.close()

    swarm_of(2, story, rate=1e9, chunks=2)


# -- pins and retention -------------------------------------------------------------------------------------------------


def test_a_snapshot_is_kept_while_somebody_pulls_it_and_shortly_after_and_no_longer():
    async def story(swarm):
        await asyncio.sleep(PIN_S)  # nobody pulls any more what the first members began with
        node = await begin(swarm, 2)
        node.slow(5 * RATE_BYTES_PER_S / SLOW)
        begun = int(node.files.names("incoming")[0].split("/")[1])
        store = swarm.member(0).ports.store
        await swarm.until(lambda: len([r for r in store.snapshots() if r > begun]) >= 2, LIMIT_S, "it is older than the last two")
        assert begun in store.snapshots() and len(store.snapshots()) == 3 and not joined(node)
        assert store.entries(begun, 1), "and what follows it"
        await swarm.until(lambda: joined(node), LIMIT_S)
        assert down_bytes(node) < 1.25 * STATE_BYTES
        swarm.kill(node)
        await asyncio.sleep(PIN_S)
        newest = store.snapshots()[-1]
        await swarm.until(lambda: store.snapshots()[-1] > newest, LIMIT_S)
        assert len(store.snapshots()) == 2 and begun not in store.snapshots()
        await swarm.close()

    slow_swarm(3, story, snapshot_every=2, stop_syncs=0)


def test_the_log_is_cut_off_at_the_oldest_snapshot_kept_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr("decentra.ledger.log.MIN_WASTE_BYTES", 1)

    async def story(swarm):
        await swarm.until(lambda: swarm.newest().state.r >= 40, LIMIT_S)
        for member in swarm.members():
            store = member.ports.store
            held = [r for r, _ in store.entries(store.oldest_entry(), 10**6)]
            assert held[0] <= store.snapshots()[0] and held[-1] >= 38
            assert held[0] > 20 and len(store.files.read("log.bin")) < 3 * 16 * 8000
        swarm.kill(swarm.nodes[1])
        swarm.boot(swarm.nodes[1])
        await swarm.finish(LIMIT_S)

    swarm_of(3, story, stop_syncs=42, snapshot_every=4)


# -- a peer that slept ----------------------------------------------------------------------------------------------------


class Signs:
    """One bit an element, in int8's place: a codec with which a replay of many entries is cheaper than a snapshot."""

    name = "int8"
    chunk_bytes = 4 + CHUNK_ELEMENTS // 8

    def encode(self, chunks, out):
        refuse_not_finite(chunks)
        scale = chunks.abs().mean(dim=1, keepdim=True).numpy().astype("<f4")
        bits = np.packbits((chunks > 0).numpy(), axis=1)
        out.copy_(torch.from_numpy(np.concatenate([scale.view(np.uint8), bits], axis=1)))

    def decode(self, packed, out):
        raw = packed.numpy()
        scale = torch.from_numpy(raw[:, :4].copy().view("<f4"))
        signs = torch.from_numpy(np.unpackbits(raw[:, 4:], axis=1).astype(np.float32)) * 2 - 1
        out.copy_(signs * scale)

    def add(self, packed, factor, total, scratch):
        decode_then_add(self, packed, factor, total, scratch)


@pytest.mark.parametrize("cheap_codec", [True, False])
def test_a_peer_asleep_for_twenty_rounds_catches_up_the_cheaper_way_and_says_which(cheap_codec, monkeypatch):
    if cheap_codec:
        honest = build.codecs()
        monkeypatch.setattr(build, "codecs", lambda: {**honest, "int8": Signs()})

    async def story(swarm):
        node = swarm.nodes[3]
        swarm.isolate(node)
        asleep_at = node.member.state.r
        await swarm.until(lambda: swarm.newest().state.r >= asleep_at + 20, LIMIT_S)
        before = down_bytes(node)
        adopted = []
        honest_adopt = node.member.adopt

        async def adopt(snapshot, tensors):
            adopted.append(snapshot.r)
            return await honest_adopt(snapshot, tensors)

        node.member.adopt = adopt
        swarm.heal()
        await swarm.until(lambda: node.member.state.r >= asleep_at + 20, LIMIT_S)
        moved = down_bytes(node) - before
        chosen = said(swarm, node, "entries behind; ")
        if cheap_codec:
            assert not adopted and "replaying: the entries are 0." in chosen[0] and "the snapshot of entry" in chosen[0]
            assert moved < STATE_BYTES
        else:
            assert len(adopted) == 1 and "taking the snapshot: the entries are" in chosen[0]
            assert moved < 20 * CHUNKS * 4160, "less than the blobs of twenty entries"
        swarm.watch.check_tensors()
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, stop_syncs=26, snapshot_every=16, chunks=CHUNKS)


def test_a_peer_that_missed_a_few_entries_replays_from_another_member_when_one_dies():
    async def story(swarm):
        node = swarm.nodes[3]
        swarm.isolate(node)
        asleep_at = node.member.state.r
        await swarm.until(lambda: swarm.newest().state.r >= asleep_at + 6, LIMIT_S)
        for other in swarm.nodes[:3]:
            swarm.network.heal(other.peer, node.peer)
            swarm.network.heal(node.peer, other.peer)
        node.member.fall_behind(swarm.nodes[1].peer)
        await swarm.until(lambda: node.member.state.r >= asleep_at + 2, LIMIT_S, step_s=0.001)
        swarm.kill(swarm.nodes[1])
        await swarm.until(lambda: node.member.state.r >= asleep_at + 6, LIMIT_S)
        swarm.boot(swarm.nodes[1])
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, stop_syncs=12, snapshot_every=16, chunks=CHUNKS)
