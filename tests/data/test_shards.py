"""Shards: windows, and files that are built once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from decentra.config import DataConfig
from decentra.data.shards import FILES, Shard, build, token_dtype, unigram_entropy
from decentra.errors import ConfigError, StateError

SMALL = DataConfig(vocab_size=600, context=32, heldout_share=0.1, max_text_bytes=400_000)


def write(path: Path, count: int) -> Path:
    np.arange(count, dtype="<u2").tofile(path)
    return path


def test_samples_overlap_by_the_one_token_that_is_predicted(tmp_path: Path) -> None:
    shard = Shard.open(write(tmp_path / "t.bin", 42), context=8, vocab_size=2048)
    assert shard.num_samples == 5
    assert shard.sample(0).tolist() == list(range(9)) and shard.sample(4).tolist() == list(range(32, 41))
    inputs, targets = shard.batch([4, 1])
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.tolist() == [list(range(32, 40)), list(range(8, 16))] and torch.equal(targets, inputs + 1)


@pytest.mark.parametrize(("count", "num_samples"), [(9, 1), (16, 1), (17, 2), (18, 2)])
def test_every_token_but_a_short_tail_is_a_target(tmp_path: Path, count: int, num_samples: int) -> None:
    assert Shard.open(write(tmp_path / "t.bin", count), context=8, vocab_size=2048).num_samples == num_samples


def test_too_short_or_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="holds 8 tokens"):
        Shard.open(write(tmp_path / "t.bin", 8), context=8, vocab_size=2048)
    with pytest.raises(StateError, match="missing"):
        Shard.open(tmp_path / "missing.bin", context=8, vocab_size=2048)


def test_tokens_are_as_narrow_as_the_vocabulary_allows() -> None:
    assert token_dtype(65536) == np.dtype("<u2") and token_dtype(65537) == np.dtype("<u4")


def test_unigram_entropy_of_even_and_certain_tokens() -> None:
    assert unigram_entropy(np.array([0, 1, 2, 3] * 5, dtype=np.uint16)) == pytest.approx(math.log(4))
    assert unigram_entropy(np.zeros(9, dtype=np.uint16)) == 0.0


def test_build_gives_the_same_bytes_and_reuses_them(tmp_path: Path) -> None:
    first, second = build(SMALL, tmp_path / "a"), build(SMALL, tmp_path / "b")
    assert tuple(first) == FILES
    for name in FILES:
        assert first[name].read_bytes() == second[name].read_bytes()
    before = {name: path.stat().st_mtime_ns for name, path in first.items()}
    assert build(SMALL, tmp_path / "a") == first
    assert build(dataclasses.replace(SMALL, context=16), tmp_path / "a") == first
    assert {name: path.stat().st_mtime_ns for name, path in first.items()} == before
    assert not list(tmp_path.glob("*/*.tmp"))


def test_build_mends_a_damaged_folder_and_follows_the_settings(tmp_path: Path) -> None:
    paths = build(SMALL, tmp_path)
    whole = paths["train.bin"].read_bytes()
    paths["train.bin"].write_bytes(whole[:100])
    assert build(SMALL, tmp_path)["train.bin"].read_bytes() == whole
    build(dataclasses.replace(SMALL, vocab_size=700), tmp_path)
    assert paths["train.bin"].read_bytes() != whole


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        build(dataclasses.replace(SMALL, max_text_bytes=1000), tmp_path)
