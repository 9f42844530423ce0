"""Offers: which contributions are known, held, and may be closed over. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from decentra.ledger import intervals
from decentra.ledger.state import Part, State
from decentra.types import Digest, Intervals, PeerId

STRAGGLER_RATIO = 1.0
"""Once half have offered, the rest gets this much of the time that half took."""

STRAGGLER_FLOOR_S = 3.0

HEARTBEATS_A_PHASE = 50


@dataclass(frozen=True, slots=True)
class Offer:
    """A contribution's name and what it claims. signed: the bytes its sender signed; root: their payload's digest."""

    signed: bytes
    root: Digest
    sync: int
    fragment: int
    sender: PeerId
    incarnation: int
    base_sync: int
    weight_tokens: int
    num_steps: int
    claim: Intervals
    codec: str
    num_chunks: int
    blocks_digest: Digest
    lineage: str


def offer_fault(offer: Offer, state: State, num_fragments: int, num_chunks: int, codec: str, tokens_a_sample: int) -> str:
    """Why an offer cannot be counted in the due sync of `state`; "" where it can."""
    lease = state.leases.get(offer.sender, ())
    member = state.member(offer.sender)
    base = offer.sync - num_fragments if offer.sync >= num_fragments else -1
    checks = (
        (member is None, "the sender is not in the view"),
        (member is not None and member.incarnation != offer.incarnation, "it comes from another incarnation of the sender"),
        (offer.sync != state.sync, f"it is for sync {offer.sync}, due is {state.sync}"),
        (offer.lineage != state.lineage, "it is of another lineage"),
        (offer.fragment != offer.sync % num_fragments, f"fragment {offer.fragment} is not due"),
        (offer.base_sync != base, f"its base is sync {offer.base_sync}, not {base}"),
        (
            (offer.codec, offer.num_chunks) != (codec, num_chunks),
            f"it is {offer.num_chunks} chunks of {offer.codec}, not {num_chunks} of {codec}",
        ),
        (not 0 < offer.num_steps < 1 << 32, f"it took {offer.num_steps} steps"),
        # Counted first: a claim is no longer than its lease, whatever it says.
        (len(offer.claim) > len(lease) or not intervals.is_prefix(offer.claim, lease), "its claim is not a prefix of its lease"),
        (
            offer.weight_tokens < 1 or offer.weight_tokens != intervals.total(offer.claim) * tokens_a_sample,
            f"its weight {offer.weight_tokens} is not that of {intervals.total(offer.claim)} samples of {tokens_a_sample} tokens",
        ),
    )
    return next((reason for fails, reason in checks if fails), "")


@dataclass(slots=True)
class OfferBook:
    """Offers of the due sync by sender. It stays valid across entries without contributions and across leaders."""

    sync: int = 0
    offers: dict[PeerId, Offer] = field(default_factory=dict)

    def turn(self, sync: int) -> None:
        """Forget offers of earlier syncs."""
        if sync != self.sync:
            self.sync, self.offers = sync, {}

    def add(self, offer: Offer) -> str:
        """Note an offer that has no fault. Returns why it is refused, "" where it is noted or known."""
        known = self.offers.get(offer.sender)
        if known is not None and known.root != offer.root:
            return f"a second root of {offer.sender[:8]} for sync {offer.sync}"
        self.offers.setdefault(offer.sender, offer)
        return ""


def held_everywhere(offers: Mapping[PeerId, Offer], parts: Sequence[Part], held: Mapping[PeerId, Collection[Digest]]) -> list[Offer]:
    """Offers whose blocks every owner of the map holds, ordered by sender."""
    owners = {part.owner for part in parts}
    return [offers[s] for s in sorted(offers) if all(offers[s].root in held.get(owner, ()) for owner in owners)]


def gathered(
    offers: Mapping[PeerId, Offer], held: Mapping[PeerId, Collection[Digest]], leader: PeerId, present: Collection[PeerId]
) -> list[Offer]:
    """Offers held whole by this leader and by two members other than their sender, or all where these are fewer; by sender."""
    found = []
    for sender in sorted(offers):
        root, others = offers[sender].root, [p for p in present if p != sender]
        holders = [p for p in others if root in held.get(p, ())]
        if root in held.get(leader, ()) and len(holders) >= min(2, len(others)):
            found.append(offers[sender])
    return found


def close_deadline_s(round_start_s: float, half_offered_s: float, attempt: int) -> float:
    """When the leader stops waiting for stragglers: a fixed ratio of what the first half took, doubled by attempts."""
    wait = max(STRAGGLER_FLOOR_S, STRAGGLER_RATIO * (half_offered_s - round_start_s))
    return half_offered_s + wait * float(2 ** min(attempt, 4))


def head_start_s(took_s: float, ahead_s: float, overlap_steps: int, slot_steps: int) -> float:
    """What is added to `took_s`, from the round's start to half of the offers, where slots begin ahead of the round.

    The half took less than a slot then, but who starts with the round takes a whole one, and has until twice that after the
    round's start, as without overlap. ahead_s: how long before it the half began; that round may have stood still, so no more
    counts than the overlap steps can have taken. Where a whole slot overlaps, nothing tells how long one takes.
    """
    if overlap_steps >= slot_steps:
        return 2 * ahead_s
    most_s = max(took_s, STRAGGLER_FLOOR_S) * overlap_steps / (slot_steps - overlap_steps)
    return 2 * min(ahead_s, most_s)


def heartbeat_period_s(phase_s: float, progress: Iterable[tuple[int, int]]) -> float:
    """How often members need to speak in a phase that is `phase_s` old: a fixed share of what it still takes.

    progress: (steps done, steps planned) of those who are still training; who has not begun says nothing.
    """
    return max((phase_s * (planned - done) / done for done, planned in progress if 0 < done < planned), default=0.0) / HEARTBEATS_A_PHASE


def median_share(num_offered: int, progress: Iterable[tuple[int, int]]) -> float:
    """Share of the due slot that the lower median of some members has done, 0 to 1; 0 where there are none.

    progress: (steps done, steps planned) of those who have not offered.
    """
    shares = sorted([*(min(1.0, done / planned) if planned else 0.0 for done, planned in progress), *(1.0 for _ in range(num_offered))])
    return shares[(len(shares) - 1) // 2] if shares else 0.0


def lags_too_far(lag: float, num_members: int) -> bool:
    """Whether the swarm takes more samples in a second without the one of its members that is `lag`, a share of a slot, behind the others.

    With it there are num_members slots in 1 + lag of a slot's time, else num_members - 1 in one.
    """
    return lag * (num_members - 1) > 1.0


def half_offered(expected: Collection[PeerId], offered: Collection[PeerId]) -> bool:
    """Whether at least half of the members waited for have offered."""
    return 2 * len(set(offered) & set(expected)) >= len(set(expected))
