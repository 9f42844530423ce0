"""Hugging Face folders: transformers reads what we write and gives the same logits and text; what cannot be read is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decentra.config import ModelConfig
from decentra.errors import ConfigError, StateError
from decentra.model.generate import generate
from decentra.model.hf import CONFIG, HEAD, INDEX, WEIGHTS, hf_config, load, model_config, save
from decentra.model.init import seeded
from decentra.model.llama import Llama

TOY = ModelConfig(dim=64, num_layers=3, num_heads=4, num_kv_heads=4, ffn_dim=160, vocab_size=300, max_context=256, norm_eps=1e-6)
LLAMA_3 = dataclasses.replace(TOY, num_kv_heads=2, rope_theta=5e5, norm_eps=1e-5)
LLAMA_3_1 = dataclasses.replace(LLAMA_3, rope_scaling="llama3", rope_factor=8.0, rope_original_context=64)
GENERATIONS = {
    "1": TOY,
    "2": dataclasses.replace(TOY, num_kv_heads=2, norm_eps=1e-5),
    "3": LLAMA_3,
    "3.1": LLAMA_3_1,
    "3.2": dataclasses.replace(LLAMA_3_1, rope_factor=32.0, tied=True),
    "linear": dataclasses.replace(TOY, rope_scaling="linear", rope_factor=2.0),
}
TOKENS = torch.randint(0, 300, (2, 200), generator=torch.Generator().manual_seed(0))


def strong(config: ModelConfig) -> Llama:
    """First weights, made larger: what a position sees of others then shows in its logits."""
    model = seeded(config, 5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(4.0)
    return model


@pytest.fixture(params=GENERATIONS)
def model(request: pytest.FixtureRequest) -> Llama:
    return strong(GENERATIONS[request.param])


def theirs(folder: Path) -> Any:
    """The same folder, in transformers."""
    from transformers import LlamaForCausalLM

    found = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return found.eval()


def test_transformers_gives_our_logits(model: Llama, tmp_path: Path) -> None:
    save(model, tmp_path, 1, 2)
    with torch.no_grad():
        ours, found = model(TOKENS), theirs(tmp_path)(TOKENS).logits
    assert float(ours.abs().max()) > 0.1 and float((ours - found).abs().max()) < 1e-5


def test_greedy_text_is_that_of_transformers(model: Llama, tmp_path: Path) -> None:
    save(model, tmp_path, 1, 2)
    prompt = TOKENS[0, :8].tolist()
    text = theirs(tmp_path).generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generate(model, prompt, 64, 0.0, seed=0) == text[0, 8:].tolist()


def test_what_transformers_writes_is_read_to_the_bit(model: Llama, tmp_path: Path) -> None:
    save(model, tmp_path / "ours", 1, 2)
    theirs(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_what_we_write_is_read_to_the_bit(model: Llama, tmp_path: Path) -> None:
    save(model, tmp_path, 1, 2)
    again = load(tmp_path)
    assert again.config == model.config
    for (name, parameter), (same, found) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == same and torch.equal(parameter, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_weights_in_several_files_and_in_halves_are_read(tmp_path: Path) -> None:
    model = seeded(TOY, 5)
    save(model, tmp_path, 1, 2)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    (tmp_path / WEIGHTS).unlink()
    names = sorted(tensors)
    where = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, tmp_path / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": where}))
    again = load(tmp_path)
    assert all(torch.equal(found, tensors[name].float()) for name, found in again.named_parameters())


def test_a_tied_head_that_a_writer_kept_is_left_out(tmp_path: Path) -> None:
    model = seeded(dataclasses.replace(TOY, tied=True), 5)
    save(model, tmp_path, 1, 2)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({**tensors, HEAD: tensors["model.embed_tokens.weight"].clone()}, tmp_path / WEIGHTS)
    assert len(list(load(tmp_path).parameters())) == len(tensors)


# -- what cannot be read --------------------------------------------------------------------------------------------------


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def retensor(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def escape(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "../other.safetensors"}}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "is cut off"),
        (pickled, r"pytorch_model.bin is a pickle, which can run code"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"holds no {WEIGHTS}"),
        (retensor(lambda t: t.pop("model.norm.weight")), "lacks model.norm.weight"),
        (retensor(lambda t: t.update({"model.norm.bias": torch.ones(3)})), "model.norm.bias, which is no parameter"),
        (retensor(lambda t: t.update({"model.norm.weight": torch.ones(3)})), r"model.norm.weight is \(3,\), .* says \(64,\)"),
        (escape, "not a file of its folder"),
        (lambda folder: (folder / INDEX).write_text("{}"), "cannot be read"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"x": "gone.safetensors"}}'), "gone.safetensors is cut off, or no"),
    ],
)
def test_weights_that_do_not_hold_are_named(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    save(seeded(TOY, 5), tmp_path, 1, 2)
    spoil(tmp_path)
    with pytest.raises(StateError, match=says):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mistral"}, "model_type = 'mistral' is not a Llama"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn' is not known"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "key 'low_freq_factor' is missing"),
        ({"head_dim": 32}, "head_dim = 32 is not hidden_size / num_attention_heads = 16"),
        ({"hidden_size": "wide"}, "wrong kind"),
    ],
)
def test_a_config_of_another_kind_is_refused_by_its_key(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model_config({**hf_config(TOY, 1, 2), **change}, "config.json")


@pytest.mark.parametrize(("text", "says"), [("", "not valid JSON"), ("[]", "table of keys"), ("{}", "key 'hidden_size' is missing")])
def test_a_config_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the folder of a Hugging Face model"):
        load(tmp_path)
