"""Who reduces what: maps tile, follow the rates, and lose no block when an owner is silent."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra import build
from decentra.codec.base import encode
from decentra.ledger.state import Member, Part
from decentra.rounds.reduction import hand_on, next_parts, owners_of, reduce, split, tiles
from decentra.types import CHUNK_ELEMENTS

rates = st.tuples(st.integers(1, 10**9), st.integers(1, 10**9))


def owner(number: int, up: int = 0, down: int = 0, dialable: bool = True) -> Member:
    return Member(f"m{number:02}", 1, dialable, 4, up, down)


@settings(max_examples=200, deadline=None)
@given(st.lists(rates, min_size=1, max_size=12), st.integers(1, 500))
def test_a_split_tiles_and_gives_each_owner_its_share_within_one_block(found: list[tuple[int, int]], num_blocks: int) -> None:
    owners = [owner(n, *rate) for n, rate in enumerate(found)]
    parts = split(owners, num_blocks)
    assert tiles(parts, num_blocks)
    given_to = {part.owner: part.num_blocks for part in parts}
    assert len(given_to) == len(parts)
    total = sum(min(rate) for rate in found)
    for member, rate in zip(owners, found, strict=True):
        assert abs(given_to.get(member.peer, 0) - num_blocks * min(rate) / total) <= 1


def test_shares_are_equal_where_any_rate_is_unknown() -> None:
    parts = split([owner(0, 10, 10), owner(1), owner(2, 90, 90)], 9)
    assert [part.num_blocks for part in parts] == [3, 3, 3]


def test_who_uploads_slowly_owns_nothing_and_more_owners_than_blocks_is_fine() -> None:
    assert [p.owner for p in split([owner(0, 1000, 1000), owner(1, 1, 1000)], 4)] == ["m00"]
    parts = split([owner(n) for n in range(7)], 3)
    assert tiles(parts, 3) and len({p.owner for p in parts}) == 3


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


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.sets(st.integers(0, 7), min_size=1))
def test_silent_owners_blocks_are_handed_on_and_the_others_keep_theirs(num_owners: int, num_blocks: int, alive: set[int]) -> None:
    owners = [owner(n) for n in range(num_owners)]
    remaining = [m for m in owners if int(m.peer[1:]) in alive] or owners[:1]
    before = split(owners, num_blocks)
    after = hand_on(before, remaining)
    assert tiles(after, num_blocks)
    assert {p.owner for p in after} <= {m.peer for m in remaining}
    for old, new in zip(before, after, strict=True):
        assert (old.first_block, old.num_blocks) == (new.first_block, new.num_blocks)
        assert new.owner == old.owner or old.owner not in {m.peer for m in remaining}
    taken = [sum(new.owner == m.peer != old.owner for old, new in zip(before, after, strict=True)) for m in remaining]
    assert max(taken) - min(taken) <= 1


def test_gaps_overlaps_and_empty_parts_do_not_tile() -> None:
    assert tiles((Part(0, 2, "a"), Part(2, 1, "b")), 3) and tiles((), 0)
    for parts in ((Part(0, 2, "a"),), (Part(1, 2, "a"),), (Part(0, 2, "a"), Part(1, 2, "b")), (Part(0, 0, "a"), Part(0, 3, "b")), ()):
        assert not tiles(parts, 3)


def test_an_average_is_of_what_was_decoded_in_the_order_of_senders() -> None:
    codecs = build.codecs()
    terms = {f"m{n}": torch.randn(2 * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(n)) for n in range(3)}
    weights = {"m0": 100, "m1": 300, "m2": 7}
    for up in codecs.values():
        packed = {sender: encode(up, term) for sender, term in terms.items()}
        found = reduce(dict(reversed(packed.items())), weights, up, codecs["fp32"])
        wanted = torch.zeros(2, CHUNK_ELEMENTS)
        for index, sender in enumerate(sorted(packed)):
            term = torch.empty(2, CHUNK_ELEMENTS)
            up.decode(packed[sender], term)
            term = term * torch.tensor(weights[sender] / 407, dtype=torch.float32)
            wanted = term if index == 0 else wanted + term
        assert found.numpy().tobytes() == wanted.numpy().tobytes()


def test_the_average_of_one_is_what_it_sent() -> None:
    codec = build.codecs()["fp32"]
    packed = encode(codec, torch.randn(CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(reduce({"a": packed}, {"a": 12345}, codec, codec), packed)


def test_cutting_a_contribution_differently_changes_no_byte_of_the_average() -> None:
    codecs = build.codecs()
    int8 = codecs["int8"]
    packed = {f"m{n}": encode(int8, torch.randn(5 * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(n))) for n in range(3)}
    weights = {"m0": 1, "m1": 2, "m2": 3}
    whole = reduce(packed, weights, int8, int8)
    for cut in range(1, 5):
        parts = [reduce({s: p[rows] for s, p in packed.items()}, weights, int8, int8) for rows in (slice(0, cut), slice(cut, 5))]
        assert torch.equal(torch.cat(parts), whole)
