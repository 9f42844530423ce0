"""Named model sizes."""

from __future__ import annotations

import dataclasses

from decentra.config import ModelConfig
from decentra.errors import ConfigError


def _llama(
    dim: int, layers: int, heads: int, kv_heads: int, ffn_dim: int, vocab: int, context: int, theta: float = 1e4, eps: float = 1e-5
) -> ModelConfig:
    return ModelConfig(
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        ffn_dim=ffn_dim,
        vocab_size=vocab,
        max_context=context,
        rope_theta=theta,
        norm_eps=eps,
    )


def _stretched(config: ModelConfig, factor: float, tied: bool = False) -> ModelConfig:
    """Llama 3.1 and 3.2: 8,192 positions stretched to 131,072."""
    return dataclasses.replace(config, max_context=131_072, rope_scaling="llama3", rope_factor=factor, tied=tied)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(dim=64, num_layers=2, num_heads=2, num_kv_heads=2, tied=True),
    "demo": ModelConfig(dim=256, num_layers=2, num_heads=4, num_kv_heads=4, tied=False),
    "small": ModelConfig(dim=384, num_layers=8, num_heads=6, num_kv_heads=2, tied=True),
    "llama1-7b": _llama(4096, 32, 32, 32, 11008, 32000, 2048, eps=1e-6),
    "llama1-13b": _llama(5120, 40, 40, 40, 13824, 32000, 2048, eps=1e-6),
    "llama1-33b": _llama(6656, 60, 52, 52, 17920, 32000, 2048, eps=1e-6),
    "llama1-65b": _llama(8192, 80, 64, 64, 22016, 32000, 2048, eps=1e-6),
    "llama2-7b": _llama(4096, 32, 32, 32, 11008, 32000, 4096),
    "llama2-13b": _llama(5120, 40, 40, 40, 13824, 32000, 4096),
    "llama2-70b": _llama(8192, 80, 64, 8, 28672, 32000, 4096),
    "llama3-8b": _llama(4096, 32, 32, 8, 14336, 128256, 8192, 5e5),
    "llama3-70b": _llama(8192, 80, 64, 8, 28672, 128256, 8192, 5e5),
    "llama3.1-8b": _stretched(_llama(4096, 32, 32, 8, 14336, 128256, 8192, 5e5), 8.0),
    "llama3.1-70b": _stretched(_llama(8192, 80, 64, 8, 28672, 128256, 8192, 5e5), 8.0),
    "llama3.1-405b": _stretched(_llama(16384, 126, 128, 8, 53248, 128256, 8192, 5e5), 8.0),
    "llama3.2-1b": _stretched(_llama(2048, 16, 32, 8, 8192, 128256, 8192, 5e5), 32.0, tied=True),
    "llama3.2-3b": _stretched(_llama(3072, 28, 24, 8, 8192, 128256, 8192, 5e5), 32.0, tied=True),
}
"""tiny: simulations and tests. demo: a swarm of processes on one laptop. small: one GPU a node. llama...: the published shapes
(arXiv 2302.13971, 2307.09288, 2407.21783), which bring their vocabulary along."""


def preset(name: str) -> ModelConfig:
    """The model of that name. Raises ConfigError naming the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"model preset {name!r} is not known; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
