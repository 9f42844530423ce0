"""The codec seam: fp32 chunks to bytes and back, exactly the same on every machine.

Encoded bytes are the truth: every peer, their maker too, decodes those bytes. Encoding is per chunk and independent
of where a partition is cut, so a block of a payload is the payload of that block.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch

from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

warnings.filterwarnings("ignore", message="The given buffer is not writable")  # that of packed_rows, which nobody writes


class NotFiniteError(ValueError):
    """A chunk holds NaN or infinity; `chunk` is its index."""

    def __init__(self, chunk: int) -> None:
        super().__init__(f"chunk {chunk} holds NaN or infinity")
        self.chunk = chunk


class Codec(Protocol):
    """Contract: tests/contracts/test_codec.py. Implementations are stateless."""

    name: str
    chunk_bytes: int
    """Encoded bytes of one chunk."""

    def encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """chunks: (n, 4096) fp32; out: (n, chunk_bytes) uint8, filled; both on one device. Raises NotFiniteError."""
        ...

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """packed: (n, chunk_bytes) uint8, any bytes; out: (n, 4096) fp32, filled: multiply only, no division.

        The bits are the same on every machine; what an encoder wrote decodes to finite values.
        """
        ...

    def add(self, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
        """total, (n, 4096) fp32, becomes total + factor * what `packed` decodes to: multiplied, rounded, then added.

        Elements that a sparse codec did not send stay as they are, even -0.0.

        factor: an fp32 value. scratch: a tensor like `total`, spent.
        """
        ...


def encode(codec: Codec, flat: torch.Tensor) -> torch.Tensor:
    """flat: (n * 4096,) fp32 -> (n, chunk_bytes) uint8. Raises NotFiniteError."""
    chunks = flat.view(-1, CHUNK_ELEMENTS)
    out = torch.empty(chunks.shape[0], codec.chunk_bytes, dtype=torch.uint8)
    codec.encode(chunks, out)
    return out


def decode_then_add(codec: Codec, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
    """What Codec.add does, for codecs without a kernel of their own for it."""
    codec.decode(packed, scratch)
    total.add_(scratch.mul_(factor))


def add_decoded(codec: Codec, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor, first: bool) -> None:
    """The next term of a weighted sum; see Codec.add. first: `total` holds nothing yet."""
    if not first:
        codec.add(packed, factor, total, scratch)
        return
    codec.decode(packed, total)
    if factor != 1.0:
        total.mul_(factor)


def multiply_scales(values: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> None:
    """values: (n, groups, elements) fp32; scale: (n, groups) fp32 -> out: (n, 4096) fp32.

    A group whose scale is not finite becomes the NaN 0x7fc00000: which NaN a product makes depends on the machine.
    """
    groups = out.view(values.shape)
    torch.mul(values, scale.unsqueeze(2), out=groups)
    groups.masked_fill_(~torch.isfinite(scale).unsqueeze(2), float("nan"))


def packed_rows(data: bytes | memoryview, codec: Codec) -> torch.Tensor:
    """Encoded chunks -> a view of them as (n, chunk_bytes) uint8, to be read only."""
    if not len(data):
        return torch.empty(0, codec.chunk_bytes, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8).view(-1, codec.chunk_bytes)


def refuse_not_finite(chunks: torch.Tensor) -> None:
    """chunks: (n, 4096) fp32. Raises NotFiniteError naming the first bad chunk."""
    bad = ~torch.isfinite(chunks).all(dim=1)
    if bool(bad.any()):
        raise NotFiniteError(int(bad.nonzero()[0, 0]))


def num_blocks(num_chunks: int) -> int:
    """Blocks that hold `num_chunks` chunks; the last may be short."""
    return -(-num_chunks // BLOCK_CHUNKS)


def block_slice(first_block: int, blocks: int, num_chunks: int) -> slice:
    """Chunk rows of a run of blocks."""
    return slice(first_block * BLOCK_CHUNKS, min((first_block + blocks) * BLOCK_CHUNKS, num_chunks))
