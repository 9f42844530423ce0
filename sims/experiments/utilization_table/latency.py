"""What a round of ours costs on links that are fast but far: its messages one after the other, which the table leaves out."""

from __future__ import annotations

from collections.abc import Iterator

from decentra import build
from decentra.rounds.download import MAX_RUN_BLOCKS
from decentra.types import CHUNK_ELEMENTS, FILE_BLOCK_BYTES
from sims.experiments.utilization_table.published import SIZES
from sims.experiments.utilization_table.rows import LAYERS_A_FRAGMENT, OURS, ROWS, setting_of
from sims.experiments.utilization_table.swarm import REPLICAS, measure

ENDLESS_BYTES_PER_S = 1e13
DELAYS_S = (0.001, 0.01, 0.05)
SYNCS, LAYER_CHUNKS = 12, 16
"""More syncs than in the table, for much hangs on who leads; parts of as many blocks as are pulled in as many runs as at 1B."""


def latency_lines(quick: bool) -> Iterator[str]:
    """Seconds that a round of the streaming row takes at each one-way delay, by phase."""
    yield "Latency, which the table leaves out: a round over links of endless bandwidth (streaming, 1B), seconds, and as one-way delays"
    yield f"{'one-way delay':16}{'round':>10}{'delays':>8}{'offers':>10}{'scatter':>10}{'reduce':>10}{'gather, votes':>15}"
    for delay_s in DELAYS_S[-1:] if quick else DELAYS_S:
        setting = setting_of(ROWS[2], SIZES[0], OURS, layer_chunks=LAYER_CHUNKS, delay_s=delay_s)
        there = measure(setting, ENDLESS_BYTES_PER_S, SYNCS)
        phases = [there.phases_s[name] for name in ("wait", "transfer", "reduce", "ballot")]
        columns = "".join(f"{phase_s:{width}.4f}" for phase_s, width in zip(phases, (10, 10, 10, 15), strict=True))
        yield f"{delay_s:<16g}{there.idle_s:10.4f}{there.idle_s / delay_s:8.1f}{columns}"
    runs = ", ".join(f"{runs_of(size.params / (size.layers // LAYERS_A_FRAGMENT) / REPLICAS)} at {size.name}" for size in SIZES)
    yield f"A blob comes in runs of blocks, each asked for when the last has come, which costs two delays: {runs} (streaming, bf16)."


def runs_of(elements: float, codec: str = "bf16") -> int:
    """In how many runs a blob of so many elements comes from one donor at full size (see rounds.download)."""
    blocks = -(-elements * build.codecs()[codec].chunk_bytes // CHUNK_ELEMENTS // FILE_BLOCK_BYTES)
    return int(-(-blocks // MAX_RUN_BLOCKS))
