"""Held-out loss: the one number by which runs are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from decentra.data.shards import Shard
from decentra.data.tokenizer import BOS
from decentra.model.llama import documents_of
from decentra.train.step import summed_loss


@dataclass(frozen=True, slots=True)
class Heldout:
    """What to evaluate on: `num_samples` samples spread evenly over a shard that is never trained on.

    mask_documents: as the run trains.
    """

    shard: Shard
    num_samples: int
    batch_samples: int = 8
    mask_documents: bool = False


@torch.no_grad()
def heldout_loss(model: nn.Module, shard: Shard, num_samples: int, batch_samples: int, mask_documents: bool = False) -> float:
    """Mean cross entropy in nats a token over evenly spread samples: always the same ones, in the same order."""
    device = next(model.parameters()).device
    indices = spread(shard, num_samples)
    total = 0.0
    for start in range(0, len(indices), batch_samples):
        inputs, targets = shard.batch(indices[start : start + batch_samples])
        tokens = inputs.to(device)
        logits = model(tokens, documents_of(tokens, BOS) if mask_documents else None)
        total += summed_loss(logits, targets.to(device)).item()
    return total / (len(indices) * shard.context)


def spread(shard: Shard, num_samples: int) -> list[int]:
    """Samples at even distances over a shard."""
    count = min(num_samples, shard.num_samples)
    return [index * shard.num_samples // count for index in range(count)]


def bits_per_byte(loss: float, heldout: Heldout, num_bytes: Callable[[list[int]], int]) -> float:
    """A held-out loss in nats a token as bits a byte of the text, by which models of different tokenizers are compared.

    num_bytes: of the text of some ids.
    """
    indices = spread(heldout.shard, heldout.num_samples)
    total = sum(num_bytes(heldout.shard.batch([index])[1].flatten().tolist()) for index in indices)
    return loss * len(indices) * heldout.shard.context / (math.log(2) * total)


def evaluate(model: nn.Module, heldout: Heldout) -> float:
    """`heldout_loss` of a Heldout."""
    return heldout_loss(model, heldout.shard, heldout.num_samples, heldout.batch_samples, heldout.mask_documents)
