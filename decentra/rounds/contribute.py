"""The contributor: train a slot, encode the pseudo-gradient, write its root down, offer it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import torch

from decentra.codec.base import NotFiniteError
from decentra.ledger import intervals
from decentra.ledger.chain import digest
from decentra.outer.fragments import Fragment
from decentra.rounds import merge, provisional, records
from decentra.rounds.contribution import Encoded, cut, encode_contribution
from decentra.rounds.offers import Offer
from decentra.rounds.parts import HeldContribution
from decentra.rounds.ports import ReplicaLost
from decentra.rounds.punctual import mind_lease, mind_step_time
from decentra.types import CHUNK_ELEMENTS, SlotPlan, SlotResult
from decentra.wire.v1 import rounds_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

PAYLOAD = "offer.bin"
"""The last contribution as it was offered: size of the signed offer, the offer, its encoded bytes."""


async def train_slots(member: Member) -> None:
    """Train for each due sync, and offer the result; until cancelled.

    Where rounds overlap with training, the next slot begins as this one ends, beside the offer and before its sync is decided.
    """
    while _is_behind(member):
        await member.changed.wait(1.0)
    await resume(member)
    offering: asyncio.Future[None] | None = None
    try:
        while True:
            while offering is None and not may_train(member):
                await member.changed.wait(1.0)
            plan, origin = make_plan(member, ahead=offering is not None), member.origin
            result = await _train(member, plan, origin, offering)
            if offering is not None:
                await offering  # it reads what the next slot's end writes
                offering = None
            member.carried.took(plan, result)
            if result is not None and member.carried.samples > 0:
                member.mark("trained")
                mind_lease(member, plan.sync)
                offering = asyncio.ensure_future(offer(member, result, origin))
                if not await _goes_ahead(member, plan, origin, offering):
                    await offering
                    offering = None
    finally:
        if offering is not None:
            offering.cancel()


async def _goes_ahead(member: Member, plan: SlotPlan, origin: int, offering: asyncio.Future[None]) -> bool:
    """Wait until the next slot may begin before the plan's sync is decided, or it is decided."""
    if not member.run.config.outer.ahead_steps:
        await offering
    while member.state.sync == plan.sync and member.origin == origin and not member.is_done():
        if may_train_ahead(member, offering):
            return True
        if offering.done():
            offering.result()
        await member.changed.wait(1.0)
    return False


def _is_behind(member: Member) -> bool:
    """Whether the due sync is known to be decided elsewhere: what would be offered for it, all would refuse."""
    return member.behind is not None or member.catching_up


def may_train(member: Member) -> bool:
    """Whether this member may take inner steps for the due sync, or offer what it carries where its lease has run dry."""
    state = member.state
    if _is_behind(member):
        return False
    if member.is_done() or member.leaving or not member.in_view() or not state.started(member.run.config.start_members):
        return False
    if member.own is not None or member.peer not in state.expected() or sits_out(member) or member.came_back:
        return False
    return member.carried.samples > 0 or intervals.total(state.leases.get(member.peer, ())) > 0


def may_train_ahead(member: Member, offering: asyncio.Future[None]) -> bool:
    """Whether this member may take inner steps for the next sync already: its replica holds what it offers for the due one."""
    if not member.run.config.outer.ahead_steps or member.carried.fresh or _is_behind(member):
        return False
    if member.leaving or not member.in_view() or member.run.is_done(member.state.sync + 1, member.state.tokens):
        return False
    if offering.done() and member.own is None:
        return False
    if member.run.config.outer.merge == "eager" and member.carried.point_sync != member.state.sync:
        return False
    return intervals.total(member.state.leases.get(member.peer, ())) > member.carried.samples > 0


def progress(member: Member) -> tuple[int, int]:
    """(steps done, steps planned) of the slot for the due sync; (0, 0) where none runs."""
    return member.ports.trainer.progress() if member.slot_sync == member.state.sync else (0, 0)


def sits_out(member: Member) -> bool:
    """Whether this sync is skipped: a root for it was written down before, so its bytes may have left, or this node came too late."""
    return member.own is None and member.sits_out_sync >= member.state.sync


def make_plan(member: Member, ahead: bool = False, steps_taken: int = 0) -> SlotPlan:
    """The slot for the due sync, from the front of the lease; one member, drawn by the state, evaluates, each time that all
    fragments have been synced.

    ahead: for the sync after the due one, as far as it is known before that is decided: it is taken to count as many tokens as
    the last one did. steps_taken: of the slot that this is the rest of.
    """
    state, outer = member.state, member.run.config.outer
    evaluator = min(state.expected(), key=lambda peer: digest("decentra/evaluate", member.hash, peer.encode()))
    at_once = member.carried.point_sync >= 0 and member.carried.point_sync == state.sync + ahead - 1
    plan = SlotPlan(
        sync=state.sync + ahead,
        lease=intervals.split(state.leases.get(member.peer, ()), member.carried.samples)[1],
        num_steps=outer.slot_steps,
        tokens_committed=state.tokens + ahead * state.tokens_last_sync,
        tokens_last_sync=state.tokens_last_sync,
        evaluate=evaluator == member.peer and not ahead and state.sync % outer.fragments == 0,
        fresh=member.carried.fresh,
        overlap_steps=ahead * outer.ahead_steps,
        alpha=float(at_once),
        provisional=at_once,
        inner=member.run.config.inner,
    )
    return member.phase.planned(plan, outer, member.now(), steps_taken)


async def _train(member: Member, plan: SlotPlan, origin: int, ahead: asyncio.Future[None] | None) -> SlotResult | None:
    """The slot's result; None where the swarm went on without it, or this node sits out, left the view or had its replica replaced."""
    start, member.slot_sync = member.now(), plan.sync
    member.marks.setdefault("slot", start)
    member.began_s = min(member.began_s, start)
    final = None if ahead is None else asyncio.ensure_future(_final_plan(member, plan, ahead))
    task = asyncio.ensure_future(member.ports.trainer.train(plan, final))
    try:
        while not task.done():
            wake = asyncio.ensure_future(member.changed.wait(1.0))
            await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
            wake.cancel()
            if member.origin != origin or not member.in_view() or member.is_done() or _is_void(member, plan):
                return None
        result = task.result()
    except ReplicaLost as lost:
        member.ports.note(f"sync {plan.sync}: {lost}; this node starts it again at the anchor")
        return None
    finally:
        member.slot_sync = -1
        # All are cancelled before any is waited for: who is cancelled here once more leaves nothing at work.
        left = [each for each in (task, final) if each is not None and not each.done()]
        for each in left:
            each.cancel()
        if left:
            await asyncio.wait(left)
        member.trained_until_s = member.now()
        member.trained_s += member.trained_until_s - start
    member.compute_s += result.compute_s
    if result.fault:
        member.ports.note(f"sync {plan.sync}: {result.fault}; this node {'leaves' if result.leave else 'sits the sync out'}")
        member.sits_out_sync = plan.sync
        if result.leave:
            member.leave()
        return None
    mind_step_time(member, result)
    member.steps_taken += result.num_steps
    member.overrun_s[plan.sync] = result.wait_s
    member.train_loss[plan.sync] = result.loss
    if result.heldout_loss is not None:
        member.heldout_loss[plan.sync] = result.heldout_loss
    return result


def _is_void(member: Member, plan: SlotPlan) -> bool:
    """Whether a slot that runs is of no use: its sync is decided or sat out, or what it goes on from was left out of the last one."""
    if member.state.sync > plan.sync or (plan.overlap_steps and member.carried.fresh):
        return True
    if member.state.sync == plan.sync:
        return sits_out(member)
    done, _ = member.ports.trainer.progress()
    if done >= plan.overlap_steps:
        member.say_once(f"sync {member.state.sync} outlasts the {done} steps that overlap with it; the trainer waits for it")
    return False


async def _final_plan(member: Member, plan: SlotPlan, offering: asyncio.Future[None]) -> SlotPlan:
    """A slot that began ahead, once the last offer is made and its sync decided.

    Where that counted this replica's offer, its fragment keeps its share of its own value; else it takes the anchor as it is.
    """
    await asyncio.shield(offering)
    while member.state.sync < plan.sync:
        await member.changed.wait(1.0)
    steps_taken, _ = member.ports.trainer.progress()
    share_kept = merge.share_kept(member.run.config.outer, member.carried.counted)
    return dataclasses.replace(make_plan(member, steps_taken=steps_taken), alpha=share_kept)


async def offer(member: Member, result: SlotResult, origin: int) -> None:
    """Encode, write the root down, tell every member. Nothing happens where the pseudo-gradient is not finite, or the replica
    that it was made on was replaced.
    """
    state, machine = member.state, member.run.machine
    # Before the encoding, during which the swarm may go on: then the offer is refused for its sync.
    steps, tokens = member.carried.steps, member.carried.tokens
    claim = intervals.split(state.leases.get(member.peer, ()), member.carried.samples)[0]
    fragment = machine.due(result.sync)
    try:
        made = await member.ports.run_blocking(_encode, member, fragment)
    except NotFiniteError as error:
        name = member.run.layout.tensor_of_chunk(fragment.first_chunk + error.chunk)
        member.ports.note(f"sync {result.sync}: the pseudo-gradient of {name} holds NaN or infinity; this node sits the sync out")
        member.sits_out_sync = result.sync
        member.carried.restart()
        return
    if member.run.config.outer.merge == "eager":
        await provisional.go_on_at_once(member, result.sync, tokens, made.packed)
    if member.origin != origin:
        return
    fragments = len(machine.fragments)
    blank = Offer(
        signed=b"",
        root=b"",
        sync=result.sync,
        fragment=fragment.index,
        sender=member.peer,
        incarnation=member.me.incarnation,
        base_sync=result.sync - fragments if result.sync >= fragments else -1,
        weight_tokens=tokens,
        num_steps=steps,
        claim=claim,
        codec=machine.up,
        num_chunks=fragment.num_chunks,
        blocks_digest=made.blocks_digest,
        lineage=state.lineage,
    )
    payload = records.contribution_payload(blank, member.run.run_id, made.norm)
    signed = member.ports.signer.sign(records.DOMAIN_OFFER, payload)
    named = dataclasses.replace(blank, signed=signed, root=records.root_of(payload))
    await member.ports.run_blocking(_write_down, member, named, made)
    _publish(member, named, HeldContribution(named, made.block_digests, dict(enumerate(made.blocks))))


def _encode(member: Member, fragment: Fragment) -> Encoded:
    machine, where = member.run.machine, fragment.elements
    before, counted = None, member.state.member(member.peer)
    if machine.feedback and counted is not None:
        num_elements = fragment.num_chunks * CHUNK_ELEMENTS
        before = member.residuals.before(fragment.index, counted.last_roots[fragment.index], num_elements)
    base, local = provisional.base_of(member, fragment), member.ports.trainer.local[where]
    return encode_contribution(machine.codecs[machine.up], base, local, before, machine.feedback)


def _write_down(member: Member, named: Offer, made: Encoded) -> None:
    """Residual, root and payload, before the first byte leaves: a restarted member sends the same bytes, or sits the sync out."""
    store = member.ports.store
    if made.residual is not None:
        member.residuals.keep(named.fragment, named.root.hex(), made.residual)
    store.files.write(PAYLOAD, len(named.signed).to_bytes(4, "little"), named.signed, *made.blocks)
    store.save_offer(named.sync, named.signed, named.lineage)


async def resume(member: Member) -> None:
    """Offer again, in the same bytes, what was written down for the due sync before a restart."""
    written = await member.ports.run_blocking(_read_back, member)
    if written is not None and member.sits_out_sync == written.offer.sync:
        member.ports.note(f"sync {written.offer.sync}: offering again what was made before the restart")
        _publish(member, written.offer, written)


def _read_back(member: Member) -> HeldContribution | None:
    raw = member.ports.store.files.read(PAYLOAD)
    if raw is None:
        return None
    start = 4 + int.from_bytes(raw[:4], "little")
    try:
        made = records.open_offer(member.ports.verifier, member.run.run_id, raw[4:start])
    except ValueError:
        return None
    codec = member.run.machine.codecs.get(made.codec)
    if codec is None or len(raw) - start != made.num_chunks * codec.chunk_bytes or made.sender != member.peer:
        return None
    blocks, digests, root = cut(torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).view(made.num_chunks, -1))
    return HeldContribution(made, digests, dict(enumerate(blocks))) if root == made.blocks_digest else None


def _publish(member: Member, made: Offer, contribution: HeldContribution) -> None:
    """Hold one's own contribution and tell every member; nothing where it can no longer be counted."""
    if member.fault_of(made) or member.book.add(made):
        return
    member.parts.held[made.root] = contribution
    member.arrived.notify()
    member.own = made
    member.mark("offered")
    member.mark_half()
    member.marks["last_offer"] = member.now()
    member.wait("the offers of others")
    member.changed.notify()
    request = rounds_pb2.Request(offer=rounds_pb2.Offer(contribution=records.to_signed(made.signed)))
    for peer in member.within_reach(member.state.peers()):
        member.spawn(member.tell(peer, request))
