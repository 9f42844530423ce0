"""Every field of every message can be hostile: refused by name, memory bounded, and the round goes on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hostile_messages import Case, cases
from hostile_swarm import MEMBERS, Stage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decentra import build
from decentra.errors import PeerError, RefusedError
from decentra.rounds import bounds, catchup
from decentra.rounds.founding import empty_tensors
from decentra.rounds.ports import meet
from decentra.transport.base import MAX_CALL_BYTES
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2
from sims.experiments.protocol_fuzz.swarm import Swarm, play

CASES_A_SWARM = 50
DONOR_CASES = 25


def staged(story: Callable[[Stage], Any], num_members: int = MEMBERS) -> Stage:
    """Play `story(stage)` on a live swarm, which then must go on."""
    stage = Stage(Swarm(seed=5, start_members=num_members, stop_syncs=10**6), num_members)

    async def whole(_: Swarm) -> None:
        await stage.start()
        await story(stage)
        await stage.end()

    play(stage.swarm, whole)
    return stage


def hostile(num_cases: int, size: int) -> Callable[[Any], Any]:
    rules = settings(
        max_examples=num_cases // size, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    return lambda test: rules(given(st.lists(cases(), min_size=size, max_size=size, unique=True))(test))


def fed(batch: list[Case]) -> None:
    stage = staged(lambda stage: stage.play(batch))
    assert stage.refused + stage.answered == len(stage.running) > 0


@hostile(1_000, CASES_A_SWARM)
def test_a_live_swarm_refuses_a_thousand_hostile_messages_by_name_and_goes_on(batch: list[Case]) -> None:
    fed(batch)


@pytest.mark.soak
@hostile(20_000, CASES_A_SWARM)
def test_a_live_swarm_refuses_twenty_thousand_hostile_messages_by_name_and_goes_on(batch: list[Case]) -> None:
    fed(batch)


# -- donors -------------------------------------------------------------------------------------------------------------


def donated(batch: list[Case]) -> None:
    """A joiner asks a lying donor for all it needs, once a case: it fails by name or gets what the true swarm has."""

    async def story(stage: Stage) -> None:
        swarm, donor = stage.swarm, stage.taps[1]
        donor.donates_lies = True
        node = swarm.new_node()
        ports, _ = swarm._ports(node)
        await meet(ports, swarm.run.run_id)
        for case in batch:
            donor.lies = [case, case, case]
            tensors = empty_tensors(swarm.run.layout)
            try:
                peers = [donor.node.peer]
                run, _ = await catchup.greet(ports, swarm.run.run_id, b"", swarm._record(node, ports), peers, build.machine)
                assert run.run_id == swarm.run.run_id and run.config == swarm.run.config
                await catchup.fetch_files(ports, run, peers)
                await catchup.download_snapshot(ports, run, tensors, peers)
            except (PeerError, RefusedError) as reason:
                assert str(reason)
        donor.lies = []
        await ports.transport.close()
        swarm.nodes.remove(node)

    staged(story, 2)


@hostile(100, DONOR_CASES)
def test_a_joiner_blames_a_lying_donor_by_name(batch: list[Case]) -> None:
    donated(batch)


@pytest.mark.soak
@hostile(2_000, DONOR_CASES)
def test_a_joiner_blames_a_lying_donor_by_name_two_thousand_times(batch: list[Case]) -> None:
    donated(batch)


# -- memory -------------------------------------------------------------------------------------------------------------


def repeated(tag: bytes, size: int) -> bytes:
    """As many empty submessages as fit in `size` bytes."""
    return tag * (size // len(tag))


def request(kind: str, body: bytes, run_id: bytes) -> bytes:
    """A request around bytes that no class would have made."""
    field = rounds_pb2.Request.DESCRIPTOR.fields_by_name[kind].number
    size, out = len(body), bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return rounds_pb2.Request(run_id=run_id).SerializeToString() + bytes([field << 3 | 2, *out, size]) + body


def entry_in(kind: str, entry: bytes, stage: Stage) -> bytes:
    member = stage.taps[0].node.member
    if kind == "commit":
        return swarm_pb2.CertifiedEntry(entry=entry, certificate=b"").SerializeToString()
    return rounds_pb2.Proposal(r=member.state.r, ballot=member.attempt, entry=entry).SerializeToString()


FLOODS = {
    "close of parts": ("close", lambda size, _: repeated(b"\x2a\x00", size)),
    "close of roots": ("close", lambda size, _: repeated(b"\x22\x00", size)),
    "heartbeat of roots": ("heartbeat", lambda size, _: repeated(b"\x3a\x00", size)),
    "offer of claims": ("offer", lambda size, _: swarm_pb2.Signed(payload=repeated(b"\x52\x00", size)).SerializeToString()),
    "proposal of sums": ("proposal", lambda size, stage: entry_in("proposal", repeated(b"\x42\x00", size), stage)),
    "proposal of names": ("proposal", lambda size, stage: entry_in("proposal", repeated(b"\x4a\x00", size), stage)),
    "commit of grants": ("commit", lambda size, stage: entry_in("commit", repeated(b"\x6a\x00", size), stage)),
    "certificate of votes": (
        "commit", lambda size, _: swarm_pb2.CertifiedEntry(entry=b"", certificate=repeated(b"\x22\x00", size)).SerializeToString()
    ),
    "records": ("records", lambda size, _: repeated(b"\x0a\x00", size)),
    "status of anything": ("status", lambda size, _: bytes([0xFA, 0x7D, 0]) * (size // 3)),
}  # fmt: skip


async def peak_of(stage: Stage, kind: str, data: bytes) -> tuple[int, str]:
    """(bytes that Python allocated at most while it was judged, the refusal) of one message from the leader's own key."""
    server, sender = stage.taps[0].server, stage.taps[1].node.peer
    tracemalloc.start()
    try:
        if kind == "pull":
            async for frame in server.on_pull(sender, data):
                assert not frame
        else:
            await server.on_call(sender, data)
    except RefusedError as reason:
        return tracemalloc.get_traced_memory()[1], str(reason)
    finally:
        tracemalloc.stop()
    return 0, ""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_before_it_is_parsed_and_costs_little_at_the_limit(name: str) -> None:
    kind, body = FLOODS[name]

    async def story(stage: Stage) -> None:
        run_id = stage.swarm.run.run_id
        peak, reason = await peak_of(stage, kind, request(kind, body(MAX_CALL_BYTES - 200, stage), run_id))
        assert "over the limit" in reason and peak < 1 << 16, (peak, reason)
        limit = bounds.max_request_bytes(kind, MEMBERS)
        peak, reason = await peak_of(stage, kind, request(kind, body(limit - 200, stage), run_id))
        assert peak < 64 * limit, (peak, reason)

    staged(story)


def test_a_pull_of_more_blocks_than_there_are_is_refused_whatever_it_claims() -> None:
    async def story(stage: Stage) -> None:
        member = stage.taps[0].node.member
        await stage.swarm.until(lambda: member.parts.held, step_s=0.01)
        what = {"contribution_root": next(iter(member.parts.held)), "object_digest": member.ports.store._objects.names()[0]}
        for name, digest in what.items():
            for first, count in ((0, 2**63), (2**63, 1), (2**64 - 1, 2**64 - 1), (10, 1)):
                pull = state_pb2.PullRequest(run_id=member.run.run_id, first_block=first, num_blocks=count, **{name: digest})
                peak, reason = await peak_of(stage, "pull", pull.SerializeToString())
                assert reason and peak < 1 << 20, (name, first, count, peak, reason)

    staged(story)
