"""The utilization table: the published figures are understood, a run gives what arithmetic says, and the search finds the least rate."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from sims.experiments.utilization_table import paper_model
from sims.experiments.utilization_table.__main__ import QUICK_ROWS, QUICK_WANTED, main
from sims.experiments.utilization_table.published import LAST_POINT, SIZES, TABLE, gbps, point_of, shown
from sims.experiments.utilization_table.report import COLUMNS, EXPLAINED_BEYOND_STEPS, Cell, why
from sims.experiments.utilization_table.rows import AS_PAPER, OURS, ROWS, WHOLE_STEPS, Bench, Row, setting_of
from sims.experiments.utilization_table.swarm import Measured, ScaledLink, Setting

ONE_B = SIZES[0]
DATA_PARALLEL, DILOCO, STREAMING, OVERLAP, OVERLAP_FP4 = ROWS
TOLERANCE = 0.003
"""Of a utilization: block digests, control messages and the first frame of each transfer are not in the arithmetic."""


def predicted(setting: Setting, point: int) -> float:
    """Compute, then scatter and gather of half the bytes each, less what tau hides."""
    bytes_a_second = gbps(point) * 1e9 / 8
    round_s = setting.contribution_bytes / setting.fragments / bytes_a_second
    hidden_s = setting.slot_s * setting.overlap_ticks / setting.slot_ticks
    return setting.slot_s / (setting.slot_s + max(0.0, round_s - hidden_s))


def test_every_published_figure_is_a_point_of_the_grid() -> None:
    figures = {figure for sizes in TABLE.values() for size in sizes for figure in size}
    assert len(figures) > 30
    assert all(0 <= point_of(figure) <= LAST_POINT and shown(point_of(figure)) == figure for figure in figures)
    with pytest.raises(ValueError, match="no point of the grid"):
        point_of(8.0)


def test_the_model_of_the_papers_simulator_gives_its_figures_back_and_no_other_volume_does() -> None:
    found = paper_model.deviations()
    assert found.count(0) >= 65 and max(map(abs, found)) == 1
    assert paper_model.deviations(16.0).count(0) < 15


@pytest.mark.parametrize(
    ("row", "size", "point"),
    [(DATA_PARALLEL, 0, 36), (DILOCO, 0, 20), (STREAMING, 0, 24), (STREAMING, 2, 20), (OVERLAP, 0, 22), (OVERLAP_FP4, 1, 10)],
    ids=lambda value: value.name if isinstance(value, Row) else str(value),
)
def test_a_run_gives_the_utilization_that_its_bytes_leave(row: Row, size: int, point: int) -> None:
    bench = Bench(setting_of(row, SIZES[size], OURS))
    expected = predicted(bench.setting, point)
    assert 0.2 < expected < 0.99
    assert bench.at(point).utilization == pytest.approx(expected, abs=TOLERANCE)


def test_as_the_paper_counts_a_round_moves_fewer_bytes_and_hides_the_backward_pass() -> None:
    ours, theirs = setting_of(DILOCO, ONE_B, OURS), setting_of(DILOCO, ONE_B, AS_PAPER)
    assert ours.contribution_bytes == pytest.approx(2e9, rel=1e-4) and theirs.contribution_bytes == 1e9 * paper_model.BITS / 8
    assert ours.overlap_ticks == 0
    assert theirs.overlap_ticks / theirs.slot_ticks * theirs.slot_s == pytest.approx(2 / 3 * 23 / 24 * ONE_B.step_s, abs=0.002)
    assert [setting_of(row, ONE_B, OURS).overlap_ticks for row in WHOLE_STEPS] == [36, 72, 36, 72]


def test_a_faster_link_never_gives_less_and_overlap_beats_none() -> None:
    plain, ahead = (Bench(setting_of(row, ONE_B, OURS)) for row in (STREAMING, OVERLAP))
    for bench in (plain, ahead):
        shares = [bench.at(point).utilization for point in (14, 18, 22, 26)]
        assert all(slower < faster for slower, faster in itertools.pairwise(shares))
    for point in (14, 18, 22):
        assert ahead.at(point).utilization > plain.at(point).utilization + 0.02


def test_a_run_repeats_and_a_finer_layout_gives_the_same() -> None:
    setting = setting_of(STREAMING, ONE_B, OURS)
    first, again, finer = (Bench(each).at(20) for each in (setting, setting, dataclasses.replace(setting, layer_chunks=12)))
    assert first == again
    assert finer.utilization == pytest.approx(first.utilization, abs=TOLERANCE)


def test_latency_costs_a_round_in_proportion() -> None:
    near, far = (Bench(setting_of(STREAMING, ONE_B, OURS, delay_s=delay_s)).at(73) for delay_s in (0.01, 0.02))
    assert far.idle_s == pytest.approx(2 * near.idle_s, rel=0.05) and near.idle_s > 0.05


def test_the_search_finds_the_least_point_whatever_the_first_guess() -> None:
    def play(_: Setting, rate: float, syncs: int) -> Measured:
        asked.append(rate)
        return Measured(1 - 1 / (1 + rate / 1e9), 1.0, 0.0, {})

    for scale in (0.01, 1.0, 50.0):
        asked: list[float] = []
        setting = dataclasses.replace(setting_of(DILOCO, ONE_B, OURS), contribution_bytes=scale * 1e10)
        found = Bench(setting, play).needed((0.5, 0.9))
        assert found == tuple(math.ceil((math.log10(8 * share / (1 - share)) + 1) * 49 / 4) for share in (0.5, 0.9))
        assert len(asked) == len(set(asked))


def test_control_passes_bulk_and_is_not_scaled() -> None:
    up, down = ScaledLink(1000.0, scale=10.0), ScaledLink(1000.0, scale=10.0, passes_on=True)
    assert up.reserve(0.0, 100) == pytest.approx(1.064)
    assert up.reserve(0.0, 100, priority=True) == pytest.approx(0.164)
    assert down.reserve(1.064, 100) == pytest.approx(1.064)  # it came while it was sent
    assert down.reserve(1.064, 100) == pytest.approx(2.128)  # a second sender's has to wait


def test_a_cell_is_explained_by_what_was_measured_and_what_is_left_over_too() -> None:
    there = Measured(0.78, 0.1282, 0.0282, {"transfer": 0.0141, "ballot": 0.0141})
    cell = Cell(DATA_PARALLEL, ONE_B, 0.99, point_of(569.0) + 18, point_of(569.0), point_of(569.0), 0.991, there, 0.0)
    text = why(cell)
    assert cell.deviation == 18 and "569 Gbit/s ours reach 78.0%" in text and "stands still for 0.0282 s (scatter 0.0141" in text
    assert "hides 0.0639 s more" in text and "16.00 bits" in text and "The rest" not in text
    assert "The rest" in why(dataclasses.replace(cell, as_paper=cell.published - 5))


def test_quick_writes_text_and_csv_and_explains_what_is_off(tmp_path: Path) -> None:
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "utilization_table.txt").read_text()
    assert text.splitlines()[0] == f"python -m sims.experiments.utilization_table --quick --out {tmp_path}"
    with (tmp_path / "utilization_table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(QUICK_ROWS) * len(QUICK_WANTED) and tuple(rows[0]) == COLUMNS
    for row in rows:
        assert float(row["ours_percent"]) >= float(row["wanted_percent"])
        assert abs(int(row["as_paper_deviation_steps"])) <= 1
        explained = f"{row['row']}, {row['size']}, {row['wanted_percent']}%: " in text
        assert explained == (abs(int(row["deviation_steps"])) > EXPLAINED_BEYOND_STEPS)
