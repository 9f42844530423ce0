"""The rows of the table as runs of ours, and the least bandwidth of the grid that each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from decentra import build
from decentra.rounds.download import DIGEST_BYTES
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS
from sims.experiments.utilization_table import paper_model
from sims.experiments.utilization_table.published import Size, gbps
from sims.experiments.utilization_table.swarm import Measured, Setting, measure

TICKS_A_STEP = 36
"""A trainer's step is cut so that every slot is whole: 12.5, 6.25 and 100 / 36 steps for 8, 16 and 36 fragments at H = 100."""

LAYERS_A_FRAGMENT = 3
UNCUT_LAYERS, LAYER_CHUNKS = 8, 4
SYNCS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """period: H, steps between two syncs of the same parameters. overlap_steps: tau beyond the backward pass; None: no overlap.

    row: the published one that it stands beside.
    """

    name: str
    row: str
    codec: str
    period: int
    by_fragments: bool
    overlap_steps: int | None = None
    whole_steps: bool = False
    """tau is overlap_steps and nothing else."""


ROWS = (
    Row("data parallel", "data-parallel", "bf16", 1, False),
    Row("DiLoCo", "diloco", "bf16", 100, False),
    Row("streaming", "streaming", "bf16", 100, True),
    Row("streaming, overlap", "overlap", "bf16", 100, True, 1),
    Row("streaming, overlap, fp4", "overlap-fp4", "fp4", 100, True, 1),
)
WHOLE_STEPS = tuple(
    Row(f"{name}, tau {tau}", row, codec, 100, True, tau, True)
    for name, row, codec in (("overlap", "overlap", "bf16"), ("overlap, fp4", "overlap-fp4", "fp4"))
    for tau in (1, 2)
)
"""As a run is configured: a whole number of steps."""


@dataclass(frozen=True, slots=True)
class Counting:
    """How a setting is counted: ours, or as the paper's simulator does it (see paper_model)."""

    as_paper: bool

    def bits(self, codec: str) -> float:
        """Of a parameter on the wire: an encoded chunk with its share of block digests, or the paper's."""
        if self.as_paper:
            return paper_model.BITS * (paper_model.FP4_SHARE if codec == "fp4" else 1.0)
        return 8 * (build.codecs()[codec].chunk_bytes + DIGEST_BYTES / BLOCK_CHUNKS) / CHUNK_ELEMENTS

    def hidden_steps(self, row: Row, size: Size) -> float:
        """How much of a round may pass beside training, in steps.

        The paper's transfers begin in the backward pass that ends a slot; a round of ours begins after it, so that share is
        added to tau, where it comes to the same. Without overlap ours hide nothing.
        """
        if row.whole_steps or (row.overlap_steps is None and not self.as_paper):
            return float(row.overlap_steps or 0)
        return (row.overlap_steps or 0) + paper_model.hidden_steps(row.row, size)


OURS, AS_PAPER = Counting(False), Counting(True)


def setting_of(row: Row, size: Size, counting: Counting, layer_chunks: int = LAYER_CHUNKS, delay_s: float = 0.0) -> Setting:
    """What is played for a row and a size."""
    fragments = size.layers // LAYERS_A_FRAGMENT if row.by_fragments else 1
    ticks = Fraction(row.period * TICKS_A_STEP, fragments)
    assert ticks.denominator == 1, f"{row.period} steps in {fragments} slots are no whole ticks"
    return Setting(
        codec=row.codec,
        layers=size.layers if row.by_fragments else UNCUT_LAYERS,
        fragments=fragments,
        slot_s=row.period * size.step_s / fragments,
        slot_ticks=int(ticks),
        overlap_ticks=round(counting.hidden_steps(row, size) * TICKS_A_STEP),
        contribution_bytes=size.params * counting.bits(row.codec) / 8,
        layer_chunks=layer_chunks,
        delay_s=delay_s,
    )


@dataclass(slots=True)
class Bench:
    """One setting over links of the grid, each played at most once."""

    setting: Setting
    play: Callable[[Setting, float, int], Measured] = measure
    played: dict[int, Measured] = field(default_factory=dict)

    def at(self, point: int) -> Measured:
        """The setting over links of a grid point."""
        if point not in self.played:
            self.played[point] = self.play(self.setting, gbps(point) * 1e9 / 8, SYNCS)
        return self.played[point]

    def needed(self, wanted: Sequence[float]) -> tuple[int, ...]:
        """For each utilization, ascending: the least grid point that reaches it; the one below was played and does not."""
        found, point = [], 0
        for share in wanted:
            point = max(point, self._guess(share))
            while point > 0 and self.at(point - 1).utilization >= share:
                point -= 1
            while self.at(point).utilization < share:
                point += 1
            found.append(point)
        return tuple(found)

    def _guess(self, share: float) -> int:
        """Where to look first: the point at which the bytes alone would take what such a utilization leaves."""
        setting = self.setting
        left_s = setting.slot_s * (1 / share - 1) + setting.slot_s * setting.overlap_ticks / setting.slot_ticks
        bits_a_second = setting.contribution_bytes / setting.fragments * 8 / left_s
        return next(point for point in range(1000) if gbps(point) * 1e9 >= bits_a_second)
