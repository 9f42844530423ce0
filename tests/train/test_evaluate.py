"""Held-out loss is one number, whatever the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from decentra.config import ModelConfig
from decentra.data.shards import Shard
from decentra.model.init import seeded
from decentra.train.evaluate import Heldout, bits_per_byte, evaluate, heldout_loss

MODEL = ModelConfig(dim=32, num_layers=1, num_heads=2, num_kv_heads=2, vocab_size=64)
SHARD = Shard(np.random.default_rng(0).integers(0, 64, 1000).astype(np.uint16), context=16)


def test_it_repeats_and_does_not_depend_on_the_batch() -> None:
    model = seeded(MODEL, 0)
    first = heldout_loss(model, SHARD, 20, 8)
    assert first == heldout_loss(model, SHARD, 20, 8) == evaluate(model, Heldout(SHARD, 20, 8))
    assert first == pytest.approx(heldout_loss(model, SHARD, 20, 7), abs=1e-5)
    assert first == pytest.approx(math.log(64), abs=0.1)


def test_more_samples_than_there_are_means_all() -> None:
    model = seeded(MODEL, 0)
    assert heldout_loss(model, SHARD, 10**6, 8) == heldout_loss(model, SHARD, SHARD.num_samples, 8)


def test_it_leaves_no_gradient() -> None:
    model = seeded(MODEL, 0)
    heldout_loss(model, SHARD, 4, 4)
    assert all(p.grad is None for p in model.parameters()) and torch.is_grad_enabled()


def test_bits_per_byte_weigh_a_loss_by_the_bytes_that_its_tokens_stand_for() -> None:
    assert bits_per_byte(math.log(2), Heldout(SHARD, 20), lambda ids: 2 * len(ids)) == pytest.approx(0.5)
    by_bytes = bits_per_byte(math.log(2), Heldout(SHARD, SHARD.num_samples), lambda ids: sum(2 if id < 32 else 0 for id in ids))
    assert by_bytes == pytest.approx(1.0, rel=0.1)
