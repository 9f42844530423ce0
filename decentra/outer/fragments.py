"""Fragments: the parts of the layout that are synced alone (Streaming DiLoCo, arXiv 2501.18512). Sync s is of fragment s mod P.

Each parameter belongs to a unit: a decoder layer; the embedding, with the final norm where it is the head too; or the head
with the final norm. A unit is never split. Largest first, each unit goes to the fragment with the fewest elements so far:
embedding and head find their places and layers of one size are then dealt out like cards, so that a fragment is spread over
the whole depth (the paper's strided pattern) and all fragments are as even as whole units allow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decentra.outer.layout import Layout
from decentra.types import CHUNK_ELEMENTS

Shapes = Sequence[tuple[str, tuple[int, ...]]]
"""Parameters in model order: (name, shape)."""

_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of chunks of the layout."""

    index: int
    first_chunk: int
    num_chunks: int

    @property
    def elements(self) -> slice:
        """Elements of the flat vector."""
        return slice(self.first_chunk * CHUNK_ELEMENTS, (self.first_chunk + self.num_chunks) * CHUNK_ELEMENTS)


def arranged(shapes: Iterable[tuple[str, tuple[int, ...]]], num_fragments: int) -> Layout:
    """The layout of a model: fragment after fragment, parameters of each in model order. One fragment: model order."""
    shapes = list(shapes)
    home = homes(shapes, num_fragments)
    return Layout.of(sorted(shapes, key=lambda named: home[named[0]]))


def fragments(layout: Layout, num_fragments: int) -> tuple[Fragment, ...]:
    """The fragments of a layout that `arranged` made. Raises ValueError where it is not so laid out."""
    if num_fragments == 1:
        return (Fragment(0, 0, layout.num_chunks),)
    home = homes([(slot.name, slot.shape) for slot in layout.slots], num_fragments)
    order = [home[slot.name] for slot in layout.slots]
    if order != sorted(order) or set(order) != set(range(num_fragments)):
        raise ValueError(f"the layout is not that of {num_fragments} fragments")
    firsts = [layout.slots[order.index(index)].offset // CHUNK_ELEMENTS for index in range(num_fragments)]
    ends = [*firsts[1:], layout.num_chunks]
    return tuple(Fragment(index, first, end - first) for index, (first, end) in enumerate(zip(firsts, ends, strict=True)))


def parameters(layout: Layout, parts: Sequence[Fragment]) -> tuple[frozenset[str], ...]:
    """Names of the parameters of each fragment."""
    return tuple(
        frozenset(slot.name for slot in layout.slots if part.elements.start <= slot.offset < part.elements.stop) for part in parts
    )


def homes(shapes: Shapes, num_fragments: int) -> dict[str, int]:
    """The fragment of each parameter, by name. The same for any order of the layers' own parameters."""
    sizes: dict[tuple[int, int], int] = {}
    names = {name for name, _ in shapes}
    for name, shape in shapes:
        unit = _unit(name, names)
        sizes[unit] = sizes.get(unit, 0) + -(-math.prod(shape) // CHUNK_ELEMENTS)
    filled = [0] * num_fragments
    home = {}
    for unit in sorted(sizes, key=lambda unit: (-sizes[unit], unit)):
        home[unit] = filled.index(min(filled))
        filled[home[unit]] += sizes[unit]
    return {name: home[_unit(name, names)] for name, _ in shapes}


def fragment_of_sync(sync: int, num_fragments: int) -> int:
    """Which fragment an outer step is of."""
    return sync % num_fragments


_HEAD, _EMBEDDING = 0, 1


def _unit(name: str, names: Iterable[str]) -> tuple[int, int]:
    """What a parameter is synced with: (0, layer), or (1, which end of the model)."""
    found = _LAYER.search(name)
    if found:
        return (0, int(found[1]))
    has_head = "lm_head.weight" in names
    return (1, _EMBEDDING if "embed" in name or not has_head else _HEAD)
