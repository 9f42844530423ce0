"""Floating point operations of training, by the conventions that published figures use. A utilization means nothing without its own."""

from __future__ import annotations

from enum import StrEnum

from decentra.config import ModelConfig


class Convention(StrEnum):
    """How FLOP a token are counted, forward and backward.

    PARAMETERS: 6 N, nothing for attention (arXiv 2001.08361). LINGUA: without the embedding lookup; causal attention, recomputed once in
    the backward pass, 7 L S d. TORCHTITAN: without the lookup; attention in full, 12 L S d; nanochat and OLMo-core count alike.
    PICOTRON: attention in full, the lookup counted as a product.
    """

    PARAMETERS = "parameters"
    LINGUA = "lingua"
    TORCHTITAN = "torchtitan"
    PICOTRON = "picotron"


ATTENTION = {Convention.PARAMETERS: 0, Convention.LINGUA: 7, Convention.TORCHTITAN: 12, Convention.PICOTRON: 12}
LOOKS_UP = (Convention.LINGUA, Convention.TORCHTITAN)
"""Those that do not count the embedding, of which a token takes one row. A tied one is a product all the same, as the head."""


def num_parameters(config: ModelConfig) -> int:
    """Elements of a Llama's parameters, a tied one counted once, without building it; the config has a vocab_size."""
    kv_dim = config.dim // config.num_heads * config.num_kv_heads
    layer = 2 * config.dim**2 + 2 * config.dim * kv_dim + 3 * config.dim * config.hidden_dim + 2 * config.dim
    return config.num_layers * layer + config.dim + config.vocab_size * config.dim * (1 if config.tied else 2)


def flop_per_token(config: ModelConfig, context: int, convention: Convention = Convention.TORCHTITAN) -> int:
    """FLOP of a training step by token, samples being of `context` tokens."""
    counted = num_parameters(config)
    if convention in LOOKS_UP and not config.tied:
        counted -= config.vocab_size * config.dim
    return 6 * counted + ATTENTION[convention] * config.num_layers * context * config.dim


def utilization(tokens_per_s: float, flop_a_token: int, peak_flop_per_s: float) -> float:
    """MFU (arXiv 2204.02311, appendix B): the share of a machine's peak that training makes use of, by one convention."""
    return tokens_per_s * flop_a_token / peak_flop_per_s
