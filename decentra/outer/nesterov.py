"""SGD with Nesterov momentum as torch.optim.SGD defines it: m = mu m + g; anchor -= lr (g + mu m)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Nesterov:
    """lr and momentum are rounded to fp32 once, here, by torch's scalar rule."""

    lr: float
    momentum: float

    def apply(self, anchor: torch.Tensor, state: torch.Tensor, gradient: torch.Tensor) -> None:
        """See outer.base; state: the momentum buffer, zeros at the start."""
        state.mul_(self.momentum).add_(gradient)
        step = state * self.momentum
        step.add_(gradient).mul_(self.lr)
        anchor.sub_(step)
