"""An operator's wishes for a running node: what the swarm has, what it wishes, and what its measured links and steps would bear.

The node is asked over its own join string, as any onlooker would ask; the wish itself is a file in its state directory.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decentra.codec.base import Codec
from decentra.config import RunConfig, run_from_bytes
from decentra.errors import ConfigError, SetupError
from decentra.ledger.state import Member as ViewMember
from decentra.node.node import Node
from decentra.node.status import Watcher
from decentra.node.wiring import Wiring
from decentra.rounds.download import DIGEST_BYTES
from decentra.rounds.member import Member
from decentra.rounds.status import measured_of
from decentra.rounds.view import is_quorum
from decentra.rounds.wishes import WISH_FILE
from decentra.scaling.planner import Bounds, Choice, Measured, Plan, plan, sentences
from decentra.settings import effective
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, PeerId
from decentra.wire.v1 import swarm_pb2

USUAL_SHARE = 0.95
SYNCS_BEFORE_PLAN = 3
TUNED = ("outer.inner_steps", "outer.overlap_steps", "codec.up", "codec.down")


@dataclass(frozen=True, slots=True)
class Sight:
    """founded: the run of the manifest. own: the status of the node that was asked; statuses: of all that answer, its own too."""

    founded: RunConfig
    own: dict[str, Any]
    statuses: list[dict[str, Any]]

    @property
    def settings(self) -> str:
        """What S carries."""
        return str(self.own["settings"])

    @property
    def run(self) -> RunConfig:
        """What holds now."""
        return effective(self.founded, self.settings)


def founded_in(state: Path) -> RunConfig:
    """The `[run]` of a state directory's manifest. Raises ConfigError where it holds no run."""
    try:
        signed = swarm_pb2.Signed.FromString((state / "manifest.bin").read_bytes())
    except OSError as error:
        raise ConfigError(f"{state} holds no run; give the state directory of a node with --state") from error
    return run_from_bytes(swarm_pb2.Manifest.FromString(signed.payload).run_config)


async def see(state: Path, wiring: Wiring) -> Sight:
    """Ask the node of a state directory, and whom it knows. Raises ConfigError, SetupError where it does not run."""
    founded = founded_in(state)
    try:
        string, own = (state / "join.txt").read_text().strip(), (state / "peer.txt").read_text().strip()
    except OSError as error:
        raise SetupError(f"the node of {state} has not run yet; start it: decentra node --state {state}") from error
    async with Watcher(wiring.decode_door(string), wiring) as watcher:
        await watcher.peers()
        statuses = await watcher.statuses()
    mine = next((status for status in statuses if status["peer"] == own), None)
    if mine is None:
        raise SetupError(f"the node of {state} does not answer; start it: decentra node --state {state}")
    if not mine["in_view"]:
        raise SetupError(f"the node of {state} is not a member yet, so its wish would not count; ask again in a while")
    return Sight(founded, mine, statuses)


# -- wishing ------------------------------------------------------------------------------------------------------------


def leave_wish(state: Path, text: str) -> None:
    """Put a wish where the daemon looks; "" takes back what is there."""
    path = state / WISH_FILE
    if not text:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def wishers(sight: Sight, text: str) -> list[PeerId]:
    """Members that wish exactly this now, as they say; the node asked counts, for it is about to."""
    found = {status["peer"] for status in sight.statuses if status["wish"] == text} | {sight.own["peer"]}
    return [peer for peer in sight.own["view"] if peer in found]


def still_needed(view: Sequence[PeerId], agreeing: Collection[PeerId]) -> int:
    """How many more members must agree to make a quorum, the oldest first."""
    members = [ViewMember(peer, 0, True, 0) for peer in view]
    there, others = set(agreeing), [peer for peer in view if peer not in agreeing]
    for count, peer in enumerate(others):
        if is_quorum(members, there):
            return count
        there.add(peer)
    return len(others)


# -- tuning -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tuning:
    """present: what holds now. lines: both, in words, with their reasons. wanted: the keys to set, empty where nothing changes."""

    present: Choice
    plan: Plan
    lines: tuple[str, str]
    wanted: dict[str, Any]


def measured_by(run: RunConfig, statuses: Sequence[Mapping[str, Any]], num_members: int) -> Measured | None:
    """The slowest step, link and way of those that say; None until one has trained and pulled."""
    told = [status["measured"] for status in statuses if status["measured"]["step_s"] > 0]
    if not told:
        return None
    return Measured(
        step_s=max(each["step_s"] for each in told),
        rate_bytes_per_s=min(each["rate_bytes_per_s"] for each in told),
        one_way_s=max(each["one_way_s"] for each in told),
        num_elements=told[0]["num_elements"],
        num_layers=run.model.num_layers,
        num_members=num_members,
        work_s=max(each["work_s"] for each in told) * run.outer.fragments,
    )


def tune(run: RunConfig, measured: Measured, bytes_an_element: Mapping[str, float], bounds: Bounds, wanted: float) -> Tuning:
    """What would let this run compute for `wanted` of the time. Fragments stay: they cut the layout. Raises ConfigError."""
    if run.codec.aggregate != "reduce":
        raise ConfigError("a run that gathers contributions is not planned for; its bytes grow with the members, see docs/protocol.md")
    up, down, outer = run.codec.up, run.codec.down, run.outer
    name = up if up == down else f"{up} up, {down} down"
    shares = {**bytes_an_element, name: (bytes_an_element[up] + bytes_an_element[down]) / 2}
    present = Choice(name, outer.inner_steps, outer.overlap_steps, outer.fragments)
    try:
        found = plan(measured, shares, bounds, wanted)
    except ValueError as error:
        raise ConfigError(f"nothing fits: {error}; widen --steps") from error
    choice = found.choice
    values = dict(zip(TUNED, (choice.inner_steps, choice.overlap_steps, choice.codec, choice.codec), strict=True))
    holds = dict(zip(TUNED, (outer.inner_steps, outer.overlap_steps, up, down), strict=True))
    changed = {key: value for key, value in values.items() if value != holds[key]}
    return Tuning(present, found, sentences(measured, shares, present, found, wanted), changed)


async def tell_plan(node: Node, member: Member) -> None:
    """Once a few rounds have been measured, say what the run's setting gives here and what would be chosen."""
    while member.state.sync < SYNCS_BEFORE_PLAN or not member.steps_taken or not member.in_view() or math.isinf(member.trip.idle_s):
        await asyncio.sleep(1.0)
    run, machine = member.run.config, member.run.machine
    measured = measured_by(run, [{"measured": measured_of(member)}], len(member.state.members))
    if measured is not None and measured.num_members > 1 and run.codec.aggregate == "reduce":
        for line in tune(run, measured, share_of(machine.codecs), bounds_of(run), USUAL_SHARE).lines:
            node.note(line)


def share_of(codecs: Mapping[str, Codec]) -> dict[str, float]:
    """Encoded bytes of an element with their block digests, by codec."""
    return {name: (codec.chunk_bytes + DIGEST_BYTES / BLOCK_CHUNKS) / CHUNK_ELEMENTS for name, codec in codecs.items()}


def bounds_of(run: RunConfig, least: int = 0, most: int = 0, overlap: int = -1, codecs: Sequence[str] = ()) -> Bounds:
    """Bounds for a running swarm; 0, -1 and () are the defaults."""
    usual, parts = Bounds(), run.outer.fragments
    return Bounds(
        min_steps=least or max(usual.min_steps, parts),
        max_steps=most or max(usual.max_steps, parts),
        min_fragments=parts,
        max_fragments=parts,
        max_overlap_steps=usual.max_overlap_steps if overlap < 0 else overlap,
        codecs=tuple(name for name in usual.codecs if not codecs or name in codecs),
    )
