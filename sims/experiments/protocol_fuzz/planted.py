"""Bugs planted on purpose: the fuzzer must find each, or it proves nothing.

Each is a context manager that patches the product in this process. Where a second line of defence would hide a bug, it is
taken away too, and the docstring says which.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from decentra.ledger import apply
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Entry
from decentra.ledger.files import MemoryFiles
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import State, Transition, move_leases
from decentra.ledger.store import Store, Vote
from decentra.outer.fragments import Fragment
from decentra.rounds import accept, ballot, compose, contribute, exchange, lead, leases, life, meeting, provisional, records
from decentra.rounds.carried import Carried
from decentra.rounds.member import Member
from decentra.rounds.offers import Offer, OfferBook
from decentra.rounds.parts import HeldContribution
from decentra.rounds.residuals import FOLDER, Residuals
from decentra.types import Intervals, PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2


@contextlib.contextmanager
def patched(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    """Replace attributes (owner, name, value) for as long as the context lasts."""
    saved = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in saved:
            setattr(owner, name, value)


# -- the ballot ---------------------------------------------------------------------------------------------------------


def no_promise_phase() -> AbstractContextManager[None]:
    """A later leader proposes its own entry without asking for promises, and nobody who accepts looks at what it promised."""

    async def prepare(member: Member, attempt: int) -> bytes:
        await lead._gather_quorum(member, attempt)
        return b""

    def accepted(vote: Vote, number: int, entry: bytes) -> Vote | None:
        return dataclasses.replace(vote, promised=max(vote.promised, number), accepted_ballot=number, accepted_entry=entry)

    return patched((lead, "_prepare", prepare), (ballot, "accept", accepted))


def nameless_ballots() -> AbstractContextManager[None]:
    """A signature names run, round and entry, not the ballot; so a leader that must propose an entry again counts whoever
    signed it in an earlier attempt. The leader's and the certificate's own checks of the ballot go with it."""
    payload, fault, quorum, sign = records.vote_payload, meeting.certificate_fault, lead.is_quorum, accept._signed_vote
    judge_vote = accept.vote_fault
    signed: dict[tuple[int, bytes], dict[PeerId, bytes]] = {}

    def vote_payload(vote: ballot.VotePayload) -> bytes:
        return payload(dataclasses.replace(vote, ballot=0))

    def certificate_fault(certificate: ballot.Certificate, *rest: Any) -> str:
        return fault(dataclasses.replace(certificate, ballot=0), *rest)

    def vote_fault(member: Member, voter: PeerId, message: rounds_pb2.Proposal, vote: bytes) -> str:
        nameless = rounds_pb2.Proposal()
        nameless.CopyFrom(message)
        nameless.ballot = 0
        return judge_vote(member, voter, nameless, vote)

    def signed_vote(member: Member, message: rounds_pb2.Proposal, lineage: str) -> bytes:
        vote = sign(member, message, lineage)
        signed.setdefault((message.r, entry_digest(message.entry)), {})[member.peer] = vote
        return vote

    def is_quorum(view: Sequence[ViewMember], peers: Collection[PeerId]) -> bool:
        if isinstance(peers, dict) and peers and all(isinstance(vote, bytes) for vote in peers.values()):
            vote = swarm_pb2.Vote.FromString(records.to_signed(next(iter(peers.values()))).payload)
            peers.update(signed.get((vote.r, vote.entry_digest), {}))
        return quorum(view, peers)

    return patched(
        (records, "vote_payload", vote_payload), (meeting, "certificate_fault", certificate_fault),
        (accept, "_signed_vote", signed_vote), (accept, "vote_fault", vote_fault), (lead, "is_quorum", is_quorum),
    )  # fmt: skip


def lost_disk_votes_again() -> AbstractContextManager[None]:
    """An empty vote store does not get a new incarnation, so a member that lost its disk goes on as who it was."""
    open_vote = Store._open_vote

    def same_incarnation(store: Store, make_incarnation: Callable[[], int] | None) -> None:
        open_vote(store, (lambda: 1) if make_incarnation is not None else None)

    return patched((Store, "_open_vote", same_incarnation))


def commit_before_held() -> AbstractContextManager[None]:
    """A member accepts without holding the blobs; it pulls them once the entry is certified."""
    consider = accept.consider

    class NoHurry:
        async def blobs_of(self, entry: Entry, holders: Sequence[PeerId]) -> None:
            return

    class Hasty:
        """The member, but for its fetcher."""

        def __init__(self, member: Member) -> None:
            self._member, self.fetcher = member, NoHurry()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._member, name)

    async def hastily(member: Member, sender: PeerId, message: rounds_pb2.Proposal) -> rounds_pb2.Accept:
        return await consider(Hasty(member), sender, message)  # type: ignore[arg-type]

    return patched((accept, "consider", hastily))


# -- contributions ------------------------------------------------------------------------------------------------------


def mixed_versions() -> AbstractContextManager[None]:
    """An owner that is offered another version of a contribution keeps the blocks it has of the first, and goes on with both.

    So that there are two versions at all, a restarted member trains and offers again, and the offer book takes the second.
    """
    take = exchange.take_offer
    versions: dict[tuple[PeerId, int], list[bytes]] = {}

    def add(book: OfferBook, offer: Offer) -> str:
        roots = versions.setdefault((offer.sender, offer.sync), [])
        if offer.root not in roots:
            roots.append(offer.root)
        known = book.offers.get(offer.sender)
        if known is None or roots.index(offer.root) > roots.index(known.root):
            book.offers[offer.sender] = offer
        return ""

    def take_offer(member: Member, signed: bytes) -> str:
        before = dict(member.book.offers)
        fault = take(member, signed)
        for sender, offer in member.book.offers.items():
            known = before.get(sender)
            if known is not None and known.root != offer.root and (held := member.parts.held.pop(known.root, None)):
                member.parts.held[offer.root] = HeldContribution(offer, held.block_digests, held.blocks)
        return fault

    async def forget(member: Member) -> None:
        return

    def never(member: Member) -> bool:
        return False

    return patched(
        (OfferBook, "add", add), (exchange, "take_offer", take_offer), (contribute, "resume", forget),
        (contribute, "sits_out", never), (exchange, "sits_out", never), (compose, "sits_out", never),
    )  # fmt: skip


def claim_counted_twice() -> AbstractContextManager[None]:
    """A counted claim stays in its sender's lease, which trains and claims it again. Validators use the same wrong rule."""
    settle = leases.settle

    def settle_wrongly(
        state: State, claims: dict[PeerId, Intervals], removed: Sequence[PeerId], next_members: Sequence[ViewMember]
    ) -> Transition:
        return dataclasses.replace(settle(state, {}, removed, next_members), claims=claims)

    def move_wrongly(state: State, change: Transition) -> tuple[dict[PeerId, Intervals], int, Intervals]:
        return move_leases(state, dataclasses.replace(change, claims={}))

    return patched((leases, "settle", settle_wrongly), (apply, "move_leases", move_wrongly))


def residual_sent_twice() -> AbstractContextManager[None]:
    """The first residual that a restarted member takes is the one before the contribution that was counted meanwhile."""
    before = Residuals.before

    def stale(kept: Residuals, fragment: int, counted_root: str, num_elements: int) -> torch.Tensor | None:
        held = f"{FOLDER}/{fragment}/{counted_root}"
        others = [name for name in kept._files.names(f"{FOLDER}/{fragment}") if name != held]
        first = not hasattr(kept, "asked")
        kept.asked = True  # type: ignore[attr-defined]
        if first and counted_root and others:
            aside = MemoryFiles()
            aside.write(others[0], kept._files.read(others[0]) or b"")
            return before(Residuals(aside), fragment, others[0].rsplit("/", 1)[1], num_elements)
        return before(kept, fragment, counted_root, num_elements)

    return patched((Residuals, "before", stale))


def tag_per_peer() -> AbstractContextManager[None]:
    """S keeps one last counted root a member, not one a fragment."""
    counted = apply._counted

    def counted_once(member: ViewMember, entry: Entry) -> ViewMember:
        after = counted(member, entry)
        root = after.last_roots[entry.fragment]
        return dataclasses.replace(after, last_roots=(root,) * len(after.last_roots)) if after is not member else member

    return patched((apply, "_counted", counted_once))


# -- coming and going ---------------------------------------------------------------------------------------------------


def leaver_takes_certificate() -> AbstractContextManager[None]:
    """A leaver goes at once when an entry lets it go, whoever else holds the certificate."""
    pass_on = life._pass_on

    async def go(member: Member) -> None:
        if not member.leaving:
            await pass_on(member)

    return patched((life, "_pass_on", go))


def dead_incarnation_heard() -> AbstractContextManager[None]:
    """Whoever sends under a member's name is heard as that member, of whatever incarnation; so it is no newcomer either."""
    movers = compose._movers

    def heard(member: Member) -> tuple[PeerId, ...]:
        fresh = {peer for peer, beat in member.beats.items() if member.is_fresh(beat)} | {member.peer}
        return tuple(p for p in member.state.peers() if p in fresh)

    def known_movers(member: Member) -> tuple[list[ViewMember], list[PeerId]]:
        newcomers, leavers = movers(member)
        return [m for m in newcomers if m.peer not in member.state.peers()], leavers

    return patched((Member, "heard", heard), (compose, "_movers", known_movers))


def replica_kept() -> AbstractContextManager[None]:
    """A member that finds itself out of the view, or left behind in mid-slot, forgets its samples, but not what they did to
    its replica."""
    restart = Carried.restart

    def kept(carried: Carried) -> None:
        fresh = carried.fresh or carried.num_fragments == 1
        restart(carried)
        carried.fresh = fresh

    return patched((Carried, "restart", kept))


def one_fragment_taken_over() -> AbstractContextManager[None]:
    """A replica that missed two syncs takes over the fragment of the last one alone."""
    decided = Carried.decided

    def as_if_the_first(carried: Carried, counted: bool, fragment: int) -> None:
        carried.behind = 0
        decided(carried, counted, fragment)

    return patched((Carried, "decided", as_if_the_first))


def last_contribution_sent_twice() -> AbstractContextManager[None]:
    """Where merges are eager, a contribution is against the agreed anchor, not the point that the replica went on from."""

    def base_of(member: Member, fragment: Fragment) -> torch.Tensor:
        return member.tensors.anchor[fragment.elements]

    return patched((provisional, "base_of", base_of))


def point_kept() -> AbstractContextManager[None]:
    """Where merges are eager, a replica that was left out goes on from its provisional point's base all the same."""
    decided = Carried.decided

    def forgetful(carried: Carried, counted: bool, fragment: int) -> None:
        points = dict(carried.points)
        decided(carried, counted, fragment)
        if not carried.fresh:
            carried.points.update(points)

    return patched((Carried, "decided", forgetful))


PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no promise phase": no_promise_phase,
    "nameless ballots": nameless_ballots,
    "lost disk votes again": lost_disk_votes_again,
    "commit before held": commit_before_held,
    "mixed versions": mixed_versions,
    "claim counted twice": claim_counted_twice,
    "residual sent twice": residual_sent_twice,
    "tag per peer": tag_per_peer,
    "leaver takes certificate": leaver_takes_certificate,
    "dead incarnation heard": dead_incarnation_heard,
    "replica kept": replica_kept,
    "one fragment taken over": one_fragment_taken_over,
    "last contribution sent twice": last_contribution_sent_twice,
    "point kept": point_kept,
}
"""By the name that --planted takes."""
