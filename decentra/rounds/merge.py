"""What one replica makes of a sync for itself: the local seam, never in S. The agreed anchor moves by full averages alone. Pure.

mix: the fragment keeps alpha of its own value when the outcome is there (Streaming DiLoCo, arXiv 2501.18512). eager: it goes
on at once from its provisional point, where its own contribution alone would lead, and has those of the others in its next
one, an outer step later (arXiv 2502.12996).
"""

from __future__ import annotations

import torch

from decentra.codec.base import add_decoded, block_slice, num_blocks
from decentra.config import OuterConfig
from decentra.ledger.apply import Machine
from decentra.ledger.state import State
from decentra.outer.average import coefficient, coefficient_bits
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, PeerId


def share_kept(outer: OuterConfig, counted: bool) -> float:
    """The share of its own value that the fragment of the last sync keeps, once that is decided."""
    if not counted:
        return 0.0
    return 1.0 if outer.merge == "eager" else outer.alpha


def expected_share(state: State, peer: PeerId, tokens: int, tokens_a_sample: int, slot_samples: int) -> float:
    """Coefficient that a contribution of `tokens` will have in the average of the due sync, as far as S tells.

    The paper has 1 / M for M replicas of one pace; here shares are of tokens. Of every other member that the sync waits for and
    that the last one heard it is taken that it brings what it last did, or a slot's samples before it ever has. Alone: exactly 1.
    """
    others = [m for m in state.members if m.peer in state.expected() and m.peer != peer and not m.unheard_syncs]
    samples = sum(m.last_claim_samples or slot_samples for m in others)
    return coefficient(coefficient_bits(tokens, tokens + samples * tokens_a_sample))


def provisional_point(
    machine: Machine, packed: torch.Tensor, share: float, anchor: torch.Tensor, momentum: torch.Tensor, out: torch.Tensor
) -> None:
    """out: (n * 4096,) fp32, filled: where the agreed anchor would move if `share` of this contribution were the average.

    packed: (n, chunk_bytes) uint8, encoded by `machine.up`. anchor, momentum: as `out`, agreed, read only. It is the decoded
    contribution that moves it, as it will move the anchor: what encoding lost enters once, with the contribution that sends it.
    """
    codec, rows = machine.codecs[machine.up], len(packed)
    gradient, scratch = torch.empty(2, BLOCK_CHUNKS, CHUNK_ELEMENTS)
    out.copy_(anchor)
    for block in range(num_blocks(rows)):
        tile = block_slice(block, 1, rows)
        count = tile.stop - tile.start
        add_decoded(codec, packed[tile], share, gradient[:count], scratch[:count], first=True)
        where = slice(tile.start * CHUNK_ELEMENTS, tile.stop * CHUNK_ELEMENTS)
        machine.outer.apply(out[where], momentum[where].clone(), gradient[:count].view(-1))
