"""How large a swarm of an experiment is, and how long it trains."""

from __future__ import annotations

import dataclasses

from decentra.config import DataConfig, InnerConfig, ModelConfig, RunConfig

FULL = RunConfig(
    stop_syncs=40,
    eval_samples=256,
    model=ModelConfig(dim=192, num_layers=3, num_heads=6, num_kv_heads=6),
    data=DataConfig(context=64),
    inner=InnerConfig(lr=3e-3, warmup_tokens=50_000, batch_samples=4),
)
"""A Llama of 2.1 million parameters, 4 x 64 tokens a step."""

TINY = RunConfig(
    start_members=3,
    stop_syncs=2,
    eval_samples=4,
    model=ModelConfig(dim=32, num_layers=1, num_heads=2, num_kv_heads=2, tied=True),
    data=DataConfig(vocab_size=512, context=32, max_text_bytes=400_000),
    inner=InnerConfig(lr=3e-3, warmup_tokens=1000, batch_samples=2),
)
"""Seconds: to see that it works."""


def lasting(size: RunConfig, rounds: int) -> RunConfig:
    """A size of so many rounds, over which the inner rate falls as a cosine."""
    inner = dataclasses.replace(size.inner, decay_tokens=max(0, rounds * size.planned_tokens - size.inner.warmup_tokens))
    return dataclasses.replace(size, stop_syncs=rounds, inner=inner)
