"""The inner learning rate as a pure function of tokens, never of a local step count.

Peers that stand at the same phase of a sync thus use the same rate, however many steps each has taken.
"""

from __future__ import annotations

import math

from decentra.config import InnerConfig


def learning_rate(tokens: float, config: InnerConfig) -> float:
    """The rate after `tokens`: linear warm-up, then constant, or a cosine fall over `decay_tokens` to
    `min_lr_share` of the peak where `decay_tokens` is above 0 (arXiv 1608.03983)."""
    if tokens < config.warmup_tokens:
        return config.lr * tokens / config.warmup_tokens
    if config.decay_tokens <= 0:
        return config.lr
    progress = min(1.0, (tokens - config.warmup_tokens) / config.decay_tokens)
    share = config.min_lr_share + (1.0 - config.min_lr_share) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * share


def slot_tokens(tokens_committed: int, tokens_last_sync: int, done: float, whole: float) -> float:
    """T + f Q: tokens that the swarm is taken to have trained when a replica has done so much of its slot.

    T: tokens committed; Q: tokens of the last counted sync; f = done / whole, at most 1; both are steps, or both seconds.
    """
    # Multiplied first: with whole tokens a step the result is exact, so a slot retraces plain training.
    return tokens_committed + tokens_last_sync * min(done, whole) / whole
