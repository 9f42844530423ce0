"""The Llama: names, causality, shapes, first weights, sampling."""

from __future__ import annotations

import pytest
import torch

from decentra.config import ModelConfig
from decentra.errors import ConfigError
from decentra.model.generate import generate
from decentra.model.init import seeded
from decentra.model.llama import Llama, ffn_dim, num_parameters
from decentra.model.presets import PRESETS, preset

SMALL = ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48)
LAYER_NAMES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip


def expected_names(num_layers: int, tied: bool) -> list[str]:
    layers = [f"model.layers.{layer}.{name}.weight" for layer in range(num_layers) for name in LAYER_NAMES]
    return ["model.embed_tokens.weight", *layers, "model.norm.weight", *([] if tied else ["lm_head.weight"])]


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_have_hugging_face_names_in_model_order(tied: bool) -> None:
    model = seeded(ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, tied=tied), 64, 0)
    assert [name for name, _ in model.named_parameters()] == expected_names(2, tied)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_logits_are_fp32_and_finite_with_shared_heads(num_kv_heads: int, tied: bool) -> None:
    model = seeded(ModelConfig(dim=32, num_layers=1, num_heads=4, num_kv_heads=num_kv_heads, tied=tied), 64, 0)
    logits = model(torch.arange(10).view(2, 5))
    assert logits.shape == (2, 5, 64) and logits.dtype == torch.float32 and bool(logits.isfinite().all())


def test_future_tokens_do_not_change_past_logits() -> None:
    model = seeded(SMALL, 64, 1)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :9], after[:, :9], atol=1e-6)
    assert not torch.allclose(before[:, 9:], after[:, 9:], atol=1e-3)


def test_order_of_past_tokens_matters() -> None:
    model = seeded(SMALL, 64, 1)
    forward, swapped = model(torch.tensor([[3, 5, 7, 9]])), model(torch.tensor([[5, 3, 7, 9]]))
    assert not torch.allclose(forward[0, -1], swapped[0, -1], atol=1e-6)


def test_meta_device_holds_the_same_shapes() -> None:
    with torch.device("meta"):
        meta = Llama(SMALL, 64)
    real = seeded(SMALL, 64, 0)
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert meta(torch.zeros(2, 3, dtype=torch.int64, device="meta")).shape == (2, 3, 64)
    assert not list(real.buffers())


def test_one_seed_gives_one_start_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = seeded(SMALL, 64, 7), seeded(SMALL, 64, 7), seeded(SMALL, 64, 8)
    assert torch.equal(before, torch.random.get_rng_state())
    for (_, a), (_, b) in zip(first.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_residual_projections_start_smaller() -> None:
    config = ModelConfig(dim=128, num_layers=8, num_heads=4, num_kv_heads=4)
    block = seeded(config, 64, 0).model.layers[0]
    assert float(block.self_attn.q_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.mlp.down_proj.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)


def test_feed_forward_size_is_rounded_up() -> None:
    assert ffn_dim(ModelConfig(dim=192)) == 512
    assert ffn_dim(ModelConfig(dim=64)) == 192
    assert ffn_dim(SMALL) == 48


def test_presets_are_of_their_sizes() -> None:
    sizes = {}
    for name in PRESETS:
        with torch.device("meta"):
            sizes[name] = num_parameters(Llama(preset(name), 2048))
    assert sizes["tiny"] < 400_000 and 1_000_000 < sizes["demo"] < 5_000_000 < sizes["small"]
    with pytest.raises(ConfigError, match="huge"):
        preset("huge")


def test_greedy_repeats_itself_and_sampling_follows_its_seed() -> None:
    model = seeded(SMALL, 64, 3)
    before = torch.random.get_rng_state()
    assert generate(model, [1, 2], 6, 0.0, seed=0) == generate(model, [1, 2], 6, 0.0, seed=9)
    first = generate(model, [1, 2], 12, 1.0, seed=0, context=4)
    assert len(first) == 12 and all(0 <= token < 64 for token in first)
    assert first == generate(model, [1, 2], 12, 1.0, seed=0, context=4)
    assert first != generate(model, [1, 2], 12, 1.0, seed=1, context=4)
    assert torch.equal(before, torch.random.get_rng_state())
