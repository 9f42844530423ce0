"""The Llama: names, causality, shapes, first weights, sampling."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from decentra.config import DataConfig, ModelConfig, RunConfig, check_run
from decentra.errors import ConfigError
from decentra.model.generate import generate
from decentra.model.init import seeded
from decentra.model.llama import Cache, Llama, documents_of, num_parameters, rotary_frequencies, rotary_tables
from decentra.model.presets import PRESETS, preset

SMALL = ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48, vocab_size=64)
LAYER_NAMES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip


def expected_names(num_layers: int, tied: bool) -> list[str]:
    layers = [f"model.layers.{layer}.{name}.weight" for layer in range(num_layers) for name in LAYER_NAMES]
    return ["model.embed_tokens.weight", *layers, "model.norm.weight", *([] if tied else ["lm_head.weight"])]


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_have_hugging_face_names_in_model_order(tied: bool) -> None:
    model = seeded(ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, tied=tied, vocab_size=64), 0)
    assert [name for name, _ in model.named_parameters()] == expected_names(2, tied)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_logits_are_fp32_and_finite_with_shared_heads(num_kv_heads: int, tied: bool) -> None:
    model = seeded(ModelConfig(dim=32, num_layers=1, num_heads=4, num_kv_heads=num_kv_heads, tied=tied, vocab_size=64), 0)
    logits = model(torch.arange(10).view(2, 5))
    assert logits.shape == (2, 5, 64) and logits.dtype == torch.float32 and bool(logits.isfinite().all())


def test_future_tokens_do_not_change_past_logits() -> None:
    model = seeded(SMALL, 1)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :9], after[:, :9], atol=1e-6)
    assert not torch.allclose(before[:, 9:], after[:, 9:], atol=1e-3)


def test_order_of_past_tokens_matters() -> None:
    model = seeded(SMALL, 1)
    forward, swapped = model(torch.tensor([[3, 5, 7, 9]])), model(torch.tensor([[5, 3, 7, 9]]))
    assert not torch.allclose(forward[0, -1], swapped[0, -1], atol=1e-6)


def test_meta_device_holds_the_same_shapes() -> None:
    with torch.device("meta"):
        meta = Llama(SMALL)
    real = seeded(SMALL, 0)
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert meta(torch.zeros(2, 3, dtype=torch.int64, device="meta")).shape == (2, 3, 64)
    assert not list(real.buffers())


def test_one_seed_gives_one_start_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = seeded(SMALL, 7), seeded(SMALL, 7), seeded(SMALL, 8)
    assert torch.equal(before, torch.random.get_rng_state())
    for (_, a), (_, b) in zip(first.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_residual_projections_start_smaller() -> None:
    config = ModelConfig(dim=128, num_layers=8, num_heads=4, num_kv_heads=4, vocab_size=64)
    block = seeded(config, 0).model.layers[0]
    assert float(block.self_attn.q_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.mlp.down_proj.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)


def test_feed_forward_size_is_rounded_up() -> None:
    assert ModelConfig(dim=192).hidden_dim == 512 and ModelConfig(dim=64).hidden_dim == 192
    assert SMALL.hidden_dim == 48


PUBLISHED = {
    "llama1-7b": 6_738_415_616,
    "llama1-13b": 13_015_864_320,
    "llama1-33b": 32_528_943_616,
    "llama1-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
}
"""Parameters, exact (arXiv 2302.13971, 2307.09288, 2407.21783 round them)."""


def test_presets_are_of_their_sizes() -> None:
    sizes = {}
    for name in PRESETS:
        with torch.device("meta"):
            config = preset(name)
            sizes[name] = num_parameters(Llama(dataclasses.replace(config, vocab_size=config.vocab_size or 2048)))
    assert {name: size for name, size in sizes.items() if "llama" in name} == PUBLISHED
    assert sizes["tiny"] < 400_000 and 1_000_000 < sizes["demo"] < 5_000_000 < sizes["small"]
    with pytest.raises(ConfigError, match="huge"):
        preset("huge")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_run_that_nodes_would_take(name: str) -> None:
    config = preset(name)
    check_run(RunConfig(model=config, data=DataConfig(vocab_size=config.vocab_size or 2048)), name)


# -- rotary positions ---------------------------------------------------------------------------------------------------


def test_rotary_scaling_of_llama_3_leaves_short_waves_alone_and_divides_long_ones() -> None:
    config = preset("llama3.1-8b")
    plain = rotary_frequencies(dataclasses.replace(config, rope_scaling="", rope_factor=1.0), torch.device("cpu"))
    scaled = rotary_frequencies(config, torch.device("cpu"))
    wave = 2 * torch.pi / plain
    assert torch.equal(scaled[wave < 8192 / 4], plain[wave < 8192 / 4])
    assert torch.equal(scaled[wave > 8192], (plain / 8)[wave > 8192])
    between = (wave > 8192 / 4) & (wave < 8192)
    assert between.any() and bool(((scaled < plain) & (scaled > plain / 8))[between].all())


def test_linear_rotary_scaling_squeezes_positions() -> None:
    config = dataclasses.replace(SMALL, rope_scaling="linear", rope_factor=4.0)
    squeezed, plain = (rotary_tables(each, 0, 9, torch.device("cpu"))[0] for each in (config, SMALL))
    assert torch.allclose(squeezed[8], plain[2], atol=1e-6)


# -- documents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 7, 15])
@pytest.mark.parametrize("num_kv_heads", [2, 4])
def test_a_document_does_not_see_another_in_its_row_by_a_single_bit(split: int, num_kv_heads: int) -> None:
    model = seeded(dataclasses.replace(SMALL, num_kv_heads=num_kv_heads), 1)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(16) >= split).long().expand(2, 16)
    changed = tokens.clone()
    changed[:, :split] = (changed[:, :split] + 1) % 64
    before, after = model(tokens, documents), model(changed, documents)
    assert torch.equal(before[:, split:], after[:, split:])
    assert not torch.allclose(model(tokens)[:, split:], model(changed)[:, split:], atol=1e-6)
    changed = tokens.clone()
    changed[:, split:] = (changed[:, split:] + 1) % 64
    assert torch.equal(before[:, :split], model(changed, documents)[:, :split])


def test_a_row_that_is_one_document_gives_what_no_documents_give() -> None:
    model = seeded(SMALL, 1)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(tokens, torch.zeros(2, 16, dtype=torch.int64)), model(tokens), atol=1e-5)


def test_a_later_document_gives_what_it_gives_alone() -> None:
    model = seeded(SMALL, 1)
    tokens = torch.randint(0, 64, (1, 16), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(16) >= 5).long()[None]
    assert torch.allclose(model(tokens, documents)[:, 5:], model(tokens[:, 5:]), atol=1e-5)


def test_each_bos_opens_a_document() -> None:
    tokens = torch.tensor([[5, 1, 7, 7, 1, 9], [1, 1, 2, 3, 4, 1]])
    assert documents_of(tokens, 1).tolist() == [[0, 1, 1, 1, 2, 2], [1, 2, 2, 2, 2, 3]]


# -- sampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1,), (4, 5), (3, 9, 15)])
def test_tokens_given_in_pieces_give_what_they_give_at_once(cuts: tuple[int, ...]) -> None:
    model, cache = seeded(SMALL, 1), Cache(SMALL.num_layers)
    tokens = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    pieces = [model(piece, cache=cache) for piece in tokens.tensor_split(cuts, dim=1)]
    assert cache.length == 16 and torch.allclose(torch.cat(pieces, dim=1), model(tokens), atol=1e-5)


@pytest.mark.parametrize("context", [0, 3, 8, 40])
def test_what_is_kept_between_tokens_does_not_change_them(context: int) -> None:
    model, ids = seeded(SMALL, 3), [1, 2]
    for _ in range(16):
        ids.append(int(model(torch.tensor([ids[-context:] if context else ids]))[0, -1].argmax()))
    assert generate(model, [1, 2], 16, 0.0, seed=0, context=context) == ids[2:]


def test_greedy_repeats_itself_and_sampling_follows_its_seed() -> None:
    model = seeded(SMALL, 3)
    before = torch.random.get_rng_state()
    assert generate(model, [1, 2], 6, 0.0, seed=0) == generate(model, [1, 2], 6, 0.0, seed=9)
    first = generate(model, [1, 2], 12, 1.0, seed=0, context=4)
    assert len(first) == 12 and all(0 <= token < 64 for token in first)
    assert first == generate(model, [1, 2], 12, 1.0, seed=0, context=4)
    assert first != generate(model, [1, 2], 12, 1.0, seed=1, context=4)
    assert torch.equal(before, torch.random.get_rng_state())
