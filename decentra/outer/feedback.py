"""Error feedback: what encoding lost is kept and added to the next contribution (EF-SGD, arXiv 1901.09847, alg. 1)."""

from __future__ import annotations

import torch


def compensate(delta: torch.Tensor, residual: torch.Tensor, decay: float) -> None:
    """delta: (n,) fp32, becomes delta + decay * residual. residual: (n,) fp32, what the last contribution lost."""
    delta.add_(residual if decay == 1.0 else residual * decay)


def remainder(compensated: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """compensated: (n,) fp32 as it was encoded; decoded: (n,) fp32 as everybody reads it -> (n,) fp32, the residual."""
    return compensated - decoded
