"""Entries, certificates, votes and offers come back from the wire as they were."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.entry import Counted, Entry, Sum, Term
from decentra.ledger.state import Member, Part
from decentra.ledger.store import Snapshot
from decentra.rounds import records
from decentra.rounds.ballot import Certificate, VotePayload
from decentra.rounds.offers import Offer

SIGNER, OTHER = (IdentitySigner(Identity.from_seed(bytes([n]) * 32)) for n in (1, 2))
VERIFIER = MemoVerifier()

names = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=32)
digests = st.binary(min_size=32, max_size=32)
wide, narrow = st.integers(0, 2**62), st.integers(0, 2**31 - 1)
intervals = st.lists(st.tuples(wide, wide), max_size=4).map(tuple)
leases = st.dictionaries(names, intervals, max_size=4)
members = st.builds(Member, names, wide, st.booleans(), st.integers(1, 2**32 - 1), wide, wide)
parts = st.lists(st.builds(Part, narrow, narrow, names), max_size=4).map(tuple)
terms = st.lists(st.builds(Term, digests, st.integers(0, 2**32 - 1)), max_size=3).map(tuple)
entries = st.builds(
    Entry,
    run_id=st.binary(min_size=16, max_size=16),
    lineage=st.binary(max_size=32).map(bytes.hex),
    r=wide,
    state_hash=digests,
    sync=st.none() | wide,
    fragment=narrow,
    counted=st.lists(st.builds(Counted, names, wide, digests, wide, narrow, intervals, st.integers(-1, 2**31)), max_size=3).map(tuple),
    sums=st.lists(st.builds(Sum, narrow, narrow, names, terms), max_size=3).map(tuple),
    heard=st.lists(names, max_size=4).map(tuple),
    admitted=st.lists(members, max_size=3).map(tuple),
    removed=st.lists(names, max_size=3).map(tuple),
    returned=leases,
    granted=leases,
    next_parts=parts,
    settings=st.text(max_size=20),
)


@settings(max_examples=100, deadline=None)
@given(entries)
def test_an_entry_comes_back_with_its_grants_in_their_order(entry: Entry) -> None:
    data = records.entry_bytes(entry)
    found = records.parse_entry(data)
    assert found == entry and list(found.granted) == list(entry.granted)
    assert list(found.returned) == sorted(entry.returned)
    assert records.entry_bytes(found) == data


@settings(max_examples=50, deadline=None)
@given(members)
def test_what_the_ledger_knows_of_a_member_does_not_travel(member: Member) -> None:
    known = dataclasses.replace(member, first_sync=7, unheard_syncs=2, last_claim_samples=9, last_roots=("ab",))
    assert records.of_member(records.to_member(known)) == member


def offer_of(signer: IdentitySigner) -> Offer:
    return Offer(b"", b"", 4, 0, signer.peer, 2**61, 3, 123456789, 25, ((5, 9), (1, 2)), "int8", 77, b"d" * 32, "0badf00d")


def test_an_offer_comes_back_under_the_root_that_its_payload_names() -> None:
    payload = records.contribution_payload(offer_of(SIGNER), b"run", 1.5)
    signed = SIGNER.sign(records.DOMAIN_OFFER, payload)
    found = records.open_offer(VERIFIER, b"run", signed)
    assert found == dataclasses.replace(offer_of(SIGNER), signed=signed, root=records.root_of(payload))
    changed = [
        {"sync": 5}, {"incarnation": 2}, {"base_sync": -1}, {"weight_tokens": 1}, {"claim": ()}, {"blocks_digest": b"e" * 32},
        {"sender": "x"}, {"lineage": ""},
    ]  # fmt: skip
    offers = [dataclasses.replace(offer_of(SIGNER), **change) for change in changed]
    roots = {records.root_of(records.contribution_payload(offer, b"run", 1.5)) for offer in offers}
    assert len(roots | {found.root}) == len(changed) + 1


def test_an_offer_of_somebody_else_of_another_run_or_in_another_domain_is_refused() -> None:
    payload = records.contribution_payload(offer_of(SIGNER), b"run", 1.0)
    with pytest.raises(ValueError, match="is signed by"):
        records.open_offer(VERIFIER, b"run", OTHER.sign(records.DOMAIN_OFFER, payload))
    with pytest.raises(ValueError, match="for another run"):
        records.open_offer(VERIFIER, b"other", SIGNER.sign(records.DOMAIN_OFFER, payload))
    with pytest.raises(ValueError):
        records.open_offer(VERIFIER, b"run", SIGNER.sign(records.DOMAIN_VOTE, payload))


def test_a_changed_byte_of_a_signed_offer_is_refused() -> None:
    signed = SIGNER.sign(records.DOMAIN_OFFER, records.contribution_payload(offer_of(SIGNER), b"run", 1.0))
    for at in range(0, len(signed), 7):
        with pytest.raises(ValueError):
            records.open_offer(VERIFIER, b"run", signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :])


def vote_of(signer: IdentitySigner) -> VotePayload:
    return VotePayload(b"run", "0bad", 9, 3, b"e" * 32, signer.peer, 2**61)


def test_a_vote_comes_back_and_only_its_voter_may_sign_it() -> None:
    signed = SIGNER.sign(records.DOMAIN_VOTE, records.vote_payload(vote_of(SIGNER)))
    assert records.open_vote(VERIFIER, signed) == vote_of(SIGNER)
    with pytest.raises(ValueError, match="is signed by"):
        records.open_vote(VERIFIER, OTHER.sign(records.DOMAIN_VOTE, records.vote_payload(vote_of(SIGNER))))


def test_a_certificate_comes_back_with_the_very_bytes_of_its_votes() -> None:
    votes = tuple(s.sign(records.DOMAIN_VOTE, records.vote_payload(vote_of(s))) for s in (SIGNER, OTHER))
    certificate = Certificate(9, 3, b"e" * 32, votes)
    assert records.parse_certificate(records.certificate_bytes(certificate)) == certificate


def test_a_snapshots_link_comes_back() -> None:
    snapshot = Snapshot(8, b"{}", b"p" * 32, b"e" * 32)
    assert records.of_snapshot(records.to_snapshot(snapshot)) == snapshot


def test_bytes_that_are_no_message_are_a_value_error() -> None:
    for parse in (records.parse_entry, records.parse_certificate, records.to_signed):
        with pytest.raises(ValueError):
            parse(b"\xff\xff\xff\xff")
