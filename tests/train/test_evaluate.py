"""Held-out loss is one number, whatever the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from decentra.config import ModelConfig
from decentra.data.shards import Shard
from decentra.model.init import seeded
from decentra.train.evaluate import Heldout, evaluate, heldout_loss

MODEL = ModelConfig(dim=32, num_layers=1, num_heads=2, num_kv_heads=2)
SHARD = Shard(np.random.default_rng(0).integers(0, 64, 1000).astype(np.uint16), context=16)


def test_it_repeats_and_does_not_depend_on_the_batch() -> None:
    model = seeded(MODEL, 64, 0)
    first = heldout_loss(model, SHARD, 20, 8)
    assert first == heldout_loss(model, SHARD, 20, 8) == evaluate(model, Heldout(SHARD, 20, 8))
    assert first == pytest.approx(heldout_loss(model, SHARD, 20, 7), abs=1e-5)
    assert first == pytest.approx(math.log(64), abs=0.1)


def test_more_samples_than_there_are_means_all() -> None:
    model = seeded(MODEL, 64, 0)
    assert heldout_loss(model, SHARD, 10**6, 8) == heldout_loss(model, SHARD, SHARD.num_samples, 8)


def test_it_leaves_no_gradient() -> None:
    model = seeded(MODEL, 64, 0)
    heldout_loss(model, SHARD, 4, 4)
    assert all(p.grad is None for p in model.parameters()) and torch.is_grad_enabled()
