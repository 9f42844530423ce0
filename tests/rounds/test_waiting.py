"""Whatever waits over 5 s says for whom, in which phase, for how many bytes at what rate; a report says who was left out and why."""

import re

import pytest
from stories import follower, swarm_of

from decentra.errors import RefusedError
from decentra.rounds import owner as owners_room
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 900.0
BYTES = r"\d+\.\d\d MB to come at \d+\.\d\d MB/s"


def notes(swarm, words=""):
    return [line for line in swarm.trace if "waiting since" in line and words in line]


def test_waits_on_slow_links_name_phase_peers_bytes_and_rate():
    async def story(swarm):
        await swarm.start(3)
        await swarm.until(lambda: swarm.newest().state.sync >= 2, LIMIT_S)
        peers = "|".join(n.peer[:8] for n in swarm.nodes)
        said = "\n".join(swarm.trace)
        assert re.search(rf"waiting since \d+ s for .*parts of sync 1 from ({peers}): {BYTES}", said)
        assert re.search(rf"waiting since \d+ s for .*a blob of entry \d+ from ({peers}): {BYTES}", said)
        link = r"up to 0.17 MB each, \d+\.\d\d MB/s here"
        assert re.search(rf"waiting since \d+ s for .*owners to hold the parts of .*: ({peers}).*{link}", said)
        assert re.search(rf"waiting since \d+ s for votes of ({peers})(, ({peers}))+ \({link}\)", said)
        assert re.search(rf"n\d \w+: waiting for the snapshot of entry 0 from ({peers}).*: {BYTES}", said)
        assert re.search(rf"n\d \w+: waiting for file data.bin from ({peers}).*: {BYTES}", said)
        await swarm.finish(LIMIT_S)

    play(Swarm(seed=7, chunks=40, start_members=3, stop_syncs=3, rate=4e3), story)


def test_a_wait_for_offers_is_said_though_its_details_change_and_names_who_is_behind():
    async def story(swarm):
        for node in swarm.nodes[1:]:
            node.trainer.step_s = 1.5
        await swarm.until(lambda: swarm.newest().state.sync >= 4, LIMIT_S)
        slow = {n.peer[:8] for n in swarm.nodes[1:]}
        found = [re.search(r"for offers of (\w+), (\w+) \((\w+) has (\d+) steps to go\)", line) for line in notes(swarm)]
        assert any(match and {match[1], match[2]} == slow and match[3] in slow for match in found), notes(swarm)
        await swarm.finish(LIMIT_S)

    swarm_of(3, story)


def test_a_wait_for_a_leader_that_is_gone_names_it():
    async def story(swarm):
        leader = await swarm.when_leader("offers of")
        others = [n for n in swarm.live() if n is not leader]
        swarm.isolate(leader)
        await swarm.until(lambda: any(n.member.waiting_for == f"leader {leader.peer[:8]} to answer" for n in others), LIMIT_S)
        swarm.heal()
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def reasons(swarm, sync):
    """Why each was left out of a sync, by name, as the node that led it says."""
    said = {}
    for member in swarm.members():
        for report in member.history:
            if report.sync == sync:
                for peer, why in report.left_out.items():
                    said.setdefault(swarm.by_peer(peer).name, set()).add(why)
    return said


def test_a_report_says_who_was_left_out_and_why():
    async def story(swarm):
        sync = swarm.newest().state.sync
        await swarm.until(lambda: swarm.newest().state.sync == sync + 1, LIMIT_S)
        slow, dead = swarm.nodes[3], swarm.nodes[4]
        slow.trainer.stalled_until_s = swarm.now() + 60.0
        swarm.kill(dead)
        await swarm.until(lambda: swarm.newest().state.sync == sync + 2, LIMIT_S)
        said = reasons(swarm, sync + 1)
        assert set(said) == {"n3", "n4"}
        assert any(re.fullmatch(r"did not offer in time \(\d+ steps to go\)", why) for why in said["n3"]), said
        assert any(re.fullmatch(r"not heard since \d+ s( or longer)?", why) for why in said["n4"]), said
        assert all(not why.startswith("not heard") for why in said["n3"])
        await swarm.finish(LIMIT_S)

    swarm_of(5, story)


def test_a_member_that_restarted_without_its_payload_is_reported_as_sitting_out():
    async def story(swarm):
        sync = swarm.newest().state.sync + 1
        node = swarm.nodes[3]
        swarm.nodes[1].trainer.stalled_until_s = swarm.now() + 12.0
        await swarm.until(lambda: node.member.own is not None and node.member.own.sync == sync, step_s=0.01)
        swarm.kill(node)
        node.files.remove("offer.bin")
        swarm.boot(node)
        await swarm.until(lambda: swarm.newest().state.sync == sync + 1, LIMIT_S)
        assert "sat the sync out" in reasons(swarm, sync)["n3"]
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_an_offer_that_an_owner_could_not_pull_is_reported_with_that_owner(monkeypatch):
    async def no_way_round(*_):
        raise RefusedError("not today")

    monkeypatch.setattr(owners_room, "relay", no_way_round)

    async def story(swarm):
        sync = swarm.newest().state.sync
        await swarm.until(lambda: swarm.newest().state.sync == sync + 1, step_s=0.01)
        leader = await swarm.when_leader("offers of")
        owners = {p.owner for p in leader.member.state.parts}
        sender = next(n for n in swarm.live() if n is not leader)
        owner = next(n for n in swarm.live() if n not in (leader, sender) and n.peer in owners)
        swarm.cut(sender, owner)
        await swarm.until(lambda: swarm.newest().state.sync == sync + 2, LIMIT_S)
        assert f"its parts were not held by {owner.peer[:8]}" in reasons(swarm, sync + 1)[sender.name]
        swarm.heal()
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)


def test_a_newcomer_is_not_reported_as_left_out_of_the_sync_in_which_it_came():
    async def story(swarm):
        node = swarm.new_node()
        swarm.boot(node)
        await swarm.until(lambda: node.member is not None and node.member.in_view(), LIMIT_S)
        await swarm.finish(LIMIT_S)
        first = next(m for m in swarm.newest().state.members if m.peer == node.peer).first_sync
        for number in range(3):
            assert all(h.left_out == {} for h in swarm.member(number).history if h.sync is not None and h.sync < first)

    swarm_of(3, story)


@pytest.mark.parametrize("count", [3])
def test_the_times_of_a_report_add_up_to_the_round(count):
    async def story(swarm):
        await swarm.finish(LIMIT_S)
        for report in swarm.member(0).history:
            if report.sync is not None and report.sync > 1:
                times = report.times_s
                assert set(times) == {"compute", "encode", "wait", "transfer", "reduce", "ballot", "apply", "round", "overrun"}
                phases = sum(took for name, took in times.items() if name not in ("round", "overrun"))
                assert min(times.values()) >= 0 and phases == pytest.approx(times["round"], rel=0.1, abs=0.3)
                assert report.bytes_up > 0 and report.bytes_down > 0

    swarm_of(count, story)


def test_a_follower_does_not_blame_silence_on_whom_its_leader_hears():
    async def story(swarm):
        leader = await swarm.when_leader("offers of")
        other = follower(swarm, leader)
        sync = leader.member.state.sync
        dead = next(n for n in swarm.live() if n not in (leader, other) and n.number)
        swarm.kill(dead)
        await swarm.until(lambda: other.member.state.sync > sync, LIMIT_S)
        report = next(h for h in other.member.history if h.sync == sync)
        assert report.left_out in ({dead.peer: "not heard by the leader"}, {})
        await swarm.finish(LIMIT_S)

    swarm_of(4, story)
