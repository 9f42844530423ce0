"""What a replay would move: entries and the blobs they name."""

from __future__ import annotations

from collections.abc import Iterable

from decentra.codec.base import block_slice
from decentra.ledger.apply import Machine
from decentra.rounds import records
from decentra.wire.v1 import swarm_pb2


def replay_bytes(machine: Machine, certified: Iterable[bytes], enough_bytes: int) -> int:
    """Bytes of certified entries with their blobs; counting ends at `enough_bytes`. Raises ValueError, KeyError on what is none."""
    total = 0
    for each in certified:
        entry = records.parse_entry(swarm_pb2.CertifiedEntry.FromString(each).entry)
        total += len(each)
        for part in entry.sums:
            rows = block_slice(part.first_block, part.num_blocks, machine.fragments[entry.fragment].num_chunks)
            total += len(part.terms) * (rows.stop - rows.start) * machine.codecs[part.codec].chunk_bytes
        if total >= enough_bytes:
            break
    return total
