"""The table beside the published one, cell by cell, and why a cell lies where it does."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sims.experiments.utilization_table import paper_model
from sims.experiments.utilization_table.published import SIZES, STEPS_A_DECADE, TABLE, WANTED, Size, point_of, shown
from sims.experiments.utilization_table.rows import AS_PAPER, OURS, SYNCS, TICKS_A_STEP, Bench, Row, setting_of
from sims.experiments.utilization_table.swarm import WARM_UP_SYNCS, Measured

COLUMNS = (
    "row", "size", "wanted_percent", "ours_gbps", "paper_gbps", "deviation_steps", "as_paper_gbps", "as_paper_deviation_steps",
    "ours_percent", "at_paper_percent", "at_paper_attempts", "at_paper_slot_s", "at_paper_idle_s", "at_paper_scatter_s",
    "at_paper_gather_s", "tau_s",
)  # fmt: skip
"""at_paper: our rounds at the published bandwidth, by slot. as_paper: our rounds, counted as the paper's simulator counts."""

EXPLAINED_BEYOND_STEPS = 1
WIDTH = 132


@dataclass(frozen=True, slots=True)
class Cell:
    """One utilization of one row and size; points are of the grid. there: ours at the published point. overlap_s: tau of ours."""

    row: Row
    size: Size
    wanted: float
    ours: int
    published: int
    as_paper: int
    reached: float
    there: Measured
    overlap_s: float

    @property
    def deviation(self) -> int:
        """Grid steps that ours needs more than was published."""
        return self.ours - self.published

    @property
    def as_paper_deviation(self) -> int:
        """The same, counted as the paper does."""
        return self.as_paper - self.published


def cells(rows: Sequence[Row], sizes: Sequence[Size], wanted: Sequence[float]) -> Iterator[Cell]:
    """Play what the cells of these rows need."""
    for row in rows:
        for size in sizes:
            figures = dict(zip(WANTED, TABLE[row.row][SIZES.index(size)], strict=True))
            ours, theirs = Bench(setting_of(row, size, OURS)), Bench(setting_of(row, size, AS_PAPER))
            overlap_s = ours.setting.slot_s * ours.setting.overlap_ticks / ours.setting.slot_ticks
            for share, point, other in zip(wanted, ours.needed(wanted), theirs.needed(wanted), strict=True):
                published = point_of(figures[share])
                yield Cell(row, size, share, point, published, other, ours.at(point).utilization, ours.at(published), overlap_s)


def why(cell: Cell) -> str:
    """Why a cell is off, from the phases of our rounds at the published bandwidth."""
    there, row, phases = cell.there, cell.row, cell.there.phases_s
    scatter_s, gather_s = phases["transfer"], phases["ballot"]
    rest_s = there.idle_s + cell.overlap_s - scatter_s - gather_s
    bits, paper_bits = OURS.bits(row.codec), AS_PAPER.bits(row.codec)
    steps = math.log10(bits / paper_bits) * STEPS_A_DECADE
    hidden_s = cell.size.step_s * (AS_PAPER.hidden_steps(row, cell.size) - OURS.hidden_steps(row, cell.size))
    sentences = [
        f"At {shown(cell.published):g} Gbit/s ours reach {there.utilization:.1%}: from slot to slot {there.slot_s:.4g} s, of which the "
        f"trainer stands still for {there.idle_s:.4g} s (scatter {scatter_s:.4g}, gather and votes {gather_s:.4g}"
        + (f", less tau {cell.overlap_s:.4g}" if cell.overlap_s else "")
        + (f", all else {abs(rest_s):.4f})." if there.idle_s > 0 else ")."),
        f"Ours move {bits:.2f} bits a parameter, the paper's figures stand for {paper_bits:.2f}: {steps:+.1f} steps.",
    ]
    if hidden_s > 0:
        sentences.append(
            f"The paper hides {hidden_s:.3g} s more of a transfer, behind the backward pass that ends the slot; a round of ours begins "
            "when that step is over."
        )
    elif hidden_s < 0:
        sentences.append(f"Ours hide {-hidden_s:.3g} s more of it.")
    sentences.append(f"Counted as the paper counts, the same rounds need {shown(cell.as_paper):g} Gbit/s.")
    if abs(cell.as_paper_deviation) > EXPLAINED_BEYOND_STEPS:
        sentences.append(
            "The rest: there each layer is sent alone, and the one that the backward pass is through with last hides behind nothing; a "
            "transfer of ours hides as a whole."
        )
    return " ".join(sentences)


def lines_of(found: Sequence[Cell], others: Sequence[Cell]) -> Iterator[str]:
    """The text. found: cells of the published rows; others: of rows with whole steps of overlap."""
    yield from _preface()
    yield ""
    yield from _table(found)
    off = [cell for cell in found if abs(cell.deviation) > EXPLAINED_BEYOND_STEPS]
    near = sum(abs(cell.as_paper_deviation) <= EXPLAINED_BEYOND_STEPS for cell in found)
    same = sum(not cell.as_paper_deviation for cell in found)
    close = f"{len(found) - len(off)} of {len(found)} cells; counted as the paper counts {near}, of which {same} are the same"
    yield f"Within {EXPLAINED_BEYOND_STEPS} step of the published figure: {close}."
    most = max(cell.there.attempts for cell in found)
    yield f"Attempts of a round: {most:g} at most. Below, why each of the other {len(off)} cells is off."
    if others:
        yield ""
        yield "The overlap rows with tau a whole number of steps, as a run is configured; last number: the paper's bits, this tau"
        yield ""
        yield from _table(others)
    for cell in off:
        yield ""
        yield f"{cell.row.name}, {cell.size.name}, {cell.wanted:.0%}: {cell.deviation:+d} steps."
        yield from textwrap.wrap(why(cell), WIDTH, initial_indent="  ", subsequent_indent="  ")


def _preface() -> Iterator[str]:
    off = paper_model.deviations()
    wrong = [paper_model.deviations(bits).count(0) for bits in (16.0, 32.0)]
    for paragraph in (
        "Gbit/s, each way, for a share of the time in inner steps: ours / published (by how many grid steps ours is higher; the same, "
        "counted as the paper counts).",
        "Grid: numpy.logspace(-1, 3, 50); all published figures lie on it, rounded to two places and then to one. A step is a factor of "
        f"{10 ** (1 / STEPS_A_DECADE):.3f}. Ours go on beyond 1000.",
        f"Ours: the rounds of two replicas on the virtual clock, the mean of {SYNCS} syncs after {WARM_UP_SYNCS}; bf16 and fp4 "
        "as they travel, with digests. No latency, and coding, hashing and disks take no time, as in the paper. Fragments are 3 equal "
        "layers, strided (8, 16, 36 of them); embedding and head are left out: the published figures leave no room for them. A step is "
        f"{TICKS_A_STEP} ticks of the trainer, so that slots of 12.5, 6.25 and 2.78 steps are whole. Data parallel is a round of ours, "
        "ballot included, for every step.",
        f"As the paper counts: {paper_model.BITS:g} bits a parameter (a quarter of that with fp4), as if bf16 moved five parameters "
        "of six, in an all-reduce that moves 2 (M - 1) / M = 1 times its size; and a layer is sent as soon as the backward pass, 2/3 of "
        f"a step, is through with it. A model of that gives {off.count(0)} of the {len(off)} published figures back, the others "
        f"{max(map(abs, off))} step off; with 16 bits it gives {wrong[0]}, with 32 (fp32) {wrong[1]}.",
        "Overlap rows: the paper's tau, 1 step, and what its transfers hide behind the backward pass, 0.55 steps on average; 1 step alone "
        "is too short for its figures. Without overlap ours hides nothing; as the paper counts, it hides that share too.",
    ):
        yield from textwrap.wrap(paragraph, WIDTH)


def _table(found: Sequence[Cell]) -> Iterator[str]:
    sizes = [size for size in SIZES if any(cell.size == size for cell in found)]
    wanted = sorted({cell.wanted for cell in found})
    for size in sizes:
        yield f"{size.name + f', {size.step_s:g} s a step':24}" + "".join(f"{share:>26.0%}" for share in wanted)
        for row in dict.fromkeys(cell.row for cell in found):
            chosen = [cell for cell in found if cell.row == row and cell.size == size]
            yield f"{row.name:24}" + "".join(f"{_entry(cell):>26}" for cell in chosen)
        yield ""


def _entry(cell: Cell) -> str:
    return f"{shown(cell.ours):g} / {shown(cell.published):g} ({cell.deviation:+d}; {cell.as_paper_deviation:+d})"


def write_csv(path: Path, found: Sequence[Cell]) -> None:
    """A row a cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for cell in found:
            there = cell.there
            name = (cell.row.name, cell.size.name, f"{100 * cell.wanted:g}")
            points = (shown(cell.ours), shown(cell.published), cell.deviation, shown(cell.as_paper), cell.as_paper_deviation)
            shares = (f"{100 * cell.reached:.3f}", f"{100 * there.utilization:.3f}", f"{there.attempts:g}")
            times = (there.slot_s, there.idle_s, there.phases_s["transfer"], there.phases_s["ballot"], cell.overlap_s)
            writer.writerow((*name, *points, *shares, *(f"{time_s:.6g}" for time_s in times)))
