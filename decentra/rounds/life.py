"""From the first round to the last: agree on entry after entry, beside training, pulling and looking around."""

from __future__ import annotations

import asyncio
import itertools

from decentra.errors import PeerError, PeerUnreachable
from decentra.rounds import ahead, catchup, contribute, drift, exchange, lead, lookout, meeting, owner
from decentra.rounds.member import GOODBYE_S, Member
from decentra.rounds.ports import meet
from decentra.rounds.status import waiting_sentence
from decentra.rounds.view import dialable_shortage, leader_order
from decentra.types import PeerId

CONTACTS_PERIOD_S = 10.0
SPEAK_UP_AFTER_S = 5.0


async def live(member: Member) -> None:
    """Take part until the run ends, this node has left, or the task is cancelled. Raises what ended it otherwise."""
    try:
        await _live(member)
    except ExceptionGroup as group:
        # One reason for people: a full disk, not the group of tasks that it ended.
        raise group.exceptions[0] from group
    finally:
        for task in member.fetcher.running():
            task.cancel()
        # A state that has begun to move must finish moving: what was logged is applied.
        if moving := member.moves.running():
            await asyncio.wait(moving)
        for task in member.loose_tasks():
            task.cancel()


async def _live(member: Member) -> None:
    async with asyncio.TaskGroup() as tasks:
        member.tasks = tasks
        helpers = [
            tasks.create_task(contribute.train_slots(member)),
            tasks.create_task(owner.pull_parts(member)),
            tasks.create_task(ahead.average_ahead(member)),
            tasks.create_task(_refresh_contacts(member)),
            tasks.create_task(_speak_up(member)),
            tasks.create_task(lookout.look_around(member)),
        ]
        await _run_rounds(member)
        member.tasks = None
        for helper in helpers:
            helper.cancel()
        await _pass_on(member)
        for task in list(member.aside):
            task.cancel()


async def _run_rounds(member: Member) -> None:
    while not member.is_done():
        if member.outlook.suspect is not None:
            await drift.settle(member)
            continue
        if member.outlook.crossing is not None:
            await meeting.cross(member)
            continue
        if member.behind is not None:
            donor, member.behind = member.behind, None
            await _chase(member, donor)
            continue
        order = leader_order(member.hash, member.state.members)
        leader = order[member.attempt % len(order)]
        if leader == member.peer and member.in_view():
            await lead.lead(member, member.attempt)
        else:
            await exchange.follow(member, leader, member.attempt)


async def _chase(member: Member, donor: PeerId) -> None:
    """Catch up from a peer that said it is ahead. Who led nowhere is believed later; who could not be reached, at once."""
    before, reached, member.catching_up = member.state.r, True, True
    try:
        await catchup.replay(member, donor)
    except PeerError as error:
        reached = not isinstance(error, PeerUnreachable)
        member.ports.note(f"catching up: {error}")
        await member.changed.wait(member.period_s())
    finally:
        member.catching_up, member.came_back = False, member.came_back or member.state.r > before
        member.changed.notify()
    if reached:
        member.chases.ended(donor, member.state.r > before, member.now(), member.silence_s())


async def _pass_on(member: Member) -> None:
    """See that the view holds the last certificate before going; 5 s without progress and this node goes anyway."""
    others = member.within_reach(member.state.peers())
    if not member.last_certified or not others or (member.leaving and member.in_view()):
        return
    member.wait("the others to hold the last certificate")
    reached: dict[PeerId, int] = {}
    telling = asyncio.ensure_future(exchange.see_applied(member, member.last_certified, others, member.leaving, reached))
    try:
        before: dict[PeerId, int] | None = None
        while not telling.done() and before != reached:
            before = dict(reached)
            await asyncio.wait({telling}, timeout=GOODBYE_S)
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _refresh_contacts(member: Member) -> None:
    """Keep learning how to dial peers from the directory.

    A newcomer that gets nowhere asks one of those it finds there, as it did when it joined: the whole view that it knows may
    have gone since.
    """
    stood_at = -1
    for turn in itertools.count():
        member.outlook.known = tuple(await meet(member.ports, member.run.run_id))
        strangers = [peer for peer in member.outlook.known if member.state.member(peer) is None]
        if strangers and not member.in_view() and member.state.r == stood_at and member.behind is None:
            member.behind = strangers[turn % len(strangers)]
            member.changed.notify()
        stood_at = member.state.r
        await asyncio.sleep(CONTACTS_PERIOD_S)


async def _speak_up(member: Member) -> None:
    """Nothing waits silently: after 5 s say for whom, in which phase, for how many bytes at what rate, then ever more rarely."""
    said, gap, warned = "", SPEAK_UP_AFTER_S, ""
    while True:
        await asyncio.sleep(1.0)
        begun = member.state.started(member.run.config.start_members)
        shortage = dialable_shortage(member.state.members) if begun else ""
        if shortage and shortage != warned:
            member.ports.note(shortage)
        warned = shortage
        waited = member.now() - member.waiting_since_s
        if member.waiting_for != said:
            gap = SPEAK_UP_AFTER_S
        if waited >= gap:
            what = waiting_sentence(member, SPEAK_UP_AFTER_S / 2)
            member.ports.note(f"entry {member.state.r}, sync {member.state.sync}: waiting since {waited:.0f} s for {what}")
            said, gap = member.waiting_for, 2 * waited
