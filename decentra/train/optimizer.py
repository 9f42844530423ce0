"""The inner optimizer."""

from __future__ import annotations

import torch
from torch import nn

from decentra.config import InnerConfig


def adamw(model: nn.Module, config: InnerConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over all parameters; weight decay on matrices only. Its rate is set at each step."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
