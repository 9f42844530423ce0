"""Held-out loss: the one number by which runs are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from decentra.data.shards import Shard
from decentra.train.step import summed_loss


@dataclass(frozen=True, slots=True)
class Heldout:
    """What to evaluate on: `num_samples` samples spread evenly over a shard that is never trained on."""

    shard: Shard
    num_samples: int
    batch_samples: int = 8


@torch.no_grad()
def heldout_loss(model: nn.Module, shard: Shard, num_samples: int, batch_samples: int) -> float:
    """Mean cross entropy in nats a token over evenly spread samples: always the same ones, in the same order."""
    device = next(model.parameters()).device
    count = min(num_samples, shard.num_samples)
    indices = [index * shard.num_samples // count for index in range(count)]
    total = 0.0
    for start in range(0, count, batch_samples):
        inputs, targets = shard.batch(indices[start : start + batch_samples])
        total += summed_loss(model(inputs.to(device)), targets.to(device)).item()
    return total / (count * shard.context)


def evaluate(model: nn.Module, heldout: Heldout) -> float:
    """`heldout_loss` of a Heldout."""
    return heldout_loss(model, heldout.shard, heldout.num_samples, heldout.batch_samples)
