"""The ballot: promises and acceptances never go back, and no two certificates of one entry number disagree."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.ledger.state import Member
from decentra.ledger.store import Vote
from decentra.rounds import ballot
from decentra.rounds.ballot import Certificate, VotePayload
from decentra.rounds.view import is_quorum

steps = st.lists(
    st.tuples(st.sampled_from(["promise", "accept"]), st.integers(0, 6), st.sampled_from([b"one", b"two", b"three"])), max_size=30
)


@given(steps)
def test_promises_and_acceptances_never_go_back(plot: list[tuple[str, int, bytes]]) -> None:
    vote, accepted = Vote(4), dict[int, bytes]()
    for verb, number, entry in plot:
        after = ballot.promise(vote, number) if verb == "promise" else ballot.accept(vote, number, entry)
        if number < vote.promised:
            assert after is None
        if after is None:
            continue
        assert after.r == 4 and after.promised == max(number, vote.promised) and after.accepted_ballot >= vote.accepted_ballot
        if verb == "promise":
            assert (after.accepted_ballot, after.accepted_entry) == (vote.accepted_ballot, vote.accepted_entry)
            assert after.accepted_ballot != number, "promised a ballot it has voted in"
        else:
            assert accepted.setdefault(number, entry) == entry, "two entries accepted in one ballot"
        vote = after


def test_a_vote_for_an_earlier_entry_is_spent() -> None:
    assert ballot.fresh(Vote(3, 5, 5, b"x", 5), 4) == Vote(4)
    assert ballot.fresh(Vote(4, 5, 5, b"x", 5), 4) == Vote(4, 5, 5, b"x", 5)


def test_the_accepted_entry_of_the_highest_ballot_is_forced() -> None:
    assert ballot.forced_entry([]) == b""
    assert ballot.forced_entry([(1, b"one"), (4, b"four"), (2, b"two")]) == b"four"


def test_a_leader_proposes_once_in_a_ballot_and_may_repeat_what_it_accepted() -> None:
    assert ballot.may_propose(Vote(1), 0, b"x")
    used = Vote(1, promised=2, accepted_ballot=2, accepted_entry=b"x", proposed=2)
    assert ballot.may_propose(used, 2, b"x") and ballot.may_propose(used, 3, b"y")
    assert not ballot.may_propose(used, 2, b"y") and not ballot.may_propose(used, 1, b"x")


class Swarm:
    """Acceptors with nothing but the pure functions. A message reaches any subset of them, at any time, again and again."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.members = tuple(Member(f"m{n}", 1, True, 4) for n in range(size))
        self.rng = rng
        self.votes = {m.peer: Vote(0) for m in self.members}
        self.promises: dict[int, dict[str, tuple[int, bytes]]] = {}
        self.proposals: dict[int, bytes] = {}
        self.accepts: dict[tuple[int, bytes], set[str]] = {}
        self.certified: set[bytes] = set()

    def run(self, num_steps: int) -> Swarm:
        for _ in range(num_steps):
            number = self.rng.randrange(6)
            reached = [m.peer for m in self.members if self.rng.random() < 0.5]
            if self.rng.random() < 0.4:
                self.prepare(number, reached)
            else:
                self.propose(number, reached)
        return self

    def prepare(self, number: int, reached: list[str]) -> None:
        for peer in reached:
            vote = ballot.promise(self.votes[peer], number)
            if vote is not None:
                self.votes[peer] = vote
                self.promises.setdefault(number, {})[peer] = (vote.accepted_ballot, vote.accepted_entry)

    def propose(self, number: int, reached: list[str]) -> None:
        """The leader forgets all but its vote at every step, as if it had restarted; what it sent travels on."""
        leader, given = self.members[number % len(self.members)].peer, self.promises.get(number, {})
        if number == 0 or is_quorum(self.members, given):
            entry = ballot.forced_entry(list(given.values())) or b"%s in %d, %d" % (leader.encode(), number, self.rng.randrange(1000))
            if ballot.may_propose(self.votes[leader], number, entry):
                vote = ballot.accept(self.votes[leader], number, entry)
                if vote is not None:
                    self.votes[leader] = dataclasses.replace(vote, proposed=number)
                    self.proposals[number] = entry
                    self.count(number, leader, entry)
        for peer in reached:
            vote = ballot.accept(self.votes[peer], number, self.proposals[number]) if number in self.proposals else None
            if vote is not None:
                self.votes[peer] = vote
                self.count(number, peer, self.proposals[number])

    def count(self, number: int, peer: str, entry: bytes) -> None:
        voters = self.accepts.setdefault((number, entry), set())
        voters.add(peer)
        if is_quorum(self.members, voters):
            self.certified.add(entry)


@settings(max_examples=600, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32))
def test_two_certificates_for_different_entries_cannot_exist(size: int, seed: int) -> None:
    assert len(Swarm(size, random.Random(seed)).run(40).certified) <= 1


def test_the_random_schedules_do_certify_and_do_contend() -> None:
    ends = [Swarm(2 + seed % 6, random.Random(seed)).run(40) for seed in range(200)]
    assert sum(len(end.certified) for end in ends) > 8
    assert sum(len({entry for _, entry in end.accepts}) > 1 for end in ends) > 8


@pytest.mark.parametrize("broken", ["forced_entry", "accept", "promise", "quorum"])
def test_the_random_schedules_find_a_broken_rule(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    replace = dataclasses.replace
    if broken == "forced_entry":
        monkeypatch.setattr(ballot, "forced_entry", lambda pairs: min((p for p in pairs if p[1]), default=(-1, b""))[1])
    elif broken == "accept":
        monkeypatch.setattr(ballot, "accept", lambda vote, n, entry: replace(vote, accepted_ballot=n, accepted_entry=entry))
    elif broken == "promise":
        monkeypatch.setattr(ballot, "promise", lambda vote, n: replace(vote, promised=n))
    else:
        monkeypatch.setitem(globals(), "is_quorum", lambda members, peers: 2 * len(peers) >= len(members))
    assert any(len(Swarm(2 + seed % 6, random.Random(seed)).run(40).certified) > 1 for seed in range(2000))


# -- certificates -------------------------------------------------------------------------------------------------------

MEMBERS = tuple(Member(name, 1, True, 4) for name in "abc")
GOOD = VotePayload(b"run", "", 7, 2, b"digest", "a", 1)


def fault(*votes: VotePayload, certificate: Certificate | None = None) -> str:
    book = {bytes([n]): vote for n, vote in enumerate(votes)}

    def open_vote(signed: bytes) -> VotePayload:
        if signed not in book:
            raise ValueError("bad signature")
        return book[signed]

    made = certificate or Certificate(7, 2, b"digest", tuple(book))
    return ballot.certificate_fault(made, b"run", "", 7, b"digest", MEMBERS, open_vote)


def test_votes_of_a_quorum_make_a_certificate() -> None:
    assert fault(GOOD, dataclasses.replace(GOOD, voter="c")) == ""


@pytest.mark.parametrize(
    "change", [{"run_id": b"other"}, {"lineage": "01"}, {"r": 8}, {"ballot": 3}, {"entry_digest": b"other"}]
)
def test_a_vote_for_anything_else_spoils_a_certificate(change: dict[str, object]) -> None:
    assert fault(GOOD, dataclasses.replace(GOOD, voter="b", **change)) == "a vote of b is for something else"


def test_strangers_other_incarnations_and_the_same_voter_twice_do_not_count() -> None:
    others = [{"voter": "x"}, {"voter": "b", "incarnation": 2}, {"voter": "a"}]
    for change in others:
        assert "1 votes are no quorum of a view of 3" in fault(GOOD, dataclasses.replace(GOOD, **change))


def test_a_certificate_of_another_entry_or_with_a_forged_vote_is_refused() -> None:
    assert "for another entry than 7" in fault(GOOD, certificate=Certificate(8, 2, b"digest", (b"\0",)))
    assert "for another entry than 7" in fault(GOOD, certificate=Certificate(7, 2, b"other", (b"\0",)))
    assert "a vote does not verify: bad signature" in fault(GOOD, certificate=Certificate(7, 2, b"digest", (b"\0", b"\x09")))


def test_a_certificate_of_more_votes_than_members_is_refused_before_one_is_verified() -> None:
    def never(_: bytes) -> ballot.VotePayload:
        raise AssertionError("no signature is looked at")

    crowd = ballot.Certificate(7, 0, b"digest", (b"vote",) * (len(MEMBERS) + 1))
    assert "votes of a view of" in ballot.certificate_fault(crowd, b"run", "", 7, b"digest", MEMBERS, never)
