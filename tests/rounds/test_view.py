"""Quorums, leaders, who is removed and who may be admitted."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.ledger.state import Member, State, next_members
from decentra.rounds.view import admissible, announcement_fault, is_quorum, leader_order, next_view_stands, overdue


def view(*names: str, dialable: str | None = None) -> tuple[Member, ...]:
    return tuple(Member(name, 1, dialable is None or name in dialable, 4) for name in names)


def state_of(members: tuple[Member, ...]) -> State:
    return State(
        r=0, sync=5, lineage="", tokens=0, tokens_last_sync=0, members=members, leases={}, fresh_sample=0, pool=(), parts=(),
        roots=(("", ""),),
    )  # fmt: skip


def subsets(names: str) -> list[tuple[str, ...]]:
    return [chosen for size in range(len(names) + 1) for chosen in itertools.combinations(names, size)]


def test_two_quorums_of_one_view_always_share_a_member() -> None:
    for size in range(1, 8):
        names = "abcdefg"[:size]
        quorums = [set(chosen) for chosen in subsets(names) if is_quorum(view(*names), chosen)]
        assert set(names) in quorums
        assert all(a & b for a in quorums for b in quorums)


def test_exactly_half_is_a_quorum_only_with_the_oldest_member() -> None:
    assert is_quorum(view("d", "a", "b", "c"), ["d", "c"])
    assert not is_quorum(view("d", "a", "b", "c"), ["a", "b"])
    assert is_quorum(view("d"), ["d"]) and is_quorum(view("d", "a"), ["d"]) and not is_quorum(view("d", "a"), ["a"])
    assert not is_quorum(view("d", "a", "b"), ["d"])


def test_strangers_and_nobody_are_no_quorum() -> None:
    assert not is_quorum(view("a", "b"), ["x", "y", "b"])
    assert not is_quorum((), []) and not is_quorum((), ["a"]) and not is_quorum(view("a"), [])


def test_the_order_of_leaders_is_of_dialable_members_and_moves_with_the_state() -> None:
    members = view(*"abcdefgh", dialable="bdfh")
    orders = {leader_order(bytes([n]) * 32, members) for n in range(40)}
    assert all(sorted(order) == list("bdfh") for order in orders)
    assert {order[0] for order in orders} == set("bdfh")
    assert leader_order(b"x", members) == leader_order(b"x", tuple(reversed(members)))


def test_a_member_unheard_for_three_syncs_is_overdue_and_being_heard_resets_it() -> None:
    state = state_of(view("a", "b"))
    seen = []
    for heard in (("a",), ("a",), ("a", "b"), ("a",), ("a",), ("a",)):
        seen.append(overdue(state, heard, True))
        state = state_of(next_members(state, True, heard, (), (), 1))
    assert seen == [(), (), (), (), (), ("b",)]


def test_entries_without_contributions_remove_nobody_and_count_no_silence() -> None:
    state = state_of(view("a", "b"))
    for _ in range(5):
        assert overdue(state, ("a",), False) == ()
        state = state_of(next_members(state, False, ("a",), (), (), 1))
    assert state.members[1].unheard_syncs == 0


names8 = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(names8, st.sets(st.sampled_from("abcdefgh")), st.integers(0, 12), st.sets(st.sampled_from("abcdefgh")))
def test_who_is_heard_and_stays_is_a_quorum_of_the_view_they_admit_to(
    staying: list[str], heard: set[str], num_new: int, dialable: set[str]
) -> None:
    members = view(*staying, dialable="".join(sorted(dialable)))
    newcomers = tuple(Member(f"new{n}", 1, True, 4) for n in range(num_new))
    chosen = admissible(members, heard, newcomers)
    assert chosen == newcomers[: len(chosen)]
    alive = heard & set(staying)
    if chosen:
        following = (*members, *chosen)
        assert is_quorum(following, alive) and any(m.dialable for m in members if m.peer in alive)
        assert 2 * len(alive) >= len(following), "a storm at most doubles the view"
    if len(chosen) < num_new:
        larger = (*members, *newcomers[: len(chosen) + 1])
        assert not next_view_stands(larger, heard, {m.peer for m in newcomers})


def test_newcomers_do_not_count_themselves_into_the_quorum() -> None:
    members = view("a", "b", "x", "y", "z")
    assert not next_view_stands(members, ["a", "b", "x", "y", "z"], {"x", "y", "z"})
    assert next_view_stands(members[:4], ["a", "b"], {"x", "y"})


def test_a_view_needs_a_living_member_that_can_be_dialled() -> None:
    assert not next_view_stands(view("a", "b", "c", dialable="c"), ["a", "b"], ())
    assert next_view_stands(view("a", "b", "c", dialable="b"), ["a", "b"], ())
    assert admissible(view("a", dialable=""), ["a"], view("n")) == ()


@settings(max_examples=200, deadline=None)
@given(names8, st.data())
def test_a_quorum_of_this_view_that_stays_can_always_go_on(staying: list[str], data: st.DataObject) -> None:
    """Whatever subset is heard: removing the overdue and admitting the admissible leaves the heard a quorum, or no entry."""
    heard = data.draw(st.sets(st.sampled_from(staying)))
    removed = tuple(p for p in staying if p not in heard and data.draw(st.booleans()))
    state = state_of(view(*staying))
    if not is_quorum(state.members, heard):
        return
    back = [p for p in staying if p not in heard and p not in removed and data.draw(st.booleans())]
    newcomers = tuple(data.draw(st.permutations([*view("n1", "n2", "n3"), *(Member(p, 2, True, 4) for p in back)])))
    left = next_members(state, True, tuple(heard), removed, (), 1)
    admitted = admissible(left, heard, newcomers)
    assert set(back) <= {m.peer for m in admitted}, "who comes back costs nobody a vote, and is admitted first"
    gone = (*removed, *(m.peer for m in admitted if m.peer in staying))
    following = next_members(state, True, tuple(heard), gone, admitted, 1)
    assert is_quorum(following, heard), "the heard are no quorum of the next view"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"announced_samples": 0}, "announces 0 samples a sync"),
        ({"announced_samples": (1 << 24) + 1}, "announces 16777217 samples a sync"),
        ({"announced_samples": 1 << 63}, "announces 9223372036854775808 samples a sync"),
        ({"up_bytes_per_s": 1 << 63}, "announces 9223372036854775808 bytes/s up"),
        ({"down_bytes_per_s": (1 << 40) + 1}, "and 1099511627777 down"),
        ({"incarnation": 1 << 63}, "announces incarnation 9223372036854775808"),
    ],
)
def test_who_announces_absurd_numbers_may_be_no_member(change: dict[str, int], words: str) -> None:
    alice = Member("alice", 1, True, 4)
    assert announcement_fault(alice) == ""
    assert words in announcement_fault(dataclasses.replace(alice, **change))  # type: ignore[arg-type]
