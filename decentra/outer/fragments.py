"""Fragments: the parts of the layout that are synced alone. Sync s is of fragment s mod P."""

from __future__ import annotations

from dataclasses import dataclass

from decentra.types import CHUNK_ELEMENTS


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


def fragments(num_chunks: int) -> tuple[Fragment, ...]:
    """The fragments of a layout: one, the whole."""
    return (Fragment(0, 0, num_chunks),)


def fragment_of_sync(sync: int, num_fragments: int) -> int:
    """Which fragment an outer step is of."""
    return sync % num_fragments
