"""Canonical layout: parameters tile whole chunks, views share their memory, padding stays zero."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.outer.layout import Layout
from decentra.types import CHUNK_ELEMENTS

shapes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6)
ODD = [(1,), (CHUNK_ELEMENTS,), (CHUNK_ELEMENTS + 1,), (CHUNK_ELEMENTS - 1,), (3, 5, 7), (2, CHUNK_ELEMENTS), (64, 65)]


def layout_of(found: list[tuple[int, ...]]) -> Layout:
    return Layout.of((f"p{n}", shape) for n, shape in enumerate(found))


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_views_tile_the_vector_in_order_and_only_padding_is_left_over(found: list[tuple[int, ...]]) -> None:
    layout = layout_of(found)
    flat = torch.zeros(layout.num_elements)
    for number, (name, view) in enumerate(layout.views(flat).items(), start=1):
        assert name == f"p{number - 1}" and tuple(view.shape) == found[number - 1]
        assert not view.any(), "two parameters overlap"
        view.fill_(float(number))
    assert layout.num_elements == layout.num_chunks * CHUNK_ELEMENTS
    assert int((flat == 0).sum()) == layout.num_elements - sum(map(math.prod, found))
    for slot, number in zip(layout.slots, range(1, len(found) + 1), strict=True):
        assert slot.offset % CHUNK_ELEMENTS == 0
        end = slot.offset + slot.num_elements
        assert bool((flat[slot.offset : end] == number).all())
        assert not flat[end : -(-end // CHUNK_ELEMENTS) * CHUNK_ELEMENTS].any()


def test_odd_shapes_take_the_fewest_whole_chunks() -> None:
    layout = layout_of(ODD)
    assert [slot.offset // CHUNK_ELEMENTS for slot in layout.slots] == [0, 1, 2, 4, 5, 6, 8]
    assert layout.num_chunks == 10
    assert [layout.tensor_of_chunk(chunk) for chunk in range(10)] == ["p0", "p1", "p2", "p2", "p3", "p4", "p5", "p5", "p6", "p6"]


def test_writing_a_view_writes_the_vector_and_the_other_way_round() -> None:
    layout = layout_of([(3, 5), (7,)])
    flat = torch.zeros(layout.num_elements)
    views = layout.views(flat)
    views["p1"][2] = 5.0
    assert flat[CHUNK_ELEMENTS + 2] == 5.0
    flat[4] = 6.0
    assert views["p0"][0, 4] == 6.0


def test_nothing_is_no_chunks() -> None:
    assert Layout.of([]).num_chunks == 0 == Layout.of([]).num_elements and Layout.of([]).views(torch.empty(0)) == {}
