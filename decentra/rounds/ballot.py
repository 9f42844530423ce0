"""The ballot: single-decree Paxos per entry, attempt b belonging to the b-th leader of the order. Pure.

A member that promised b obeys no lower attempt; a leader of b > 0 must propose the accepted entry of the highest
ballot that a quorum of promises shows (Lamport, Paxos Made Simple, section 2.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decentra.ledger.state import Member
from decentra.ledger.store import Vote
from decentra.rounds.view import is_quorum
from decentra.types import Digest, PeerId


@dataclass(frozen=True, slots=True)
class VotePayload:
    """What a vote signs."""

    run_id: bytes
    lineage: str
    r: int
    ballot: int
    entry_digest: Digest
    voter: PeerId
    incarnation: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """Votes (signed bytes) of one ballot for one entry."""

    r: int
    ballot: int
    entry_digest: Digest
    votes: tuple[bytes, ...]


def fresh(vote: Vote, r: int) -> Vote:
    """The vote for entry r: a vote for an earlier entry is spent."""
    return vote if vote.r == r else Vote(r, lineage=vote.lineage)


def promise(vote: Vote, ballot: int) -> Vote | None:
    """The vote after promising `ballot`; None where something higher was promised or this ballot was already voted in."""
    if ballot < vote.promised or (ballot == vote.promised and vote.accepted_ballot == ballot):
        return None
    return dataclasses.replace(vote, promised=ballot)


def accept(vote: Vote, ballot: int, entry: bytes) -> Vote | None:
    """The vote after accepting an entry in `ballot`; None where a promise or another entry of this ballot forbids it."""
    if ballot < vote.promised:
        return None
    if vote.accepted_ballot == ballot and vote.accepted_entry != entry:
        return None
    return dataclasses.replace(vote, promised=ballot, accepted_ballot=ballot, accepted_entry=entry)


def may_propose(vote: Vote, ballot: int, entry: bytes) -> bool:
    """Whether a leader may send this proposal: never two entries in one ballot, never a ballot below one it used."""
    return ballot > vote.proposed or (ballot == vote.accepted_ballot and vote.accepted_entry == entry)


def forced_entry(promises: Sequence[tuple[int, bytes]]) -> bytes:
    """The entry a leader must propose: of the highest accepted ballot among (ballot, entry) pairs; b"" if none."""
    return max(promises, key=lambda pair: pair[0], default=(-1, b""))[1]


OpenVote = Callable[[bytes], VotePayload]
"""Verify a signed vote and parse it. Raises ValueError."""


def certificate_fault(
    certificate: Certificate, run_id: bytes, lineage: str, r: int, entry_digest: Digest, members: Sequence[Member], open_vote: OpenVote
) -> str:
    """Why a certificate does not commit the entry under this view; "" where it does."""
    if (certificate.r, certificate.entry_digest) != (r, entry_digest):
        return f"the certificate is for another entry than {r}"
    if len(certificate.votes) > len(members):
        return f"the certificate holds {len(certificate.votes)} votes of a view of {len(members)}"
    incarnation_of = {m.peer: m.incarnation for m in members}
    voters: set[PeerId] = set()
    for signed in certificate.votes:
        try:
            vote = open_vote(signed)
        except ValueError as error:
            return f"a vote does not verify: {error}"
        named = (vote.run_id, vote.lineage, vote.r, vote.ballot, vote.entry_digest)
        if named != (run_id, lineage, r, certificate.ballot, entry_digest):
            return f"a vote of {vote.voter[:8]} is for something else"
        if incarnation_of.get(vote.voter) == vote.incarnation:
            voters.add(vote.voter)
    return "" if is_quorum(members, voters) else f"{len(voters)} votes are no quorum of a view of {len(members)}"
