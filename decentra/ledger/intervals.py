"""Ordered half-open intervals of sample ids: the arithmetic of leases and claims."""

from __future__ import annotations

from decentra.types import Interval, Intervals


def total(intervals: Intervals) -> int:
    """Ids in all intervals."""
    return sum(stop - start for start, stop in intervals)


def split(intervals: Intervals, count: int) -> tuple[Intervals, Intervals]:
    """(first `count` ids in order, the rest); all of them if there are fewer."""
    head: list[Interval] = []
    for index, (start, stop) in enumerate(intervals):
        if count <= 0:
            return tuple(head), intervals[index:]
        if stop - start > count:
            return (*head, (start, start + count)), ((start + count, stop), *intervals[index + 1 :])
        head.append((start, stop))
        count -= stop - start
    return tuple(head), ()


def join(left: Intervals, right: Intervals) -> Intervals:
    """`right` behind `left`, touching ends merged; order kept."""
    merged = list(left)
    for start, stop in right:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        elif start < stop:
            merged.append((start, stop))
    return tuple(merged)


def is_prefix(claim: Intervals, lease: Intervals) -> bool:
    """Whether `claim` is exactly the first ids of `lease`."""
    return split(lease, total(claim))[0] == claim
