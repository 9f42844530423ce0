"""Canonical layout: parameters in model order, each padded to whole chunks, in one flat fp32 vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from decentra.types import CHUNK_ELEMENTS


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter's place. offset: elements from the start, a multiple of 4,096."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def num_elements(self) -> int:
        """Elements of the parameter, padding not counted."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where every parameter stands. The same on every machine: it is in the manifest."""

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Layout:
        """Lay out (name, shape) pairs in their order."""
        slots, offset = [], 0
        for name, shape in shapes:
            slots.append(Slot(name, tuple(shape), offset))
            offset += -(-math.prod(shape) // CHUNK_ELEMENTS) * CHUNK_ELEMENTS
        return cls(tuple(slots))

    @property
    def num_chunks(self) -> int:
        """Chunks of the whole layout."""
        if not self.slots:
            return 0
        last = self.slots[-1]
        return (last.offset + last.num_elements + CHUNK_ELEMENTS - 1) // CHUNK_ELEMENTS

    @property
    def num_elements(self) -> int:
        """Elements of the whole layout, padding counted."""
        return self.num_chunks * CHUNK_ELEMENTS

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """flat: (num_elements,) fp32 -> a view of each parameter by name; writing a view writes `flat`."""
        return {slot.name: flat[slot.offset : slot.offset + slot.num_elements].view(slot.shape) for slot in self.slots}

    def tensor_of_chunk(self, chunk: int) -> str:
        """Name of the parameter that a chunk belongs to."""
        start = chunk * CHUNK_ELEMENTS
        return next(slot.name for slot in reversed(self.slots) if slot.offset <= start)
