"""A swarm changes its settings where a quorum wishes the same, from the next sync on, and not otherwise."""

import dataclasses

import pytest

from decentra.errors import ConfigError, RefusedError
from decentra.rounds import bounds, compose, exchange, records, wishes
from decentra.rounds.contribute import make_plan
from decentra.settings import next_text
from decentra.wire.v1 import swarm_pb2
from tests.rounds.stories import swarm_of

WANTED = {"outer.inner_steps": 30, "codec.up": "int4", "codec.down": "bf16", "inner.lr": 1e-3, "outer.lr": 0.5, "stop_syncs": 12}


def ask(swarm, node, **wanted):
    """What `decentra set` leaves in a node's state directory."""
    text = next_text(swarm.run.founded, swarm.newest().state.settings, wanted)
    node.files.write(wishes.WISH_FILE, text.encode())
    return text


async def next_sync(swarm, syncs=1):
    end = swarm.newest().state.sync + syncs
    await swarm.until(lambda: swarm.newest().state.sync >= end, what=f"sync {end}")


async def agreed(swarm, text):
    """The first sync under new settings."""
    await swarm.until(lambda: swarm.newest().state.settings == text, what="the settings")
    return swarm.newest().state.sync


def steps_of(swarm, sync):
    return {c.num_steps for c in swarm.entry_of(sync).counted}


def codecs_of(swarm, sync):
    return {each.codec for each in swarm.entry_of(sync).sums}


def test_a_quorum_changes_steps_codecs_rates_and_end_from_the_next_sync_on_and_all_agree():
    async def story(swarm):
        for node in swarm.nodes[1:3]:
            text = ask(swarm, node, **WANTED)
        await next_sync(swarm, 2)
        assert swarm.newest().state.settings == ""  # two of four, without the oldest
        ask(swarm, swarm.nodes[3], **WANTED)
        first = await agreed(swarm, text)
        entry = swarm.entry_of(first - 1)
        assert entry.settings == text and len(entry.wishes) == 3
        late = swarm.new_node()
        swarm.boot(late)
        swarm.kill(swarm.nodes[1])
        await swarm.sleep(3)
        swarm.boot(swarm.nodes[1])
        await swarm.until(lambda: late.member is not None and late.member.in_view(), what="the late member")
        joined = swarm.newest().state.sync
        await swarm.until(lambda: swarm.newest().state.sync > joined + 1, what="a sync with it")
        assert len({m.run.config for m in swarm.members()}) == 1 and swarm.member(0).run.config.outer.lr == 0.5
        assert {make_plan(m).inner.lr for m in swarm.members()} == {1e-3}
        assert len({m.state.settings for m in swarm.members()} | {text}) == 1 and late.name in swarm.counted(joined + 1)
        await swarm.finish(120)
        assert (steps_of(swarm, first - 1), codecs_of(swarm, first - 1)) == ({10}, {"int8"})
        for sync in range(first, 12):
            assert (steps_of(swarm, sync), codecs_of(swarm, sync)) == ({30}, {"bf16"})
        assert swarm.watch.newest().sync == 12  # founded to end at 8
        assert not any(node.files.read(wishes.WISH_FILE) for node in swarm.live())

    swarm = swarm_of(4, story, snapshot_every=3)
    assert any("from sync" in line and "outer.inner_steps = 30" in line for line in swarm.trace)


@pytest.mark.parametrize(("before", "wanted"), [(2, 0), (2, 1), (0, 3)])
@pytest.mark.parametrize("fragments", [1, 2])
def test_steps_and_overlap_change_while_slots_run_ahead(before, wanted, fragments):
    async def story(swarm):
        change = {"outer.overlap_steps": wanted, "outer.inner_steps": 6 * fragments, "outer.alpha": 0.25}
        texts = {ask(swarm, node, **change) for node in swarm.nodes}
        first = await agreed(swarm, *texts)
        await next_sync(swarm, 4)
        for sync in range(first + 1, first + 3):
            assert steps_of(swarm, sync) == {6} and len(swarm.counted(sync)) == 3
        assert {m.carried.overlaps for m in swarm.members()} == {wanted > 0}
        await swarm.finish(60)

    swarm_of(3, story, overlap_steps=before, fragments=fragments, stop_syncs=12)


def test_more_steps_than_leases_had_samples_for_are_taken_at_once():
    async def story(swarm):
        for node in swarm.nodes:
            text = ask(swarm, node, **{"outer.inner_steps": 90})
        first = await agreed(swarm, text)
        await next_sync(swarm)
        assert steps_of(swarm, first) == {90}
        await swarm.finish(200)

    swarm_of(3, story, stop_syncs=5)


def test_two_wishes_that_conflict_change_nothing_until_they_agree():
    async def story(swarm):
        ask(swarm, swarm.nodes[0], **{"outer.inner_steps": 20})
        ask(swarm, swarm.nodes[1], **{"outer.inner_steps": 40})
        await next_sync(swarm, 3)
        assert swarm.newest().state.settings == ""
        text = ask(swarm, swarm.nodes[1], **{"outer.inner_steps": 20})
        await agreed(swarm, text)
        ask(swarm, swarm.nodes[2], **{"stop_syncs": 9})
        overtaken = next_text(swarm.run.founded, "", {"outer.inner_steps": 40})
        swarm.nodes[1].files.write(wishes.WISH_FILE, overtaken.encode())
        await next_sync(swarm, 2)
        assert swarm.nodes[1].files.read(wishes.WISH_FILE) is None and swarm.newest().state.settings == text
        await swarm.finish(120)

    swarm = swarm_of(3, story, stop_syncs=8)
    assert any("is dropped: it is change 1 of the settings, where change 2 is due" in line for line in swarm.trace)


def test_a_wish_outlives_its_node():
    async def story(swarm):
        ask(swarm, swarm.nodes[1], **{"outer.inner_steps": 20})
        await next_sync(swarm)
        swarm.kill(swarm.nodes[1])
        await swarm.sleep(1)
        swarm.boot(swarm.nodes[1])
        await swarm.until(lambda: swarm.nodes[1].member is not None, what="n1")
        await agreed(swarm, ask(swarm, swarm.nodes[2], **{"outer.inner_steps": 20}))
        await swarm.finish(120)

    swarm_of(3, story)


def test_a_leader_that_changes_settings_alone_is_refused_and_the_run_goes_on(monkeypatch):
    async def story(swarm):
        liar, true = swarm.nodes[1], compose.wishes.agreed
        text = next_text(swarm.run.founded, "", {"inner.lr": 1.0})

        def lie(member):
            if member.peer != liar.peer:
                return true(member)
            member.wish = text
            return text, (wishes.own(member),)

        monkeypatch.setattr(compose.wishes, "agreed", lie)
        await swarm.finish(200)
        assert swarm.watch.newest().settings == ""

    swarm = swarm_of(3, story)
    assert any("only 1 of 3 members wish its settings, which is no quorum" in line for line in swarm.trace)


def test_each_lie_about_wishes_is_refused_for_its_own_reason():
    async def story(swarm):
        for node in swarm.nodes[:2]:
            text = ask(swarm, node, **{"inner.lr": 1e-3})
        entry_r = swarm.entry_of(await agreed(swarm, text) - 1).r
        good, state, run = swarm.entry(entry_r), swarm.watch.states[entry_r], swarm.run
        members = {m.peer: m for m in swarm.members()}
        third = next(m for m in swarm.members() if m.peer not in {node.peer for node in swarm.nodes[:2]})

        def fault(under=state, **change):
            return wishes.settings_fault(run, swarm.verifier, under, dataclasses.replace(good, **change))

        def signed(member, by=None, **change):
            wish = swarm_pb2.Wish.FromString(swarm_pb2.Signed.FromString(good.wishes[0]).payload)
            wish.peer, wish.incarnation = member.peer, member.me.incarnation
            for name, value in change.items():
                setattr(wish, name, value)
            return (by or member).ports.signer.sign(records.DOMAIN_WISH, wish.SerializeToString())

        one, two = good.wishes
        second = members[swarm_pb2.Wish.FromString(swarm_pb2.Signed.FromString(two).payload).peer]
        assert fault() == ""
        assert fault(settings="") == "it carries wishes, but no settings"
        assert "only the entry of a sync may" in fault(sync=None)
        assert "only 1 of 3 members" in fault(wishes=(one,))
        assert "doubled or out of order" in fault(wishes=(one, one)) and "doubled or out of order" in fault(wishes=(two, one))
        assert "a view of 3" in fault(wishes=(one,) * 4)
        assert "is for something else" in fault(wishes=(one, signed(second, settings=b"{}")))
        assert "is for something else" in fault(wishes=(one, signed(second, incarnation=1)))
        assert "is for something else" in fault(wishes=(one, signed(second, lineage=b"x")))
        assert "is for something else" in fault(wishes=(one, signed(second, run_id=b"x")))
        assert "is for something else" in fault(wishes=(one, signed(second, by=third)))
        assert "which is no member" in fault(wishes=(one, signed(second, peer="nobody")))
        assert "which is no member" in fault(wishes=(one, b""))
        assert "does not hold" in fault(wishes=(one, two[:-1] + bytes([two[-1] ^ 1])))
        assert "seed cannot be changed" in fault(settings='{"change":1,"set":{"seed":3}}')
        # Wishes of a change that was made are wishes for no later one.
        assert "change 2 is due" in fault(under=dataclasses.replace(state, settings=text))
        with pytest.raises(ConfigError):
            run.under("nonsense")
        await swarm.finish(120)

    swarm_of(3, story)


def test_a_wish_that_another_signed_counts_once_and_one_that_is_too_large_is_refused(monkeypatch):
    async def story(swarm):
        one, thief, true = swarm.nodes[1], swarm.nodes[2], wishes.own
        text = ask(swarm, one, **{"inner.lr": 1e-3})

        def stolen(member):
            return true(one.member) if member.peer == thief.peer else true(member)

        monkeypatch.setattr(wishes, "own", stolen)
        await next_sync(swarm, 3)
        assert swarm.newest().state.settings == ""
        member = swarm.member(0)
        await swarm.until(lambda: member.hash == swarm.member(2).hash, what="both at one entry")
        beat = exchange.heartbeat(swarm.member(2)).heartbeat
        beat.wish.payload = b"x" * bounds.MAX_WISH_BYTES
        with pytest.raises(RefusedError, match=f"its wish of {beat.wish.ByteSize()} bytes is over the limit"):
            exchange.hear(member, thief.peer, beat)
        monkeypatch.setattr(wishes, "own", true)
        ask(swarm, thief, **{"inner.lr": 1e-3})
        await agreed(swarm, text)
        await swarm.finish(120)

    swarm_of(3, story)


@pytest.mark.parametrize("raw", [b"\xff", b"{", b'{"change":1,"set":{"seed":3}}', b'{"change":1,"set":{"outer.inner_steps":0}}'])
def test_a_wish_file_that_cannot_be_is_dropped_with_its_reason(raw):
    async def story(swarm):
        swarm.nodes[1].files.write(wishes.WISH_FILE, raw)
        await swarm.sleep(3)
        assert swarm.nodes[1].files.read(wishes.WISH_FILE) is None and swarm.member(1).wish == ""
        await swarm.finish(120)

    swarm = swarm_of(2, story, stop_syncs=4)
    assert any("the wish for other settings is dropped: " in line for line in swarm.trace)
