"""The pseudo-gradient. Its sign is stated here and nowhere else: anchor - local (DiLoCo, arXiv 2311.08105, alg. 1)."""

from __future__ import annotations

import torch


def pseudo_gradient(anchor: torch.Tensor, local: torch.Tensor, out: torch.Tensor) -> None:
    """anchor, local, out: (n,) fp32, CPU; out = anchor - local, one kernel."""
    torch.sub(anchor, local, out=out)
