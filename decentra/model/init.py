"""First weights: the same bits for the same seed, drawn from a generator of their own."""

from __future__ import annotations

import math

import torch

from decentra.config import ModelConfig
from decentra.model.llama import Llama

INIT_STD = 0.02
RESIDUAL_ENDINGS = ("o_proj.weight", "down_proj.weight")


def seeded(config: ModelConfig, seed: int) -> Llama:
    """A Llama on the CPU in fp32 with first weights of `seed`. Leaves the global generator untouched."""
    # On the meta device torch's own initialisers draw nothing from the global generator.
    with torch.device("meta"):
        model = Llama(config)
    model = model.to_empty(device="cpu")
    init_parameters(model, seed)
    return model


@torch.no_grad()
def init_parameters(model: Llama, seed: int) -> None:
    """Fill all parameters in place, in model order: normal 0.02, norms 1, projections into the residual
    stream scaled by 1 / sqrt(2 num_layers) (GPT-2). Not bit-portable between torch builds."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    residual_std = INIT_STD / math.sqrt(2 * model.config.num_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, residual_std if name.endswith(RESIDUAL_ENDINGS) else INIT_STD, generator=generator)
