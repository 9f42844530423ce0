"""From a replica's drift to encoded blocks with their digests, one block after another: nothing but the result is ever whole. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from decentra.codec.base import Codec, NotFiniteError, block_slice, num_blocks
from decentra.ledger import chain
from decentra.outer.feedback import compensate, remainder
from decentra.outer.pseudograd import pseudo_gradient
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, Digest


@dataclass(frozen=True, slots=True)
class Encoded:
    """A contribution before it has a name.

    packed: (n, chunk_bytes) uint8. norm: of the pseudo-gradient. residual: (n * 4096,) fp32, what encoding lost; None without
    error feedback. blocks: views of packed, with block_digests and their tree, blocks_digest.
    """

    packed: torch.Tensor
    norm: float
    residual: torch.Tensor | None
    blocks: tuple[memoryview, ...]
    block_digests: tuple[Digest, ...]
    blocks_digest: Digest


def encode_contribution(
    codec: Codec, anchor: torch.Tensor, local: torch.Tensor, before: torch.Tensor | None = None, decay: float = 0.0
) -> Encoded:
    """anchor, local: (n * 4096,) fp32, CPU. before: the same shape, the residual that holds, spent; decay 0: keep none.

    Raises NotFiniteError.
    """
    base, replica = anchor.view(-1, CHUNK_ELEMENTS), local.view(-1, CHUNK_ELEMENTS)
    rows, squares = len(base), 0.0
    packed = torch.empty(rows, codec.chunk_bytes, dtype=torch.uint8)
    residual = torch.empty_like(base) if decay else None
    scratch, decoded = torch.empty(2, BLOCK_CHUNKS, CHUNK_ELEMENTS)
    for block in range(num_blocks(rows)):
        tile = block_slice(block, 1, rows)
        delta = scratch[: tile.stop - tile.start]
        pseudo_gradient(base[tile], replica[tile], delta)
        squares += float(torch.dot(delta.view(-1), delta.view(-1)))
        if before is not None:
            compensate(delta, before.view(-1, CHUNK_ELEMENTS)[tile], decay)
        try:
            codec.encode(delta, packed[tile])
        except NotFiniteError as error:
            raise NotFiniteError(tile.start + error.chunk) from error
        if residual is not None:
            codec.decode(packed[tile], decoded[: len(delta)])
            residual[tile] = remainder(delta, decoded[: len(delta)])
    blocks, digests, root = cut(packed)
    return Encoded(packed, math.sqrt(squares), None if residual is None else residual.view(-1), blocks, digests, root)


def cut(packed: torch.Tensor) -> tuple[tuple[memoryview, ...], tuple[Digest, ...], Digest]:
    """(n, chunk_bytes) uint8 -> (views of its blocks, their digests, the tree digest of those)."""
    rows = packed.shape[0]
    blocks = tuple(_bytes_of(packed[block_slice(b, 1, rows)].numpy()) for b in range(num_blocks(rows)))
    digests = tuple(chain.bytes_block(block) for block in blocks)
    return blocks, digests, chain.tree(digests)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")
