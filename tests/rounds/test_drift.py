"""Replicas that drift: found at the next entry, put right, told by name; whole swarms on the virtual clock."""

import asyncio
import dataclasses

import pytest
import torch
from stories import swarm_of

from decentra.errors import StateError
from decentra.outer.nesterov import Nesterov

LIMIT_S = 600.0


def flip(swarm, node, which="anchor", element=5, bit=1 << 20):
    """Change one bit of one element in a node's memory."""
    swarm.watch.spoilt.add(node.peer)
    tensor = getattr(node.member.tensors, which)
    tensor.view(torch.int32)[element] ^= bit


def miscalculate(swarm, node):
    """From now on this machine's outer step, and so every replay on it, comes out otherwise."""
    swarm.watch.spoilt.add(node.peer)
    member = node.member
    machine = dataclasses.replace(member.run.machine, outer=Nesterov(0.71, 0.9))
    member.run = dataclasses.replace(member.run, machine=machine)


def told(swarm, node, text):
    """Whether a node has said it."""
    return any(line[10:].startswith(f"{node.name} ") and text in line for line in swarm.trace)


async def at_sync(swarm, sync):
    await swarm.until(lambda: all(m.state.sync >= sync for m in swarm.members()), step_s=0.01)


@pytest.mark.parametrize("which", ["anchor", "momentum"])
def test_a_flipped_bit_is_found_at_the_next_entry_and_put_right_from_disk_and_nobody_else_stops(which):
    async def story(swarm):
        await at_sync(swarm, 2)
        victim, others = swarm.nodes[3], swarm.nodes[:3]
        sync = swarm.newest().state.sync
        flip(swarm, victim, which)
        await swarm.until(lambda: told(swarm, victim, "has drifted"), 60.0)
        assert victim.member.state.sync <= sync + 2
        await swarm.until(lambda: told(swarm, victim, "put right from disk; a value had changed in this machine's memory"))
        await swarm.finish(LIMIT_S)
        assert not any(told(swarm, n, "drifted") or told(swarm, n, "replaying") for n in others)
        assert all(report.attempts == 1 for report in others[0].member.history), "nobody else stopped"
        assert victim.name in swarm.counted(7)

    swarm_of(4, story)


def test_where_the_disk_was_changed_too_the_state_comes_from_others():
    async def story(swarm):
        await at_sync(swarm, 2)
        victim = swarm.nodes[3]
        flip(swarm, victim)
        name = next(n for n in victim.files.names("snapshots") if n.endswith("anchor-0"))
        raw = bytearray(victim.files.read(name))
        raw[9] ^= 1
        victim.files.write(name, bytes(raw))
        await swarm.until(lambda: told(swarm, victim, "taking a snapshot from others"), 60.0)
        await swarm.finish(LIMIT_S)
        assert told(swarm, victim, "is damaged (anchor)") and victim.member.hash == swarm.member(0).hash
        assert any(n.startswith("aside/drifted-") for n in victim.files.names("aside"))

    swarm_of(4, story)


def test_a_machine_that_drifts_again_at_once_stops_and_is_named():
    async def story(swarm):
        await at_sync(swarm, 2)
        victim = swarm.nodes[3]
        miscalculate(swarm, victim)
        victim.task.remove_done_callback(swarm._ended)  # it is to end so
        await swarm.until(victim.task.done, 100.0)
        with pytest.raises(StateError, match=f"peer {victim.peer}, drifted again at entry [0-9]+, right after its replica was put right"):
            victim.task.result()
        swarm.kill(victim)
        await swarm.finish(LIMIT_S)
        assert swarm.newest().state.sync == 8

    swarm_of(4, story)


def test_of_two_that_differ_the_one_whose_disk_says_otherwise_was_wrong_and_says_so():
    async def story(swarm):
        await at_sync(swarm, 2)
        victim, other = swarm.nodes
        flip(swarm, victim)
        await swarm.until(lambda: told(swarm, victim, f"this node ({victim.peer[:8]}) was wrong"), 60.0)
        await swarm.finish(LIMIT_S)
        noticed = [told(swarm, one, f"{two.peer[:8]} stands on another state") for one, two in ((other, victim), (victim, other))]
        assert any(noticed) and not told(swarm, other, "was wrong")

    swarm_of(2, story)


def test_two_of_two_that_differ_by_their_disks_too_pause_and_name_both():
    async def story(swarm):
        await at_sync(swarm, 2)
        first, second = swarm.nodes
        miscalculate(swarm, second)
        await swarm.until(lambda: all("one answer about the state" in n.member.waiting_for for n in swarm.nodes), 60.0)
        r = first.member.state.r
        for node in swarm.nodes:
            assert all(n.peer[:8] in node.member.waiting_for for n in swarm.nodes) and told(swarm, node, "paused: waiting for one answer")
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert first.member.state.r == r and not first.member.may_vote()
        # Its operator stops the one that is wrong.
        swarm.kill(second)
        await swarm.finish(LIMIT_S)
        assert first.member.state.sync == 8

    swarm_of(2, story)


def test_of_two_halves_that_differ_those_whose_disks_say_otherwise_were_wrong():
    async def story(swarm):
        await at_sync(swarm, 2)
        for node in swarm.nodes[2:]:
            flip(swarm, node)
        await swarm.until(lambda: all(told(swarm, n, "was wrong") or told(swarm, n, "put right") for n in swarm.nodes[2:]), 60.0)
        await swarm.finish(LIMIT_S)
        assert not any(told(swarm, n, "was wrong") or told(swarm, n, "put right") for n in swarm.nodes[:2])

    swarm_of(4, story)
