"""The partition map against its linear program, solved by scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from decentra.ledger.state import Member
from decentra.rounds.partition import round_time_s, split
from decentra.rounds.reduction import tiles

SIZE_BYTES = 10**9
NUM_BLOCKS = 4000


def member(index: int, up_mbit: float, down_mbit: float) -> Member:
    return Member(f"peer{index:03d}", 1, True, 1, int(up_mbit * 125_000), int(down_mbit * 125_000))


def optimum_s(members: list[Member], owners: list[Member]) -> float:
    """Least scatter plus gather; variables x_1..x_N, T_s, T_g."""
    n = len(members)
    rows, limits = [], []

    def at_most(coefficients: dict[int, float], limit: float) -> None:
        row = np.zeros(n + 2)
        for column, value in coefficients.items():
            row[column] = value
        rows.append(row)
        limits.append(limit)

    for i, m in enumerate(members):
        up, down = m.up_bytes_per_s / SIZE_BYTES, m.down_bytes_per_s / SIZE_BYTES
        at_most({i: -1.0, n: -up}, -1.0)
        at_most({i: n - 1.0, n: -down}, 0.0)
        at_most({i: -1.0, n + 1: -down}, -1.0)
        at_most({i: n - 1.0, n + 1: -up}, 0.0)
    names = {m.peer for m in owners}
    bounds = [(0, 1 if m.peer in names else 0) for m in members] + [(0, None)] * 2
    equal = np.array([[1.0] * n + [0.0, 0.0]])
    found = linprog([0.0] * n + [1.0, 1.0], A_ub=np.array(rows), b_ub=limits, A_eq=equal, b_eq=[1.0], bounds=bounds)
    return float(found.fun)


CASES = {
    "equal links": [(100, 100)] * 4,
    "a slow symmetric link": [(100, 100)] * 3 + [(20, 20)],
    "a slow upload": [(100, 100)] * 3 + [(10, 100)],
    "a fast minority": [(1000, 1000)] * 2 + [(50, 50)] * 6,
    "cable modems": [(20, 200)] * 5 + [(500, 500)],
}


@pytest.mark.parametrize("links", CASES.values(), ids=CASES.keys())
def test_round_time_is_within_a_tenth_of_the_optimum(links: list[tuple[int, int]]) -> None:
    members = [member(i, *link) for i, link in enumerate(links)]
    parts = split(members, members, NUM_BLOCKS)
    assert tiles(parts, NUM_BLOCKS)
    assert round_time_s(members, parts, NUM_BLOCKS, SIZE_BYTES) <= 1.1 * optimum_s(members, members)


def test_an_upload_poor_member_owns_nothing() -> None:
    members = [member(i, *link) for i, link in enumerate([(100, 100)] * 3 + [(1, 100)])]
    assert "peer003" not in {part.owner for part in split(members, members, NUM_BLOCKS)}


def test_a_slow_symmetric_link_keeps_about_its_equal_share() -> None:
    members = [member(i, *link) for i, link in enumerate(CASES["a slow symmetric link"])]
    share_of = {part.owner: part.num_blocks / NUM_BLOCKS for part in split(members, members, NUM_BLOCKS)}
    assert share_of["peer003"] == pytest.approx(0.25, abs=0.05)


def test_a_member_that_cannot_be_dialled_owns_nothing() -> None:
    members = [member(i, 100, 100) for i in range(4)]
    assert {part.owner for part in split(members, members[1:], 10)} == {"peer001", "peer002", "peer003"}


def test_unknown_rates_give_equal_shares() -> None:
    members = [member(i, 0, 0) for i in range(4)]
    assert [part.num_blocks for part in split(members, members, 40)] == [10] * 4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=2, max_size=9), st.data())
def test_any_links_come_close_to_the_optimum(links: list[tuple[int, int]], data: st.DataObject) -> None:
    members = [member(i, *link) for i, link in enumerate(links)]
    count = data.draw(st.integers(1, len(members)))
    owners = members[:count]
    parts = split(members, owners, NUM_BLOCKS)
    assert tiles(parts, NUM_BLOCKS) and {p.owner for p in parts} <= {m.peer for m in owners}
    assert round_time_s(members, parts, NUM_BLOCKS, SIZE_BYTES) <= 1.1 * optimum_s(members, owners) + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12))
def test_few_blocks_are_still_tiled(num_blocks: int, count: int) -> None:
    members = [member(i, 10 + 7 * i, 50) for i in range(count)]
    assert tiles(split(members, members, num_blocks), num_blocks)
