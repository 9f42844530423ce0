"""Ordered intervals are sequences of ids, written short."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from decentra.ledger import intervals
from decentra.types import Intervals


@st.composite
def leases(draw: st.DrawFn) -> Intervals:
    """Non-empty intervals in any order, no id twice, ends that touch merged: what leases are."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=6))
    found, at = [], draw(st.integers(0, 5))
    for gap, length in lengths:
        found.append((at + gap, at + gap + length))
        at += gap + length
    return intervals.join((), tuple(draw(st.permutations(found))))


def ids(value: Intervals) -> list[int]:
    return [i for start, stop in value for i in range(start, stop)]


@given(leases())
def test_total_counts_ids(lease: Intervals) -> None:
    assert intervals.total(lease) == len(ids(lease))


@given(leases(), st.integers(0, 60))
def test_split_cuts_the_sequence_and_join_puts_it_back(lease: Intervals, count: int) -> None:
    head, tail = intervals.split(lease, count)
    assert ids(head) == ids(lease)[:count] and ids(tail) == ids(lease)[count:]
    assert all(start < stop for start, stop in (*head, *tail))
    assert intervals.join(head, tail) == lease


@given(leases(), leases())
def test_join_appends_in_order_and_leaves_no_touching_ends(left: Intervals, right: Intervals) -> None:
    both = intervals.join(left, right)
    assert ids(both) == ids(left) + ids(right)
    assert all(a[1] != b[0] for a, b in itertools.pairwise(both))


@given(leases(), st.integers(0, 60), st.data())
def test_only_the_first_ids_are_a_prefix(lease: Intervals, count: int, data: st.DataObject) -> None:
    head, tail = intervals.split(lease, count)
    assert intervals.is_prefix(head, lease)
    other = data.draw(leases())
    assert intervals.is_prefix(other, lease) == (ids(other) == ids(lease)[: len(ids(other))])
    if tail:
        assert not intervals.is_prefix(intervals.join(head, ((tail[0][0] + 1, tail[0][1] + 2),)), lease)


def test_absurd_claims_are_no_prefix() -> None:
    lease = ((5, 10), (20, 25))
    for claim in (((10, 5),), ((5, 5),), ((20, 25),), ((5, 11),), ((5, 10), (20, 26)), ((5, 10), (19, 20)), ((9, 10), (5, 9))):
        assert not intervals.is_prefix(claim, lease)
    assert intervals.is_prefix((), lease) and intervals.is_prefix((), ())
