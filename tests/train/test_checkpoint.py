"""Checkpoints appear whole or not at all, and a run that goes on from one retraces the run that never stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from decentra import build
from decentra.config import RunConfig
from decentra.errors import ConfigError, DecentraError, StateError
from decentra.train import checkpoint
from decentra.train.alone import Plan, Point, state_of, train_alone
from decentra.train.step import Replica

STATE = {"model": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}, "step": 7, "windows": {"loss": [1.0, 2.0]}}


def blank() -> dict[str, Any]:
    return {"model": {"a": torch.zeros(2, 3), "b": torch.zeros(4)}, "step": 0, "windows": {"loss": []}}


def test_what_is_saved_is_loaded_with_its_plain_values(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, STATE, {"tokens": 70})
    filled = checkpoint.load(path, blank())
    assert torch.equal(filled["model"]["a"], STATE["model"]["a"]) and filled["step"] == 7 and filled["windows"] == {"loss": [1.0, 2.0]}
    assert checkpoint.about(path)["tokens"] == 70 and checkpoint.complete(tmp_path) == [path]


def test_older_checkpoints_go_and_what_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.tmp").mkdir(parents=True)
    paths = [checkpoint.save(tmp_path, step, STATE, {}, keep=2) for step in (2, 10, 100)]
    assert checkpoint.complete(tmp_path) == paths[1:] and len(list(tmp_path.iterdir())) == 2
    assert checkpoint.complete(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", checkpoint.ABOUT])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_file_is_named(name: str, how: str, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, STATE, {})
    file = path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.unlink() if how == "gone" else file.write_bytes(data if how == "flip" else data[: len(data) // 2])
    with pytest.raises(StateError, match=r"step-00000007.*older one"):
        checkpoint.load(path, blank())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, STATE, {})
    for other in ({"model": {"a": torch.zeros(3, 3)}}, {"model": {"c": torch.zeros(2)}}):
        with pytest.raises(StateError, match="another model"):
            checkpoint.load(path, other)


def test_a_writer_beside_training_writes_what_was_then(tmp_path: Path) -> None:
    writer, value = checkpoint.Writer(tmp_path, keep=3), torch.zeros(1000)
    for step in range(1, 4):
        value.fill_(step)
        writer.save(step, {"value": value}, {})
        value.fill_(-1.0)
    writer.close()
    for step, path in enumerate(checkpoint.complete(tmp_path), 1):
        assert bool((checkpoint.load(path, {"value": torch.zeros(1000)})["value"] == step).all())


def test_a_write_that_fails_is_said_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = checkpoint.Writer(tmp_path / "file")
    writer.save(1, STATE, {})
    with pytest.raises(OSError):
        writer.close()


WRITES = """
import sys, torch, torch.distributed.checkpoint.state_dict_saver
from pathlib import Path
from decentra.train import checkpoint
print("ready", flush=True)
for step in range(int(sys.argv[2]), 10**6):
    checkpoint.save(Path(sys.argv[1]), step, {"a": torch.full((50_000,), float(step)), "step": step}, {})
"""


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_a_writer_that_is_killed_leaves_a_newest_one_that_holds(kills: int, tmp_path: Path) -> None:
    draw, first = random.Random(0), 1
    for _ in range(kills):
        command = [sys.executable, "-c", WRITES, str(tmp_path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(draw.uniform(0.02, 0.4))
            process.send_signal(signal.SIGKILL)
        if found := checkpoint.complete(tmp_path):
            filled = checkpoint.load(found[-1], {"a": torch.zeros(50_000), "step": 0})
            assert bool((filled["a"] == filled["step"]).all()) and filled["step"] >= first - 1
            first = int(filled["step"]) + 1
    assert first > 1


# -- a run ----------------------------------------------------------------------------------------------------------------


def lone(run: RunConfig, data_folder: Path, folder: Path, steps: int, points: list[Point] | None = None) -> Replica:
    """A replica after so many steps, from what is in `folder`."""
    replica, source, heldout = build.outfit(run, data_folder)
    train_alone(replica, source, heldout, run, Plan(steps, 4, 3), folder, (points if points is not None else []).append)
    return replica


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stops", [(5,), (1, 3, 9)])
def test_a_run_that_goes_on_retraces_the_unbroken_one_to_the_bit(
    stops: tuple[int, ...], optimizer: str, small_run: RunConfig, data_folder: Path, tmp_path: Path
) -> None:
    run = dataclasses.replace(small_run, inner=dataclasses.replace(small_run.inner, optimizer=optimizer))
    points: list[Point] = []
    whole = lone(run, data_folder, tmp_path / "whole", 12, points)
    for stop in stops:
        lone(run, data_folder, tmp_path / "broken", stop)
    parts = lone(run, data_folder, tmp_path / "broken", 12)
    first, second = flat(state_of(whole)), flat(state_of(parts))
    assert first.keys() == second.keys() and len(first) > 20
    assert all(torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key] for key, value in first.items())
    assert [point.step for point in points] == [4, 8, 12] and points[-1].tokens == 12 * run.inner.batch_samples * run.data.context


def flat(value: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {place: value}
    return {key: each for name, inner in value.items() for key, each in flat(inner, f"{place}/{name}").items()}


def test_a_finished_run_is_not_trained_again(small_run: RunConfig, data_folder: Path, tmp_path: Path) -> None:
    lone(small_run, data_folder, tmp_path, 4)
    before = (checkpoint.complete(tmp_path)[-1] / checkpoint.ABOUT).read_bytes()
    lone(small_run, data_folder, tmp_path, 4)
    assert (checkpoint.complete(tmp_path)[-1] / checkpoint.ABOUT).read_bytes() == before


def test_a_checkpoint_of_other_settings_is_refused_by_their_names(small_run: RunConfig, data_folder: Path, tmp_path: Path) -> None:
    lone(small_run, data_folder, tmp_path, 2)
    other = dataclasses.replace(small_run, inner=dataclasses.replace(small_run.inner, lr=0.5))
    with pytest.raises(ConfigError, match=r"another run.inner.lr"):
        lone(other, data_folder, tmp_path, 4)


def test_what_it_is_of_stands_beside_it(small_run: RunConfig, data_folder: Path, tmp_path: Path) -> None:
    lone(small_run, data_folder, tmp_path, 2)
    about = json.loads((checkpoint.complete(tmp_path)[-1] / checkpoint.ABOUT).read_text())
    assert about["step"] == 2 and json.loads(about["run"])["name"] == small_run.name and len(about["config_hash"]) == 16


@pytest.mark.parametrize("policy", ["drop", "stop"])
def test_a_bad_step_that_is_not_to_be_skipped_ends_a_lone_run_and_leaves_its_checkpoints(
    policy: str, small_run: RunConfig, data_folder: Path, tmp_path: Path
) -> None:
    lone(small_run, data_folder, tmp_path, 3)
    replica, source, heldout = build.outfit(small_run, data_folder, on_bad_step=policy)
    step = replica.inner_step
    spoilt = iter([False, True])

    def spoiling(*batch: Any) -> float:
        if next(spoilt):
            replica.model.get_parameter("model.norm.weight").data[0] = float("nan")
        return step(*batch)

    replica.inner_step = spoiling
    with pytest.raises(DecentraError, match=r"a bad step.*goes on from the newest checkpoint"):
        train_alone(replica, source, heldout, small_run, Plan(9, 4, 3), tmp_path, lambda point: None)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-00000003"]
