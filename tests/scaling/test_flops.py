"""Counts of operations are those of the publications that they are compared with."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from decentra.model import llama
from decentra.model.presets import PRESETS, preset
from decentra.scaling.flops import Convention, flop_per_token, num_parameters, utilization


@pytest.mark.parametrize(
    ("convention", "gflop", "mfu"),
    [
        (Convention.PARAMETERS, 48.2, 0.325),
        (Convention.LINGUA, 52.6, 0.354),
        (Convention.TORCHTITAN, 57.9, 0.390),
        (Convention.PICOTRON, 61.1, 0.412),
    ],
)
def test_one_throughput_is_four_utilizations(convention: Convention, gflop: float, mfu: float) -> None:
    """Llama 3 8B at 8,192 tokens; torchtitan's 6,667 tokens a second on an H100 of 989 TFLOP/s."""
    found = flop_per_token(preset("llama3-8b"), 8192, convention)
    assert found / 1e9 == pytest.approx(gflop, abs=0.06) and utilization(6667, found, 989e12) == pytest.approx(mfu, abs=0.0006)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_counted_as_a_model_has_them(name: str) -> None:
    config = dataclasses.replace(preset(name), vocab_size=preset(name).vocab_size or 2048)
    with torch.device("meta"):
        assert num_parameters(config) == llama.num_parameters(llama.Llama(config))


def test_a_tied_embedding_is_a_product_too() -> None:
    config = preset("llama3.2-1b")
    assert flop_per_token(config, 0, Convention.TORCHTITAN) == 6 * num_parameters(config)
