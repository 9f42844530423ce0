"""SGD without momentum: anchor -= lr g. With lr 1 the anchor becomes the average of the replicas (FedAvg, arXiv 1602.05629)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sgd:
    """lr is rounded to fp32 once, by torch's scalar rule."""

    lr: float

    def apply(self, anchor: torch.Tensor, state: torch.Tensor, gradient: torch.Tensor) -> None:
        """See outer.base; state stays what it is."""
        anchor.sub_(gradient if self.lr == 1.0 else gradient.mul_(self.lr))
