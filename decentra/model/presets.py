"""Named model sizes."""

from __future__ import annotations

from decentra.config import ModelConfig
from decentra.errors import ConfigError

PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(dim=64, num_layers=2, num_heads=2, num_kv_heads=2, tied=True),
    "demo": ModelConfig(dim=256, num_layers=2, num_heads=4, num_kv_heads=4, tied=False),
    "small": ModelConfig(dim=384, num_layers=8, num_heads=6, num_kv_heads=2, tied=True),
}
"""tiny: simulations and tests. demo: a swarm of processes on one laptop. small: one GPU a node."""


def preset(name: str) -> ModelConfig:
    """The model of that name. Raises ConfigError naming the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"model preset {name!r} is not known; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
