"""The partition map against its linear program, solved by scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from decentra.ledger.state import Member, Part
from decentra.rounds.partition import next_parts, owners_of, round_time_s, split, tiles

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


def owner(number: int, up: int = 0, down: int = 0, dialable: bool = True) -> Member:
    return Member(f"m{number:02}", 1, dialable, 4, up, down)


def test_owners_are_heard_and_dialable_and_in_order_of_id() -> None:
    members = [owner(3), owner(1), owner(2, dialable=False), owner(0)]
    assert [m.peer for m in owners_of(members, ["m03", "m02", "m01"])] == ["m01", "m03"]


def test_the_map_stays_while_its_owners_do_and_is_cut_again_after_a_sync() -> None:
    members = [owner(0), owner(1)]
    present = (Part(0, 3, "m01"), Part(3, 1, "m00"))
    assert next_parts(present, members, ["m00", "m01"], 4, recut=False) == present
    assert next_parts(present, members, ["m00"], 4, recut=False) == present
    assert next_parts(present, members[:1], ["m00"], 4, recut=False) == (Part(0, 4, "m00"),)
    assert next_parts(present, members, ["m00", "m01"], 4, recut=True) == (Part(0, 2, "m00"), Part(2, 2, "m01"))


def test_gaps_overlaps_and_empty_parts_do_not_tile() -> None:
    assert tiles((Part(0, 2, "a"), Part(2, 1, "b")), 3) and tiles((), 0)
    for parts in ((Part(0, 2, "a"),), (Part(1, 2, "a"),), (Part(0, 2, "a"), Part(1, 2, "b")), (Part(0, 0, "a"), Part(0, 3, "b")), ()):
        assert not tiles(parts, 3)
