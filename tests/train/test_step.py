"""One inner step: micro batches, clipping, decay, and parameters in and out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from decentra.config import InnerConfig, ModelConfig
from decentra.data.tokenizer import BOS
from decentra.model.init import seeded
from decentra.train.optimizer import adamw, inner_optimizers
from decentra.train.step import Replica, copy_in, copy_out, summed_loss

MODEL = ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, vocab_size=64)
INNER = InnerConfig(lr=1e-3, batch_samples=6, eps=1e-4)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 64, (6, 17), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 6, 100])
def test_micro_batches_equal_the_full_batch(micro_batch: int) -> None:
    whole, parts = Replica(seeded(MODEL, 0), INNER), Replica(seeded(MODEL, 0), INNER, micro_batch)
    for seed in range(3):
        assert whole.inner_step(*batch(seed), lr=1e-3) == pytest.approx(parts.inner_step(*batch(seed), lr=1e-3), abs=1e-6)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def test_steps_on_one_batch_lower_its_loss() -> None:
    replica = Replica(seeded(MODEL, 0), InnerConfig(batch_samples=6))
    losses = [replica.inner_step(*batch(), lr=3e-3) for _ in range(30)]
    assert losses[0] == pytest.approx(4.16, abs=0.1) and losses[-1] < losses[0] - 1


def test_gradients_are_clipped_to_their_norm() -> None:
    replica = Replica(seeded(MODEL, 0), dataclasses.replace(INNER, clip=1e-3))
    replica.inner_step(*batch(), lr=1e-3)
    norms = torch.stack([p.grad.norm() for p in replica.model.parameters() if p.grad is not None])
    assert float(norms.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_decay_is_on_matrices_only() -> None:
    model = seeded(MODEL, 0)
    decayed, free = adamw(model.parameters(), InnerConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decayed["params"]) and all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("tied", [True, False])
def test_muon_steps_hidden_matrices_and_adamw_all_else(tied: bool) -> None:
    model = seeded(dataclasses.replace(MODEL, tied=tied), 0)
    muon, rest = inner_optimizers(model, InnerConfig(optimizer="muon"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    others = {names[id(p)] for group in rest.param_groups for p in group["params"]}
    assert isinstance(muon, torch.optim.Muon) and hidden == {name for name in names.values() if "proj" in name}
    assert hidden | others == set(names.values()) and not hidden & others


def test_muon_lowers_the_loss_of_a_batch_and_repeats_itself() -> None:
    losses = []
    for _ in range(2):
        replica = Replica(seeded(MODEL, 0), InnerConfig(optimizer="muon", batch_samples=6))
        losses.append([replica.inner_step(*batch(), lr=3e-3) for _ in range(30)])
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0] - 1


def test_with_masked_documents_a_step_is_that_of_the_documents_apart() -> None:
    config = dataclasses.replace(INNER, mask_documents=True, batch_samples=1)
    tokens = torch.randint(3, 64, (1, 17), generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = tokens[0, 7] = BOS
    together = Replica(seeded(MODEL, 0), config)
    apart, plain = seeded(MODEL, 0), Replica(seeded(MODEL, 0), dataclasses.replace(config, mask_documents=False))
    pieces = [(tokens[:, :7], tokens[:, 1:8]), (tokens[:, 7:16], tokens[:, 8:])]
    total = torch.stack([summed_loss(apart(inputs), targets) for inputs, targets in pieces]).sum() / 16
    loss = together.inner_step(tokens[:, :-1], tokens[:, 1:], 1e-3)
    assert loss == pytest.approx(total.item(), abs=1e-5) and loss != plain.inner_step(tokens[:, :-1], tokens[:, 1:], 1e-3)


def test_parameters_go_out_and_in_by_name() -> None:
    source, target = seeded(MODEL, 1), seeded(MODEL, 2)
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
    model = seeded(MODEL, 1)
    with pytest.raises(KeyError):
        copy_in(model, {})
    with pytest.raises(AssertionError, match="norm"):
        copy_out(model, {name: torch.zeros(p.shape if p.ndim > 1 else (1,)) for name, p in model.named_parameters()})
