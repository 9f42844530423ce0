"""The outer-optimizer seam: how an averaged pseudo-gradient moves the anchor. In S, agreed, bit-identical."""

from __future__ import annotations

from typing import Protocol

import torch


class OuterOptimizer(Protocol):
    """Implementations use only multiply, add and subtract, each its own kernel (design: bit-identity)."""

    def apply(self, anchor: torch.Tensor, state: torch.Tensor, gradient: torch.Tensor) -> None:
        """anchor, state, gradient: (n,) fp32, CPU, all written: anchor and state become the next, gradient is spent."""
        ...
