"""The Llama: RMSNorm, rotary positions, SwiGLU, grouped-query attention (arXiv 2302.13971, 2305.13245).

Parameters carry Hugging Face names, unfused, in model order; that order is the canonical one of a run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from decentra.config import ModelConfig


class Llama(nn.Module):
    """A decoder-only Llama. Built on the meta device it costs no memory and draws no random number."""

    def __init__(self, config: ModelConfig) -> None:
        """config: with a vocab_size, which 0 is not."""
        super().__init__()
        assert config.vocab_size > 0, "a model needs the vocab_size of its tokenizer; RunConfig.llama has it"
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """tokens: (B, T) int64. Returns logits (B, T, V) fp32; position t sees tokens 0 to t only.

        documents: (B, T) integers; a position then sees only those with its own number. cache: what came before these tokens,
        which are added to it.
        """
        hidden = self.model(tokens, documents, cache)
        head = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return functional.linear(hidden, head).float()


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """See Llama. Returns hidden states (B, T, dim)."""
        hidden = self.embed_tokens(tokens)
        start = 0 if cache is None else cache.length
        mask = attention_mask(tokens.shape[1], start, documents, hidden.device)
        cos, sin = (table.to(hidden.dtype) for table in rotary_tables(self.config, start, tokens.shape[1], hidden.device))
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, cos, sin, mask, None if cache is None else cache.layers[index])
        if cache is not None:
            cache.length += tokens.shape[1]
        normed: Tensor = self.norm(hidden)
        return normed


class LayerCache:
    """Keys and values of one layer: (B, kv heads, positions, head_dim) each; None before the first."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, these at the end."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat((self.keys, keys), dim=2), torch.cat((self.values, values), dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Cache:
    """Keys and values of all positions so far, for sampling token by token. length: those positions."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.length = 0


class Block(nn.Module):
    """One pre-norm layer: attention, then the feed-forward network, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = SwiGLU(config.dim, config.hidden_dim)
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None) -> Tensor:
        """hidden: (B, T, dim); cos, sin: (T, head_dim); mask: as `attention_mask` gives it. Returns (B, T, dim)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, mask, cache)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class Attention(nn.Module):
    """Causal attention; `num_kv_heads` below `num_heads` shares keys and values among groups of heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.dim // config.num_heads
        self.q_proj = nn.Linear(config.dim, self.num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, self.num_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, self.num_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.dim, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None) -> Tensor:
        """hidden: (B, T, dim); cos, sin: (T, head_dim); mask: as `attention_mask` gives it. Returns (B, T, dim)."""
        batch, length, _ = hidden.shape
        # (B, T, heads * head_dim) -> (B, heads, T, head_dim)
        query = self.q_proj(hidden).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if cache is not None:
            key, value = cache.extended(key, value)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None and length > 1, enable_gqa=self.num_kv_heads != self.num_heads
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, self.num_heads * self.head_dim))
        return out


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (B, T, dim). Returns (B, T, dim)."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return out


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., dim). Returns the same shape and dtype."""
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


def attention_mask(length: int, start: int, documents: Tensor | None, device: torch.device) -> Tensor | None:
    """What each of `length` positions from `start` on sees: (B or 1, 1, length, start + length) bool; None for the plain causal triangle,
    and for a single position, which sees all. documents: as in Llama; not with a cache.
    """
    if documents is None and (start == 0 or length == 1):
        return None
    causal = torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)[None, None]
    if documents is None:
        return causal
    assert start == 0, "documents are of whole rows"
    return causal & (documents[:, None, :, None] == documents[:, None, None, :])


def documents_of(tokens: Tensor, bos: int) -> Tensor:
    """Numbers of the documents in rows of tokens, (B, T) int64: each bos opens one; what a row begins with may be the rest of one."""
    return (tokens == bos).cumsum(dim=1)


def rotary_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians a position of each pair, (head_dim / 2,) fp32 (arXiv 2104.09864), scaled as the config says (Llama 3.1:
    arXiv 2407.21783, section 3.2, as its reference code has it).
    """
    head_dim = config.dim // config.num_heads
    plain = 1.0 / (config.rope_theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim))
    if config.rope_scaling == "linear":
        return plain / config.rope_factor
    if config.rope_scaling != "llama3":
        return plain
    turns = config.rope_original_context * plain / (2 * math.pi)
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    share = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 - share) * plain / config.rope_factor + share * plain


def rotary_tables(config: ModelConfig, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles of positions from `start` on, each (length, head_dim) fp32, halves repeated."""
    # Made anew in each forward: a buffer would be lost by to_empty after a build on the meta device.
    positions = torch.arange(start, start + length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, rotary_frequencies(config, device)).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + head_dim / 2) by their angles. heads: (B, heads, T, head_dim); cos, sin: (T, head_dim)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def num_parameters(model: nn.Module) -> int:
    """Elements of all parameters, a tied one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
