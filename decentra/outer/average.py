"""Weighted averages by the rule that keeps replicas bit-identical.

Coefficients are computed on the host in fp64 and rounded once to fp32; terms are multiplied and added one after
another in the agreed order, multiply and add each their own kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

Sender = TypeVar("Sender")


def coefficient_bits(weight: int, total: int) -> int:
    """fp32 bits of weight / total, integers of any size; one contributor gets exactly 1."""
    return int(struct.unpack("<I", struct.pack("<f", weight / total))[0])


def shares(weights: Mapping[Sender, int], steps: Mapping[Sender, int] | None = None) -> dict[Sender, int]:
    """By sender, the fp32 bits of what its contribution is multiplied by: w_i / W.

    steps: inner steps of each, where contributions are normalised, that is, scaled to the mean number of steps (as FedNova does,
    arXiv 2007.07481): (w_i / W) (mean_j s_j / s_i), one ratio of whole numbers. Raises ValueError where one took none.
    """
    total = sum(weights.values())
    if steps is None:
        return {sender: coefficient_bits(weight, total) for sender, weight in weights.items()}
    if min(steps.values(), default=1) < 1:
        raise ValueError("a contribution of no steps cannot be scaled to the mean number of steps")
    all_steps, count = sum(steps.values()), len(steps)
    return {sender: coefficient_bits(weight * all_steps, total * count * steps[sender]) for sender, weight in weights.items()}


def coefficient(bits: int) -> float:
    """The fp32 value of `bits`, as a float that torch rounds back to the same bits."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def add_term(total: torch.Tensor, term: torch.Tensor, bits: int, first: bool) -> None:
    """total, term: (n,) fp32. total = c * term for the first, total + c * term after; `term` is spent."""
    c = coefficient(bits)
    if c != 1.0:
        term.mul_(c)
    if first:
        total.copy_(term)
    else:
        total.add_(term)


def weighted_mean(terms: Sequence[torch.Tensor], weights: Sequence[int]) -> torch.Tensor:
    """terms: (n,) fp32 each, spent; weights: int64 tokens -> (n,) fp32."""
    out = torch.empty_like(terms[0])
    for index, (term, weight) in enumerate(zip(terms, weights, strict=True)):
        add_term(out, term, coefficient_bits(weight, sum(weights)), index == 0)
    return out
