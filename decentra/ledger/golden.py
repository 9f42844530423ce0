"""Golden vectors: what every machine that applies must reproduce to the bit before it may take part.

Inputs come from integer arithmetic alone and hold normals, denormals, ties and every tail length of a vector register.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from decentra.codec.base import Codec, encode
from decentra.errors import SetupError
from decentra.ledger.chain import digest
from decentra.outer.average import add_term, coefficient_bits
from decentra.outer.nesterov import Nesterov
from decentra.types import CHUNK_ELEMENTS, Digest

_CHUNKS = 3

GOLDEN = bytes.fromhex("474a119a7f985dd0ad8221923e22d60da69c520248442d5b072844a9d7dfb94a")
"""What golden_digest must give with every codec of this version."""


def check_machine(codecs: Mapping[str, Codec]) -> None:
    """Raises SetupError where this machine's arithmetic differs from the swarm's."""
    if golden_digest(codecs) != GOLDEN:
        raise SetupError(
            "the golden vectors come out differently on this machine, so its replica would drift; install the torch version of "
            "constraints.txt, and report the CPU if that does not help"
        )


def inputs(seed: int, count: int) -> torch.Tensor:
    """(count,) fp32 from a 32-bit integer hash; exponents down to the denormals."""
    n = np.arange(count, dtype=np.uint64) + np.uint64(seed * 1_000_003)
    n = (n * np.uint64(0x9E3779B97F4A7C15)) ^ (n >> np.uint64(7))
    n = (n ^ (n >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mantissa = (n >> np.uint64(20)) & np.uint64(0x7FFFFF)
    sign = (n >> np.uint64(63)) << np.uint64(31)
    wide = ((n >> np.uint64(50)) & np.uint64(15)) == 0
    exponent = np.where(wide, (n >> np.uint64(43)) % np.uint64(8), np.uint64(115) + (n >> np.uint64(43)) % np.uint64(12))
    bits = (sign | (exponent << np.uint64(23)) | mantissa).astype(np.uint32)
    return torch.from_numpy(bits.view(np.float32).copy())


def golden_digest(codecs: Mapping[str, Codec]) -> Digest:
    """Digest of what this machine makes of the golden inputs with every codec, the average and the outer step."""
    parts = []
    total = torch.empty(_CHUNKS * CHUNK_ELEMENTS)
    for name in sorted(codecs):
        for peer in range(3):
            packed = encode(codecs[name], inputs(peer, _CHUNKS * CHUNK_ELEMENTS))
            decoded = torch.empty(_CHUNKS, CHUNK_ELEMENTS)
            codecs[name].decode(packed, decoded)
            add_term(total, decoded.view(-1), coefficient_bits(peer + 1, 6), peer == 0)
            parts += [packed.numpy().tobytes()]
        parts.append(total.numpy().tobytes())
    anchor, momentum = inputs(7, total.numel()), inputs(8, total.numel())
    for tail in range(1, 34):
        Nesterov(0.7, 0.9).apply(anchor[-tail:], momentum[-tail:], total[:tail])
    Nesterov(0.7, 0.9).apply(anchor, momentum, total.clone())
    parts += [anchor.numpy().tobytes(), momentum.numpy().tobytes()]
    return digest("decentra/golden", *parts)
