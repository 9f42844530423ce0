"""Global ids: each epoch is a bijection, and every machine computes the same one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decentra.data.shards import Shard
from decentra.data.stream import Source, permuted, take


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**64 - 1), st.integers(0, 50))
@example(1, 0, 0)
@example(2, 0, 3)
@example(3, 1, 0)
@example(257, 2, 1)
def test_every_epoch_is_a_bijection(num_samples: int, seed: int, epoch: int) -> None:
    ids = np.arange(epoch * num_samples, (epoch + 1) * num_samples, dtype=np.int64)
    assert sorted(permuted(ids, num_samples, seed).tolist()) == list(range(num_samples))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**62), max_size=20), st.integers(1, 2**40), st.integers(0, 99))
def test_an_id_means_the_same_in_any_company(ids: list[int], num_samples: int, seed: int) -> None:
    together = permuted(np.array(ids, dtype=np.int64), num_samples, seed)
    alone = [int(permuted(np.array([each]), num_samples, seed)[0]) for each in ids]
    assert together.tolist() == alone and all(0 <= index < num_samples for index in alone)


def test_order_is_pinned() -> None:
    assert permuted(np.arange(10), 10, 0).tolist() == [0, 1, 3, 2, 8, 9, 4, 5, 6, 7]
    assert permuted(np.arange(10, 20), 10, 0).tolist() == [0, 9, 5, 7, 1, 3, 8, 2, 4, 6]
    assert permuted(np.array([0, 5, 2**40]), 27_586, 3).tolist() == [9923, 16159, 17380]


def test_seeds_and_epochs_differ_and_the_order_is_well_mixed() -> None:
    size = 5000
    first, other_seed = permuted(np.arange(size), size, 0), permuted(np.arange(size), size, 1)
    next_epoch = permuted(np.arange(size, 2 * size), size, 0)
    assert (first == other_seed).mean() < 0.01 and (first == next_epoch).mean() < 0.01
    for order in (first, other_seed, next_epoch):
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.06
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("lease", "count", "expected"),
    [
        ((), 3, []),
        (((5, 7), (0, 2)), 3, [5, 6, 0]),
        (((5, 7), (0, 2)), 9, [5, 6, 0, 1]),
        (((5, 7),), 0, []),
        (((4, 4), (9, 10)), 1, [9]),
    ],
)
def test_take_keeps_the_order_of_the_lease(lease: tuple[tuple[int, int], ...], count: int, expected: list[int]) -> None:
    ids = take(lease, count)
    assert ids.tolist() == expected and ids.dtype == np.int64


def test_source_reads_the_permuted_samples() -> None:
    shard = Shard(np.arange(41, dtype=np.uint16), context=4)
    inputs, targets = Source(shard, seed=5).batch(np.array([3, 12]))
    starts = permuted(np.array([3, 12]), 10, 5) * 4
    assert inputs[:, 0].tolist() == starts.tolist() and torch.equal(targets, inputs + 1)
