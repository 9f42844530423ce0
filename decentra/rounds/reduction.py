"""What an owner makes of a close. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from decentra.codec.base import Codec
from decentra.outer.average import add_term, coefficient_bits
from decentra.types import CHUNK_ELEMENTS, PeerId


def reduce(packed: Mapping[PeerId, torch.Tensor], weights: Mapping[PeerId, int], up: Codec, down: Codec) -> torch.Tensor:
    """Average the parts of a close and encode once.

    packed: (n, up.chunk_bytes) uint8 by sender; weights: int64 tokens -> (n, down.chunk_bytes) uint8. Terms are added in
    the order of sender ids, coefficients w_i / W rounded once to fp32. Raises NotFiniteError.
    """
    total_weight = sum(weights.values())
    rows = len(next(iter(packed.values())))
    total, term = torch.empty(rows, CHUNK_ELEMENTS), torch.empty(rows, CHUNK_ELEMENTS)
    for index, sender in enumerate(sorted(packed)):
        up.decode(packed[sender], term)
        add_term(total, term, coefficient_bits(weights[sender], total_weight), index == 0)
    out = torch.empty(rows, down.chunk_bytes, dtype=torch.uint8)
    down.encode(total, out)
    return out


def not_finite(packed: Mapping[PeerId, torch.Tensor], up: Codec) -> list[PeerId]:
    """Senders whose part decodes to NaN or infinity. packed: (n, up.chunk_bytes) uint8 by sender."""
    term = torch.empty(len(next(iter(packed.values()))), CHUNK_ELEMENTS)
    guilty = []
    for sender in sorted(packed):
        up.decode(packed[sender], term)
        if not bool(torch.isfinite(term).all()):
            guilty.append(sender)
    return guilty
