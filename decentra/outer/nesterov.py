"""SGD with Nesterov momentum as torch.optim.SGD defines it: m = mu m + g; anchor -= lr (g + mu m)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Nesterov:
    """lr and momentum are rounded to fp32 once, here, by torch's scalar rule. momentum 0 is plain SGD."""

    lr: float
    momentum: float
    nesterov: bool = True

    def apply(self, anchor: torch.Tensor, state: torch.Tensor, gradient: torch.Tensor) -> None:
        """See outer.base; state: the momentum buffer, zeros at the start."""
        state.mul_(self.momentum).add_(gradient)
        if self.nesterov:
            step = state * self.momentum
            step.add_(gradient)
        else:
            step = state.clone()
        step.mul_(self.lr)
        anchor.sub_(step)
