"""The codec sweep: arms of one seed train alike, a killed sweep goes on, and the report counts right.

The whole of it by hand: python -m sims.experiments.codec_sweep.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from torch import Tensor

from decentra.data.stream import Source
from sims.experiments.codec_sweep.__main__ import main
from sims.experiments.codec_sweep.arms import ARMS, FULL, REFERENCE, TINY, run_of
from sims.experiments.codec_sweep.cells import play
from sims.experiments.codec_sweep.report import STYLES, lines_of, plot, rounds_behind
from sims.experiments.paired.cells import Record, read, write
from sims.experiments.paired.command import keys, sweep
from sims.experiments.paired.rows import write_csv
from sims.experiments.paired.sizes import lasting

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 120.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where TINY's text is built."""
    return tmp_path_factory.mktemp("text")


def record(arm: str, seed: int, *losses: float) -> Record:
    """A finished cell."""
    return Record(arm, seed, "c0ffee", 1000, losses, {"fp32": 4000}.get(arm, 1000), 1.0)


def without_wall(records: list[Record]) -> list[Record]:
    """In one order and without what differs between machines."""
    return sorted((dataclasses.replace(each, wall_s=0.0) for each in records), key=lambda each: (each.arm, each.seed))


def test_a_cell_repeats_to_the_bit_and_another_seed_is_another_run(cache: Path) -> None:
    first, again, other = (play("topk", seed, TINY, cache) for seed in (0, 0, 1))
    assert without_wall([first]) == without_wall([again])
    assert len(first.losses) == TINY.stop_syncs + 1 and first.losses[-1] < first.losses[0]
    assert first.losses[0] != other.losses[0]


def test_arms_of_a_seed_begin_alike_and_take_the_same_tokens_in_every_step(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[int]] = []
    batch = Source.batch

    def watched(self: Source, ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        trained.append(ids.tolist())
        return batch(self, ids)

    monkeypatch.setattr(Source, "batch", watched)
    starts, steps_of = set(), []
    num_steps, members = ARMS[REFERENCE].outer.inner_steps, TINY.start_members
    for name, arm in ARMS.items():
        trained.clear()
        starts.add(play(name, 0, TINY, cache).losses[0])
        if arm.data_parallel:
            steps_of.append([sorted(ids) for ids in trained])
        else:  # a sync after the other, members in turn
            slots = [trained[first : first + num_steps] for first in range(0, len(trained), num_steps)]
            syncs = [slots[first : first + members] for first in range(0, len(slots), members)]
            steps_of.append([sorted(chain.from_iterable(step)) for sync in syncs for step in zip(*sync, strict=True)])
    assert len(starts) == 1
    assert all(steps == steps_of[0] for steps in steps_of) and len(steps_of[0]) == TINY.stop_syncs * num_steps
    ids = [each for step in steps_of[0] for each in step]
    assert len(set(ids)) == len(ids)


def test_bytes_are_those_of_encoded_chunks_and_block_digests(cache: Path) -> None:
    sizes = {name: play(name, 0, TINY, cache).bytes_a_round for name in ("fp32", "int4", "topk", "data-parallel")}
    chunks = (sizes["fp32"] - 32) // (4 * 4096)
    assert sizes == {
        "fp32": 16384 * chunks + 32, "int4": 2176 * chunks + 32, "topk": 88 * chunks + 32, "data-parallel": 30 * sizes["fp32"],
    }  # fmt: skip


def start(*options: str, **how: Any) -> subprocess.Popen[str]:
    """A sweep in a process of its own."""
    command = [sys.executable, "-m", "sims.experiments.codec_sweep", *options]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **how)


def output(*options: str) -> str:
    """What a sweep that ends well prints."""
    process = start(*options, stdout=subprocess.PIPE)
    said, _ = process.communicate()
    assert process.returncode == 0
    return said


def test_a_killed_sweep_leaves_no_process_and_goes_on_to_what_an_unbroken_one_gives(cache: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "out/cells.jsonl"
    arms, seeds = ("fp32", "int4", "topk"), (0, 1)
    options = ["--size", "tiny", "--arms", ",".join(arms), "--seeds", "2", "--out", str(out), "--cache", str(cache)]
    process = start(*options, stdout=subprocess.DEVNULL)
    limit_s = time.monotonic() + STARTS_WITHIN_S
    while not path.exists() and time.monotonic() < limit_s:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers and not psutil.wait_procs(workers, timeout=20)[1]
    before = read(path)
    assert 1 <= len(before) < 6

    said = output(*options).splitlines()
    after, played = read(path), [line for line in said if " nats after " in line]
    assert after[: len(before)] == before and len(after) == 6 and len(played) == 6 - len(before)
    assert without_wall(after) == without_wall([play(arm, seed, lasting(TINY, 2), cache) for arm in arms for seed in seeds])
    assert {each.name for each in out.iterdir()} == {"cells.jsonl", "cells.csv", "codec_sweep.png"}
    rows = list(csv.DictReader((out / "cells.csv").open(encoding="utf-8")))
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, str(seed)) for arm in arms for seed in seeds]
    assert output(*options).splitlines() == said[len(played) :] and read(path) == after


def test_the_inner_rate_falls_over_all_rounds_of_a_size() -> None:
    size = lasting(FULL, 7)
    assert size.stop_syncs == 7 and size.inner.warmup_tokens + size.inner.decay_tokens == 7 * size.planned_tokens == 7 * 8 * 30 * 4 * 64


def test_cells_of_other_settings_are_played_anew(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    write(path, [play("fp32", 0, dataclasses.replace(TINY, stop_syncs=1), cache)])
    (played,) = sweep(keys(["fp32"], [0], TINY, run_of), TINY, play, path, cache, 1)
    assert [len(each.losses) for each in read(path)] == [2, 3] and read(path)[1] == played
    assert list(sweep(keys(["fp32"], [0], TINY, run_of), TINY, play, path, cache, 1)) == []


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--arms", "int5", "not known"), ("--seeds", "11", "1 to 10"), ("--seeds", "0", "1 to 10"), ("--rounds", "-1", "not neg")],
)
def test_options_that_cannot_be_are_refused(
    option: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["codec_sweep", option, value])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_an_arm_is_as_many_rounds_behind_as_the_reference_was_above_its_last_loss() -> None:
    reference = [record("fp32", seed, 9.0, 6.0, 5.0, 4.0) for seed in (0, 1)]
    assert rounds_behind([*reference, record("topk", 0, 9.0, 5.5), record("topk", 1, 9.0, 4.5)], "topk") == pytest.approx(1.0)
    assert rounds_behind([*reference, record("topk", 0, 9.0, 4.0)], "topk") == pytest.approx(0.0)
    assert math.isnan(rounds_behind([*reference, record("topk", 0, 9.0, 3.9)], "topk"))
    assert math.isnan(rounds_behind([*reference, record("topk", 0, 9.0, 9.5)], "topk"))


def everyone() -> list[Record]:
    """Cells of every arm at three seeds."""
    return [record(arm, seed, 8.0, 5.0, 4.0 + 0.01 * number + 0.001 * seed) for seed in range(3) for number, arm in enumerate(ARMS)]


def test_the_csv_has_a_row_a_cell(tmp_path: Path) -> None:
    write_csv(tmp_path / "cells.csv", everyone(), REFERENCE, {name: {"limit_percent": arm.limit_percent} for name, arm in ARMS.items()})
    rows = list(csv.DictReader((tmp_path / "cells.csv").open(encoding="utf-8")))
    assert [row["arm"] for row in rows[::3]] == list(ARMS)
    int4 = next(row for row in rows if row["arm"] == "int4" and row["seed"] == "2")
    assert (int4["rounds"], int4["tokens"], int4["bytes_a_round"], int4["limit_percent"]) == ("2", "2000", "1000", "0.5")
    assert float(int4["heldout_loss"]) == 4.032 and float(int4["difference_percent"]) == pytest.approx(3 / 4.002, abs=1e-4)
    assert float(rows[0]["difference_percent"]) == float(rows[0]["half_width_percent"]) == 0.0 and rows[0]["limit_percent"] == ""


def test_the_table_says_what_holds_and_what_fails() -> None:
    lines = lines_of(everyone())
    by_arm = {line.split()[0]: line for line in lines}
    assert by_arm["int4"].split()[1:] == ["4.0310", "+0.75", "±", "0.00", "%", "<=", "0.5", "%", "FAILS", "0.001", "4.00"]
    one_seed = lines_of([record("fp32", 0, 8.0, 4.0), record("topk", 0, 8.0, 4.03)])
    assert any(line.startswith("topk") and "holds" in line for line in one_seed)
    assert "topk without error feedback, to topk with it: +0.25 ± 0.00 %" in lines


def test_every_arm_has_a_style_and_the_figure_is_drawn(tmp_path: Path) -> None:
    assert set(STYLES) == set(ARMS)
    for number, records in enumerate((everyone(), [record("fp32", 0, 8.0, 4.0), record("topk", 0, 8.0, 4.1)])):
        plot(tmp_path / f"{number}.png", records, "a title")
        assert (tmp_path / f"{number}.png").stat().st_size > 10_000
