"""The Llama: RMSNorm, rotary positions, SwiGLU, grouped-query attention (arXiv 2302.13971, 2305.13245).

Parameters carry Hugging Face names, unfused, in model order; that order is the canonical one of a run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from decentra.config import ModelConfig


class Llama(nn.Module):
    """A decoder-only Llama. Built on the meta device it costs no memory and draws no random number."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tied else nn.Linear(config.dim, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) int64. Returns logits (B, T, V) fp32; position t sees tokens 0 to t only."""
        hidden = self.model(tokens)
        head = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return functional.linear(hidden, head).float()


class Decoder(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head_dim = config.dim // config.num_heads
        self.rope_theta = config.rope_theta

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) int64. Returns hidden states (B, T, dim)."""
        hidden = self.embed_tokens(tokens)
        cos, sin = rotary_tables(tokens.shape[1], self.head_dim, self.rope_theta, hidden.device)
        for layer in self.layers:
            hidden = layer(hidden, cos.to(hidden.dtype), sin.to(hidden.dtype))
        normed: Tensor = self.norm(hidden)
        return normed


class Block(nn.Module):
    """One pre-norm layer: attention, then the feed-forward network, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = SwiGLU(config.dim, ffn_dim(config))
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """hidden: (B, T, dim); cos, sin: (T, head_dim). Returns (B, T, dim)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin)
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

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """hidden: (B, T, dim); cos, sin: (T, head_dim). Returns (B, T, dim)."""
        batch, length, _ = hidden.shape
        # (B, T, heads * head_dim) -> (B, heads, T, head_dim)
        query = self.q_proj(hidden).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, cos, sin), rotate(key, cos, sin), value, is_causal=True, enable_gqa=self.num_kv_heads != self.num_heads
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


def ffn_dim(config: ModelConfig) -> int:
    """Hidden size of the feed-forward network: as configured, or 8/3 dim rounded up to a multiple of 64."""
    return config.ffn_dim or -(-8 * config.dim // (3 * 64)) * 64


def rotary_tables(length: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (length, head_dim) fp32, halves repeated (arXiv 2104.09864)."""
    # Made anew in each forward: a buffer would be lost by to_empty after a build on the meta device.
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + head_dim / 2) by their angles. heads: (B, heads, T, head_dim); cos, sin: (T, head_dim)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def num_parameters(model: nn.Module) -> int:
    """Elements of all parameters, a tied one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
