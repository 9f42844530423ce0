"""Fragments: whole units, spread over the depth, even in size, the same from a model as from its layout."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.config import ModelConfig
from decentra.model.llama import Llama
from decentra.outer.fragments import Fragment, arranged, fragment_of_sync, fragments, homes, parameters
from decentra.outer.layout import Layout

SMALL = ModelConfig(dim=64, num_layers=6, num_heads=2, num_kv_heads=2)


def shapes(config: ModelConfig, vocab_size: int) -> list[tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        return [(name, tuple(p.shape)) for name, p in Llama(dataclasses.replace(config, vocab_size=vocab_size)).named_parameters()]


def layers_of(names: frozenset[str]) -> list[int]:
    return sorted({int(name.split("layers.")[1].split(".")[0]) for name in names if "layers." in name})


models = st.builds(
    lambda dim, layers, tied: ModelConfig(dim=32 * dim, num_layers=layers, num_heads=2, num_kv_heads=2, tied=tied),
    st.integers(1, 3), st.integers(1, 9), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(models, st.sampled_from([512, 3000, 40_000]), st.data())
def test_fragments_tile_the_layout_with_whole_units_as_evenly_as_these_allow(config: ModelConfig, vocab: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, config.num_layers))
    layout = arranged(shapes(config, vocab), count)
    found = fragments(layout, count)
    assert [f.index for f in found] == list(range(count)) and all(f.num_chunks > 0 for f in found)
    assert [f.first_chunk for f in found] == [sum(f.num_chunks for f in found[:i]) for i in range(count)]
    assert sum(f.num_chunks for f in found) == layout.num_chunks
    names = parameters(layout, found)
    assert sorted(name for part in names for name in part) == sorted(slot.name for slot in layout.slots)
    assert sorted(layer for part in names for layer in layers_of(part)) == list(range(config.num_layers)), "no layer is split"
    largest_unit = max(_unit_sizes(layout).values())
    assert max(f.num_chunks for f in found) - min(f.num_chunks for f in found) <= largest_unit


def _unit_sizes(layout: Layout) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for slot in layout.slots:
        unit = "layer " + slot.name.split("layers.")[1].split(".")[0] if "layers." in slot.name else slot.name
        sizes[unit] = sizes.get(unit, 0) + -(-slot.num_elements // 4096)
    return sizes


def test_layers_are_dealt_out_over_the_whole_depth() -> None:
    config = dataclasses.replace(SMALL, dim=256, num_layers=6)
    names = parameters(layout := arranged(shapes(config, 512), 3), fragments(layout, 3))
    assert [layers_of(part) for part in names] == [[0, 3], [1, 4], [2, 5]]


def test_a_large_embedding_stands_alone_until_the_others_have_caught_up() -> None:
    found = fragments(layout := arranged(shapes(SMALL, 8192), 3), 3)
    assert [layers_of(part) for part in parameters(layout, found)] == [[], [], [0, 1, 2, 3, 4, 5]]
    assert homes(shapes(SMALL, 8192), 3)["model.embed_tokens.weight"] != homes(shapes(SMALL, 8192), 3)["lm_head.weight"]


@pytest.mark.parametrize("tied", [True, False])
def test_the_final_norm_goes_with_the_head_also_where_the_embedding_is_the_head(tied: bool) -> None:
    home = homes(shapes(dataclasses.replace(SMALL, tied=tied), 3000), 3)
    assert home["model.norm.weight"] == home["model.embed_tokens.weight" if tied else "lm_head.weight"]
    assert ("lm_head.weight" in home) is not tied


def test_one_fragment_is_the_model_in_its_order() -> None:
    found = shapes(SMALL, 512)
    layout = arranged(found, 1)
    assert layout == Layout.of(found) and fragments(layout, 1) == (Fragment(0, 0, layout.num_chunks),)


def test_a_layout_in_another_order_is_refused() -> None:
    with pytest.raises(ValueError, match="not that of 2 fragments"):
        fragments(Layout.of(shapes(SMALL, 512)), 2)
    with pytest.raises(ValueError, match="not that of 2 fragments"):
        fragments(Layout.of([("w", (5000,))]), 2)


def test_syncs_take_turns() -> None:
    assert [fragment_of_sync(s, 3) for s in range(7)] == [0, 1, 2, 0, 1, 2, 0]
