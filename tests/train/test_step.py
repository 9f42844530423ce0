"""One inner step: micro batches, clipping, decay, and parameters in and out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from decentra.config import InnerConfig, ModelConfig
from decentra.model.init import seeded
from decentra.train.optimizer import adamw
from decentra.train.step import Replica, copy_in, copy_out

MODEL = ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2)
INNER = InnerConfig(lr=1e-3, batch_samples=6, eps=1e-4)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 64, (6, 17), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 6, 100])
def test_micro_batches_equal_the_full_batch(micro_batch: int) -> None:
    whole, parts = Replica(seeded(MODEL, 64, 0), INNER), Replica(seeded(MODEL, 64, 0), INNER, micro_batch)
    for seed in range(3):
        assert whole.inner_step(*batch(seed), lr=1e-3) == pytest.approx(parts.inner_step(*batch(seed), lr=1e-3), abs=1e-6)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def test_steps_on_one_batch_lower_its_loss() -> None:
    replica = Replica(seeded(MODEL, 64, 0), InnerConfig(batch_samples=6))
    losses = [replica.inner_step(*batch(), lr=3e-3) for _ in range(30)]
    assert losses[0] == pytest.approx(4.16, abs=0.1) and losses[-1] < losses[0] - 1


def test_gradients_are_clipped_to_their_norm() -> None:
    replica = Replica(seeded(MODEL, 64, 0), dataclasses.replace(INNER, clip=1e-3))
    replica.inner_step(*batch(), lr=1e-3)
    norms = torch.stack([p.grad.norm() for p in replica.model.parameters() if p.grad is not None])
    assert float(norms.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_decay_is_on_matrices_only() -> None:
    model = seeded(MODEL, 64, 0)
    decayed, free = adamw(model, InnerConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decayed["params"]) and all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_parameters_go_out_and_in_by_name() -> None:
    source, target = seeded(MODEL, 64, 1), seeded(MODEL, 64, 2)
    flat = torch.zeros(100_000)
    views, offset = {}, 0
    for name, parameter in source.named_parameters():
        views[name] = flat[offset : offset + parameter.numel()].view(parameter.shape)
        offset += parameter.numel()
    copy_out(source, views)
    assert float(flat.abs().sum()) > 0
    copy_in(target, views)
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
    assert not any(view.requires_grad for view in views.values())


def test_missing_or_misshapen_views_are_an_error() -> None:
    model = seeded(MODEL, 64, 1)
    with pytest.raises(KeyError):
        copy_in(model, {})
    with pytest.raises(AssertionError, match="norm"):
        copy_out(model, {name: torch.zeros(p.shape if p.ndim > 1 else (1,)) for name, p in model.named_parameters()})
