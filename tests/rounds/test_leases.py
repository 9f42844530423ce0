"""Random lives of a swarm's data: every id is committed at most once, none is lost, and the pool is leased first."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.ledger import intervals
from decentra.ledger.state import Member, State, Transition, move_leases, next_members
from decentra.rounds.leases import settle
from decentra.types import Intervals, PeerId


def state_of(members: tuple[Member, ...], leases: dict[PeerId, Intervals], fresh: int, pool: Intervals = ()) -> State:
    return State(
        r=0, sync=0, lineage="", tokens=0, tokens_last_sync=0, members=members, leases=leases, fresh_sample=fresh, pool=pool,
        parts=(), roots=(("", ""),),
    )  # fmt: skip


def ids(value: Intervals) -> list[int]:
    return [i for start, stop in value for i in range(start, stop)]


def test_a_lease_is_topped_up_to_twice_the_last_claim_and_never_below_the_announced_rate() -> None:
    members = (Member("a", 1, True, 4), Member("b", 1, True, 4, last_claim_samples=10), Member("c", 1, True, 30, last_claim_samples=10))
    found = settle(state_of(members, {"a": ((0, 3),), "b": ((3, 8),)}, 8), {}, (), members)
    assert {peer: intervals.total(grant) for peer, grant in found.granted.items()} == {"a": 1, "b": 15, "c": 30}
    claimed = settle(state_of(members, {"a": ((0, 9),)}, 9), {"a": ((0, 9),)}, (), members[:1])
    assert claimed.granted == {"a": ((9, 27),)}


def test_the_pool_is_leased_before_fresh_ids_and_in_its_order() -> None:
    members = (Member("a", 1, True, 5), Member("b", 1, True, 4))
    state = state_of(members, {}, 100, pool=((40, 43), (7, 9), (60, 62)))
    found = settle(state, {}, (), members)
    assert found.granted == {"a": ((40, 43), (7, 9)), "b": ((60, 62), (100, 102))}
    assert move_leases(state, found) == ({"a": ((40, 43), (7, 9)), "b": ((60, 62), (100, 102))}, 102, ())


def test_what_a_leaver_returns_is_granted_in_the_same_entry() -> None:
    members = (Member("a", 1, True, 4), Member("b", 1, True, 4))
    state = state_of(members, {"a": ((0, 4),), "b": ((4, 8),)}, 8)
    found = settle(state, {"b": ((4, 6),)}, ("b",), members[:1])
    assert found.returned == {"b": ((6, 8),)} and found.granted == {}
    assert move_leases(state, found) == ({"a": ((0, 4),)}, 8, ((6, 8),))
    hungry = settle(state, {"a": ((0, 4),)}, ("b",), members[:1])
    assert hungry.granted == {"a": ((4, 12),)}


def test_an_empty_claim_is_no_claim() -> None:
    members = (Member("a", 1, True, 4, last_claim_samples=10),)
    state = state_of(members, {"a": ((0, 6),)}, 6)
    assert settle(state, {"a": ()}, (), members) == settle(state, {}, (), members)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Transition(claims={"a": ((1, 3),)}), "the claim of a is not a prefix of its lease"),
        (Transition(claims={"a": ((0, 5),)}), "the claim of a is not a prefix of its lease"),
        (Transition(claims={"z": ((0, 1),)}), "the claim of z is not a prefix of its lease"),
        (Transition(returned={"a": ((0, 3),)}), "a returns other ids than its lease"),
        (Transition(returned={"z": ((0, 3),)}), "z returns other ids than its lease"),
        (Transition(granted={"a": ((8, 10),)}), "the grant of a does not take the pool first"),
        (Transition(granted={"a": ((50, 52), (9, 10))}), "the grant of a does not take the pool first"),
        (Transition(granted={"a": ((50, 51), (8, 9))}), "the grant of a does not take the pool first"),
    ],
)
def test_moves_that_do_not_fit_are_refused_by_name(change: Transition, reason: str) -> None:
    state = state_of((Member("a", 1, True, 4),), {"a": ((0, 4),)}, 8, pool=((50, 52),))
    with pytest.raises(ValueError, match=reason):
        move_leases(state, change)


# -- a swarm's life, entry by entry ---------------------------------------------------------------------------------------

events = st.lists(
    st.tuples(
        st.sampled_from(["sync", "sync", "sync", "join", "leave", "crash", "restart"]),
        st.integers(0, 7),
        st.lists(st.integers(0, 12), min_size=8, max_size=8),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(events, st.lists(st.integers(1, 9), min_size=8, max_size=8))
def test_every_id_is_committed_at_most_once_and_none_is_lost(plot: list[tuple[str, int, list[int]]], rates: list[int]) -> None:
    founder = Member("p0", 0, True, rates[0])
    state = state_of((founder,), {"p0": ((0, rates[0]),)}, rates[0])
    committed: list[int] = []
    for turn, (kind, who, amounts) in enumerate(plot):
        peer, peers = f"p{who}", state.peers()
        claims: dict[PeerId, Intervals] = {}
        removed: tuple[PeerId, ...] = ()
        admitted: tuple[Member, ...] = ()
        if kind == "sync":
            offers = {p: intervals.split(state.leases.get(p, ()), n)[0] for p, n in zip(peers, amounts, strict=False)}
            claims = {p: claim for p, claim in offers.items() if claim}
        elif kind == "join" and peer not in peers:
            admitted = (Member(peer, turn, True, rates[who]),)
        elif kind == "restart" and peer in peers:
            removed, admitted = (peer,), (Member(peer, turn, True, rates[who]),)
        elif kind in ("leave", "crash") and peer in peers and len(peers) > 1:
            removed = (peer,)
            if kind == "leave":
                claims = {peer: intervals.split(state.leases.get(peer, ()), amounts[0])[0]}
        members = next_members(state, bool(claims), peers, removed, admitted, 1)
        change = settle(state, claims, removed, members)
        pool_before = [*ids(state.pool), *(i for lease in change.returned.values() for i in ids(lease))]
        leases, fresh, pool = move_leases(state, change)

        granted = [i for grant in change.granted.values() for i in ids(grant)]
        from_pool, from_fresh = [i for i in granted if i < state.fresh_sample], [i for i in granted if i >= state.fresh_sample]
        assert from_pool == pool_before[: len(from_pool)] and ids(pool) == pool_before[len(from_pool) :]
        assert not from_fresh or not pool, "fresh ids were granted while the pool held some"
        assert from_fresh == list(range(state.fresh_sample, fresh))
        committed += [i for claim in claims.values() for i in ids(claim)]
        assert len(set(committed)) == len(committed)
        assert sorted([*committed, *ids(pool), *(i for lease in leases.values() for i in ids(lease))]) == list(range(fresh))
        assert set(leases) <= {m.peer for m in members}
        assert all(intervals.total(leases.get(m.peer, ())) >= m.announced_samples for m in members)
        counted = tuple(
            dataclasses.replace(m, last_claim_samples=intervals.total(claims[m.peer])) if claims.get(m.peer) else m for m in members
        )
        state = dataclasses.replace(
            state, r=state.r + 1, sync=state.sync + bool(claims), members=counted, leases=leases, fresh_sample=fresh, pool=pool
        )
