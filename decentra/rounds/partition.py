"""Who reduces how much: the shares that make scatter plus gather shortest over each member's own up and down rates.

With owner shares x_i of an encoded contribution of S bytes among N members, full duplex:
scatter: member i sends (1 - x_i) S up and, as owner, takes (N - 1) x_i S down; gather: the same the other way round.
Each phase lasts as long as its slowest direction, so the shares solve a small linear program: minimise T_s + T_g with
  1 - T_s up_i / S  <=  x_i  <=  T_s down_i / ((N - 1) S)   and   1 - T_g down_i / S  <=  x_i  <=  T_g up_i / ((N - 1) S).
For a given T_s the least T_g is a bisection, and the sum is convex in T_s. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decentra.ledger.state import Member, Part
from decentra.types import PeerId

_ITERATIONS = 60
_LEAST_SHARE = 0.05
"""A part below this much of an equal share is not worth its messages."""

Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Rates:
    """Per member: up and down in contributions a second; may_own: whether it may hold a share at all."""

    up: Shares
    down: Shares
    may_own: NDArray[np.bool_]

    def bounds(self, scatter_s: float, gather_s: float) -> tuple[Shares, Shares]:
        """(least, largest) share of each member that keeps both phases within these times."""
        others = max(1, len(self.up) - 1)
        low = np.maximum(0.0, np.maximum(1.0 - scatter_s * self.up, 1.0 - gather_s * self.down))
        high = np.minimum(1.0, np.minimum(scatter_s * self.down, gather_s * self.up) / others)
        return low, np.where(self.may_own, high, 0.0)

    def feasible(self, scatter_s: float, gather_s: float) -> bool:
        """Whether shares within the bounds can add up to one."""
        low, high = self.bounds(scatter_s, gather_s)
        return bool((low <= high).all() and low.sum() <= 1.0 <= high.sum())


def split(members: Sequence[Member], owners: Sequence[Member], num_blocks: int) -> tuple[Part, ...]:
    """Cut the blocks among `owners`, a part of `members`. Unknown rates (0) count as the mean of the known ones."""
    names = {m.peer for m in owners}
    shares = _shares(tuple((m.up_bytes_per_s, m.down_bytes_per_s, m.peer in names) for m in members))
    share_of = {m.peer: x for m, x in zip(members, shares, strict=True)}
    parts, first, summed = [], 0, 0.0
    total = sum(share_of[m.peer] for m in owners)
    for member in owners:
        summed += share_of[member.peer]
        last = num_blocks if member is owners[-1] else round(num_blocks * summed / total)
        if last > first:
            parts.append(Part(first, last - first, member.peer))
        first = max(first, last)
    return tuple(parts)


def owners_of(members: Sequence[Member], heard: Collection[PeerId]) -> list[Member]:
    """Members that may own blocks: heard and dialable, by id."""
    return sorted((m for m in members if m.dialable and m.peer in heard), key=lambda m: m.peer)


def next_parts(
    parts: Sequence[Part], members: Sequence[Member], heard: Collection[PeerId], num_blocks: int, recut: bool
) -> tuple[Part, ...]:
    """The map for the due sync: the present one while all its owners stay, unless a sync was just counted (`recut`)."""
    staying = {m.peer for m in members}
    if not recut and parts and all(part.owner in staying for part in parts):
        return tuple(parts)
    return split(members, owners_of(members, heard), num_blocks)


def tiles(parts: Sequence[Part], num_blocks: int) -> bool:
    """Whether the parts cover every block once, in order."""
    at = 0
    for part in parts:
        if part.first_block != at or part.num_blocks < 1:
            return False
        at += part.num_blocks
    return at == num_blocks


def round_time_s(members: Sequence[Member], parts: Sequence[Part], num_blocks: int, size_bytes: int) -> float:
    """Seconds of scatter plus gather under a map, by the model above."""
    share_of = {part.owner: part.num_blocks / num_blocks for part in parts}
    x = np.array([share_of.get(m.peer, 0.0) for m in members])
    up = np.array([m.up_bytes_per_s for m in members], dtype=np.float64)
    down = np.array([m.down_bytes_per_s for m in members], dtype=np.float64)
    others = len(members) - 1
    scatter = max(float(((1 - x) * size_bytes / up).max()), float((others * x * size_bytes / down).max()))
    gather = max(float((others * x * size_bytes / up).max()), float(((1 - x) * size_bytes / down).max()))
    return scatter + gather


@functools.lru_cache(maxsize=256)
def _shares(links: tuple[tuple[int, int, bool], ...]) -> tuple[float, ...]:
    """Share of each (up, down, may own), which seldom change from one sync to the next."""
    rates = _rates(links)
    scatter_s, gather_s = _best_times(rates)
    low, high = rates.bounds(scatter_s, gather_s)
    room = max(1e-300, float((high - low).sum()))
    shares = low + (high - low) * max(0.0, 1.0 - float(low.sum())) / room
    return tuple(float(x) if x >= _LEAST_SHARE / len(links) else 0.0 for x in shares)


def _rates(links: tuple[tuple[int, int, bool], ...]) -> _Rates:
    columns = []
    for column in ([up for up, _, _ in links], [down for _, down, _ in links]):
        known = [rate for rate in column if rate > 0]
        mean = sum(known) / len(known) if known else 1.0
        columns.append(np.array([rate if rate > 0 else mean for rate in column], dtype=np.float64))
    scale = max(float(columns[0].max()), float(columns[1].max()))
    return _Rates(columns[0] / scale, columns[1] / scale, np.array([may_own for _, _, may_own in links]))


def _best_times(rates: _Rates) -> tuple[float, float]:
    longest = 2.0 * len(rates.up) / min(float(rates.up.min()), float(rates.down.min()))

    def gather_for(scatter_s: float) -> float:
        if not rates.feasible(scatter_s, longest):
            return float("inf")
        low, high = 0.0, longest
        for _ in range(_ITERATIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if rates.feasible(scatter_s, middle) else (middle, high)
        return high

    shortest, high = 0.0, longest
    for _ in range(_ITERATIONS):
        middle = (shortest + high) / 2
        shortest, high = (shortest, middle) if rates.feasible(middle, longest) else (middle, high)
    left, right = high, longest
    for _ in range(_ITERATIONS):
        third = (right - left) / 3
        if left + third + gather_for(left + third) <= right - third + gather_for(right - third):
            right -= third
        else:
            left += third
    return right, gather_for(right)
