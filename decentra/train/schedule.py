"""The inner learning rate as a pure function of tokens, never of a local step count.

Peers that stand at the same phase of a sync thus use the same rate, however many steps each has taken.
"""

from __future__ import annotations

import math

from decentra.config import InnerConfig


def learning_rate(tokens: float, config: InnerConfig) -> float:
    """The rate after `tokens`: linear warm-up, then `config.schedule`, at `min_lr_share` of the peak for good once it has fallen.

    A decay_tokens of 0 never falls. A wsd run is extended by a later decay_start_tokens while it is stable, and decayed from
    any checkpoint by one that is the tokens of now: nothing but these numbers is remembered.
    """
    if tokens < config.warmup_tokens:
        return config.lr * tokens / config.warmup_tokens
    if config.decay_tokens <= 0:
        return config.lr
    start = config.decay_start_tokens if config.schedule == "wsd" else config.warmup_tokens
    progress = min(1.0, max(0.0, (tokens - start) / config.decay_tokens))
    return config.lr * (config.min_lr_share + (1.0 - config.min_lr_share) * _FALLS[config.schedule](progress))


def _cosine(progress: float) -> float:
    """Half a cosine (SGDR, arXiv 1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _one_less_root(progress: float) -> float:
    """1 - sqrt(progress), which ends at a lower loss than a linear fall of the same length (arXiv 2405.18392); the stable part
    before it is that of MiniCPM (arXiv 2404.06395)."""
    return 1.0 - math.sqrt(progress)


_FALLS = {"cosine": _cosine, "wsd": _one_less_root}


def slot_tokens(tokens_committed: int, tokens_last_sync: int, done: float, whole: float) -> float:
    """T + f Q: tokens that the swarm is taken to have trained when a replica has done so much of its slot.

    T: tokens committed; Q: tokens of the last counted sync; f = done / whole, at most 1; both are steps, or both seconds.
    """
    # Multiplied first: with whole tokens a step the result is exact, so a slot retraces plain training.
    return tokens_committed + tokens_last_sync * min(done, whole) / whole
