"""The arms of streaming_quality train alike, their bytes and hours are counted right, and a killed run goes on.

The whole of it by hand: python -m sims.experiments.streaming_quality.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from decentra.config import RunConfig, check_run
from decentra.data.stream import Source
from sims.experiments.paired.cells import Record, read, write
from sims.experiments.paired.command import keys
from sims.experiments.paired.sizes import lasting
from sims.experiments.streaming_quality.__main__ import main
from sims.experiments.streaming_quality.arms import ARMS, FULL, REFERENCE, SIZES, TINY, run_of
from sims.experiments.streaming_quality.cells import play
from sims.experiments.streaming_quality.costs import BILLION, DELAY_S, DELAYS, Workload, scaled, workload_of
from sims.experiments.streaming_quality.report import STYLES, columns, lines_of, plot

SIZE = lasting(TINY, 2)
"""The first sync of eager is that of plain."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where TINY's text is built."""
    return tmp_path_factory.mktemp("text")


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
def test_every_arm_is_a_run_that_nodes_would_take(size: RunConfig) -> None:
    for arm in ARMS:
        check_run(run_of(arm, 0, lasting(size, 2)), "an arm")


def test_arms_of_a_seed_begin_alike_take_the_same_tokens_and_end_apart(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    batch = Source.batch

    def watched(self: Source, ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        trained.extend(ids.tolist())
        return batch(self, ids)

    monkeypatch.setattr(Source, "batch", watched)
    records, tokens = {}, {}
    for name in ARMS:
        trained.clear()
        records[name] = play(name, 0, SIZE, cache)
        tokens[name] = Counter(trained)
    assert len({record.losses[0] for record in records.values()}) == 1
    assert len({record.losses[-1] for record in records.values()}) == len(ARMS)
    assert {len(record.losses) for record in records.values()} == {3}
    assert all(found == tokens[REFERENCE] for found in tokens.values()) and set(tokens[REFERENCE].values()) == {1}
    assert {2 * record.tokens_a_round for record in records.values()} == {tokens[REFERENCE].total() * SIZE.data.context}
    again = play("overlap", 0, SIZE, cache)
    assert dataclasses.replace(again, wall_s=0.0) == dataclasses.replace(records["overlap"], wall_s=0.0)


def test_a_round_that_hides_costs_nothing_and_one_that_does_not_what_is_left_of_it() -> None:
    # 1.5 x 1e6 bytes at 12 mbit/s take 1 s, and the delays 0.85 s.
    work = Workload(members=4, step_s=0.5, slot_steps=10, hidden_steps=0, sync_bytes=[1_000_000, 1_000_000], num_rounds=3)
    round_s = 1.0 + DELAYS * DELAY_S
    assert work.sent_bytes == 9e6 and work.hours(12) * 3600 == pytest.approx(6 * (5.0 + round_s))
    assert work.peak_mbit == pytest.approx(12.0 / 5.0)
    tau = dataclasses.replace(work, hidden_steps=1)
    assert tau.hours(12) * 3600 == pytest.approx(6 * 5.0 + 5 * (round_s - 0.5) + round_s)
    assert tau.peak_mbit == pytest.approx(12.0 / 0.5)
    hidden = dataclasses.replace(work, hidden_steps=10)
    assert hidden.hours(12) * 3600 == pytest.approx(6 * 5.0 + round_s) and hidden.peak_mbit == work.peak_mbit


def test_costs_of_the_arms_follow_from_their_schedules() -> None:
    here = {name: workload_of(run_of(name, 0, lasting(FULL, 40))) for name in ARMS}
    params = 2 * 2048 * 192 + 3 * (4 * 192**2 + 3 * 192 * 512 + 2 * 192) + 192
    assert here["plain"].sync_bytes[0] == pytest.approx(2 * params, rel=0.02)
    assert sum(here["streaming"].sync_bytes) == pytest.approx(here["plain"].sync_bytes[0], rel=0.001)
    assert here["plain"].sent_bytes / here["overlap-int4"].sent_bytes == pytest.approx(16 / 4.25, rel=0.001)
    assert {name: (len(work.sync_bytes), work.slot_steps, work.hidden_steps) for name, work in here.items()} == {
        "plain": (1, 30, 0), "streaming": (3, 10, 0), "overlap": (3, 10, 5), "overlap-int4": (3, 10, 5), "eager": (1, 30, 30),
    }  # fmt: skip
    assert {work.num_rounds for work in here.values()} == {40}
    large = {name: scaled(arm, BILLION) for name, arm in ARMS.items()}
    assert {name: (len(work.sync_bytes), work.slot_steps, work.hidden_steps) for name, work in large.items()} == {
        "plain": (1, 96, 0), "streaming": (8, 12, 0), "overlap": (8, 12, 6), "overlap-int4": (8, 12, 6), "eager": (1, 96, 96),
    }  # fmt: skip
    assert sum(large["streaming"].sync_bytes) == pytest.approx(2e9, rel=0.001)


def everyone() -> list[Record]:
    """Cells of every arm at three seeds."""
    wanted = keys(list(ARMS), range(3), SIZE, run_of)
    return [Record(arm, seed, config, 1000, (8.0, 6.0, 4.0 + 0.02 * list(ARMS).index(arm)), 100, 1.0) for arm, seed, config in wanted]


def test_what_is_finished_is_reported_without_being_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "cells.jsonl", everyone())
    monkeypatch.setattr(sys, "argv", ["streaming_quality", "--size", "tiny", "--rounds", "2", "--out", str(tmp_path)])
    assert main() == 0 and read(tmp_path / "cells.jsonl") == everyone()
    said = capsys.readouterr().out
    assert said == (tmp_path / "table.txt").read_text(encoding="utf-8")
    overlap = next(line for line in said.splitlines() if line.startswith("overlap "))
    assert overlap.split()[1:9] == ["4.0400", "+1.00", "±", "0.00", "%", "+1.00", "+1.00", "+1.00"]
    rows = list(csv.DictReader((tmp_path / "cells.csv").open(encoding="utf-8")))
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, str(seed)) for arm in ARMS for seed in range(3)]
    streaming = next(row for row in rows if row["arm"] == "streaming")
    assert float(streaming["difference_percent"]) == 0.5 and float(streaming["hours_20mbit"]) > float(streaming["hours_1000mbit"])
    assert float(streaming["hours_1b_20mbit"]) == pytest.approx(scaled(ARMS["streaming"], BILLION).hours(20), abs=1e-5)
    assert (tmp_path / "streaming_quality.png").stat().st_size > 10_000


def test_one_seed_and_few_arms_are_reported_too(tmp_path: Path) -> None:
    assert set(STYLES) == set(ARMS) == set(columns(SIZE))
    records = [record for record in everyone() if record.seed == 0 and record.arm in (REFERENCE, "eager")]
    plot(tmp_path / "plot.png", records, SIZE, "a title")
    assert any(line.startswith("eager") and "+2.00 %" in line for line in lines_of(records, SIZE))
