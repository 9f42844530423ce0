"""The pure rules of lineages: what may be forced, and which of several histories stands."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_validate import HASH, LAYOUT, MACHINE, RUN_ID, STATE, member, state_with, tensors

from decentra.ledger import intervals
from decentra.ledger.apply import apply
from decentra.ledger.entry import Entry
from decentra.ledger.state import Fork, Part, from_header
from decentra.rounds.lineage import (
    ForcedView,
    Standing,
    continues,
    forced_entry,
    forced_fault,
    is_behind,
    leads_to,
    name_of,
    precedence,
    shared_entries,
    which_stands,
)

OPERATOR, STRANGER, DIGEST = b"o" * 32, b"s" * 32, b"d" * 32
VIEW = ForcedView(RUN_ID, "", 6, HASH, DIGEST, OPERATOR)
GOOD = forced_entry(RUN_ID, MACHINE, STATE, HASH, ("alice", "carol"))


def fault(entry: Entry = GOOD, view: ForcedView = VIEW) -> str:
    return forced_fault(view, (OPERATOR,), RUN_ID, MACHINE, STATE, entry, DIGEST)


# -- forced views -------------------------------------------------------------------------------------------------------


def test_a_forced_entry_removes_the_absent_returns_their_leases_and_counts_nothing() -> None:
    assert fault() == ""
    before, fork = tensors(), Fork("ab", 6, "00")
    after = apply(MACHINE, STATE, (moved := tensors()), GOOD, {}.__getitem__, fork)
    assert after.peers() == ("alice", "carol") and GOOD.removed == ("bob", "dave")
    assert (after.r, after.sync, after.tokens, after.roots) == (7, 3, STATE.tokens, STATE.roots)
    assert (after.lineage, after.forks) == ("ab", (fork,))
    assert after.parts == (Part(0, 2, "alice"),), "carol cannot be dialled"
    assert bool((moved.anchor == before.anchor).all()) and from_header(after.header()) == after
    gone = intervals.total(STATE.leases["bob"]) + intervals.total(STATE.leases["dave"])
    assert sum(intervals.total(lease) for lease in GOOD.returned.values()) == gone
    left = intervals.total(after.pool) + sum(intervals.total(lease) for lease in after.leases.values())
    assert left == after.fresh_sample, "no id is lost"


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (("alice", "zoe"), "zoe is not in the view"),
        (STATE.peers(), "there is nothing to force"),
        (("carol",), "none of the members that stay can be dialled"),
    ],
)
def test_a_view_that_cannot_stand_is_not_forced(keep: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        forced_entry(RUN_ID, MACHINE, STATE, HASH, keep)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operator_key": STRANGER}, "signed by a key that is no operator's"),
        ({"run_id": b"x" * 16}, "not over entry 6 of this run and lineage"),
        ({"lineage": "ab"}, "not over entry 6 of this run and lineage"),
        ({"r": 7}, "not over entry 6 of this run and lineage"),
        ({"entry_digest": b"x" * 32}, "not over entry 6 of this run and lineage"),
        ({"state_hash": b"x" * 32}, "stands elsewhere than the view"),
    ],
)
def test_a_forced_view_of_something_else_commits_nothing(change: dict[str, object], words: str) -> None:
    assert words in fault(view=dataclasses.replace(VIEW, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sync": 3}, "may only remove members"),
        ({"admitted": (member("erin"),)}, "may only remove members"),
        ({"settings": "x"}, "may only remove members"),
        ({"removed": ("bob",)}, "does not say of every member"),
        ({"heard": ("alice", "carol", "bob")}, "does not say of every member"),
        ({"returned": {}}, "not what the lease rule gives"),
        ({"granted": {"alice": ((32, 36),)}}, "not what the lease rule gives"),
        ({"next_parts": (Part(0, 2, "bob"),)}, "owner that cannot be dialled"),
        ({"next_parts": (Part(0, 2, "carol"),)}, "owner that cannot be dialled"),
        ({"next_parts": ()}, "does not tile"),
        ({"lineage": "ab"}, "stands elsewhere"),
        ({"state_hash": b"x" * 32}, "stands elsewhere"),
    ],
)
def test_a_tampered_entry_is_refused_under_a_good_signature_too(change: dict[str, object], words: str) -> None:
    said = fault(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert said and words in said


def test_the_name_of_a_lineage_depends_on_who_signed_and_what() -> None:
    names = {name_of(key, payload) for key in (OPERATOR, STRANGER) for payload in (b"a", b"b")}
    assert len(names) == 4 and all(len(bytes.fromhex(name)) == 32 for name in names)


# -- which stands -------------------------------------------------------------------------------------------------------

A, B, C = Fork("aa", 5, "01"), Fork("bb", 5, "02"), Fork("cc", 9, "03")


def standing(name: str = "", forks: tuple[Fork, ...] = (), r: int = 20, tokens: int = 0, acts: bool = True, would: bool = True) -> Standing:
    return Standing(forks[-1].name if forks else name, forks, r, tokens, acts, would)


def test_the_lineage_with_fewer_forced_views_stands_then_more_tokens_then_the_smaller_name() -> None:
    first, once, other, twice = standing(), standing(forks=(A,)), standing(forks=(B,)), standing(forks=(A, C), tokens=999)
    for mine in (first, once, other, twice):
        assert which_stands(mine.name, [first, once, other, twice]) == ""
        assert which_stands(mine.name, [once, other, twice]) == "aa"
        assert which_stands(mine.name, [once, dataclasses.replace(other, tokens=1), twice]) == "bb"


def test_one_that_does_not_act_yields_to_one_that_does() -> None:
    assert which_stands("", [standing(acts=False), standing(forks=(A,))]) == "aa"
    assert which_stands("aa", [standing(acts=False), standing(forks=(A, C)), standing(forks=(B,), acts=False)]) == "cc"


def test_where_none_acts_a_node_waits_but_follows_a_later_forced_view_that_it_completes() -> None:
    first, forced = standing(acts=False), standing(forks=(A,), acts=False)
    assert which_stands("", [first, forced]) == "aa" and which_stands("aa", [first, forced]) == "aa"
    idle = dataclasses.replace(forced, would_act=False)
    assert which_stands("", [first, idle]) == "" and which_stands("aa", [first, idle]) == "aa"
    rival = standing(forks=(B,), acts=False)
    assert which_stands("aa", [forced, rival]) == "aa" and which_stands("bb", [forced, rival]) == "bb"


def test_a_state_before_the_fork_is_no_second_history() -> None:
    asleep = standing(r=3)
    assert is_behind(asleep, standing(forks=(A,))) and which_stands("aa", [asleep, standing(forks=(A,), acts=False)]) == "aa"
    assert which_stands("", [asleep, standing(forks=(A,))]) == "aa"
    assert not is_behind(standing(r=5), standing(forks=(A,))), "at the fork itself it may be at work"
    assert not is_behind(standing(forks=(A,), r=6), standing(forks=(B,)))


@st.composite
def histories(draw: st.DrawFn) -> list[Standing]:
    """Lineages of one run: a tree of forks, each with its newest state."""
    chains: list[tuple[Fork, ...]] = [()]
    for number in range(draw(st.integers(1, 5))):
        parent = draw(st.sampled_from(chains))
        r = (parent[-1].r if parent else 0) + draw(st.integers(1, 9))
        chains.append((*parent, Fork(f"{draw(st.integers(0, 9))}{number}", r, "")))
    return [
        Standing(
            chain[-1].name if chain else "",
            chain,
            (chain[-1].r if chain else 0) + draw(st.integers(1, 9)),
            draw(st.integers(0, 3)),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for chain in chains
    ]


@given(histories(), st.randoms())
def test_all_sides_choose_the_same_lineage_at_work_in_whatever_order_they_see_them(lineages: list[Standing], rng: object) -> None:
    shuffled = sorted(lineages, key=lambda _: rng.random())  # type: ignore[attr-defined]
    apart = [a for a in lineages if not any(is_behind(a, b) for b in lineages)]
    chosen = {which_stands(mine.name, order) for mine in lineages for order in (lineages, shuffled)}
    if any(each.acts for each in apart):
        assert len(chosen) == 1
        best = next(each for each in lineages if each.name in chosen)
        assert best.acts and all(precedence(best) <= precedence(each) for each in apart if each.acts)


@given(histories())
def test_the_order_is_total_and_counts_forced_views_since_the_fork(lineages: list[Standing]) -> None:
    assert len({precedence(each) for each in lineages}) == len(lineages)
    for a, b in itertools.combinations(lineages, 2):
        common = sum(x == y for x, y in zip(a.forks, b.forks, strict=False))
        since = len(a.forks) - common, len(b.forks) - common
        if since[0] != since[1]:
            assert (precedence(a) < precedence(b)) == (since[0] < since[1])


@given(histories())
def test_where_none_is_at_work_no_two_members_pass_each_other(lineages: list[Standing]) -> None:
    idle = [dataclasses.replace(each, acts=False) for each in lineages]
    goes = {each.name: which_stands(each.name, idle) for each in idle}
    assert not [name for name, to in goes.items() if to != name and goes[to] == name]


# -- histories ----------------------------------------------------------------------------------------------------------


def test_what_two_histories_share() -> None:
    assert shared_entries((), ()) is None and shared_entries((A, C), (A, C)) is None
    assert shared_entries((), (A,)) == 5 == shared_entries((A, C), (B,)) and shared_entries((A,), (A, C)) == 9


def test_a_state_is_replayed_on_only_where_its_history_goes_on() -> None:
    first = dataclasses.replace(STATE, r=5)
    assert continues(first, (A,)) and continues(first, ()) and not continues(STATE, (A,))
    forced = dataclasses.replace(STATE, lineage="aa", forks=(A,))
    assert continues(forced, (A, C)) and not continues(forced, (B,)) and not continues(forced, ())
    assert leads_to(forced.header(), (A, C)) and not leads_to(forced.header(), (B,)) and not leads_to(b"{}", ())


def test_a_view_of_one_may_be_forced() -> None:
    alone = forced_entry(RUN_ID, MACHINE, state_with((member("alice"), member("bob"))), HASH, ("alice",))
    assert alone.heard == ("alice",) and alone.next_parts == (Part(0, 2, "alice"),) and LAYOUT.num_chunks == 65
