"""The inner optimizers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from decentra.config import InnerConfig

NOT_HIDDEN = ("embed_tokens", "lm_head")
"""Matrices that Muon is not for: one row of them is a token, not a direction."""


def inner_optimizers(model: nn.Module, config: InnerConfig) -> list[torch.optim.Optimizer]:
    """What steps a model, all at one rate: AdamW; or Muon (Keller Jordan 2024; at AdamW's scale, arXiv 2502.16982) for hidden
    matrices, AdamW for the rest.
    """
    named = list(model.named_parameters())
    if config.optimizer == "adamw":
        return [adamw([parameter for _, parameter in named], config)]
    hidden = {name for name, parameter in named if parameter.ndim == 2 and not any(part in name for part in NOT_HIDDEN)}
    muon = torch.optim.Muon(
        [parameter for name, parameter in named if name in hidden],
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw([parameter for name, parameter in named if name not in hidden], config)]


def adamw(parameters: Iterable[nn.Parameter], config: InnerConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); weight decay on matrices only. Its rate is set at each step."""
    parameters = list(parameters)
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
