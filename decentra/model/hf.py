"""A Llama as Hugging Face keeps it: a folder with config.json and safetensors. Our parameters carry the same names.

Reads and writes config.json in the form that every version of transformers takes: rope_theta and rope_scaling beside each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decentra.config import ModelConfig
from decentra.errors import ConfigError, StateError
from decentra.model.llama import Llama

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.model", "tokenizer_config.json"
TOKENIZER_KIND = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
    "add_prefix_space": False,
    "legacy": False,
    "clean_up_tokenization_spaces": False,
}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HEAD = "lm_head.weight"
FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""What a Llama leaves no choice of."""


def hf_config(config: ModelConfig, bos: int, eos: int) -> dict[str, Any]:
    """config.json of a model with a vocab_size and a max_context. bos, eos: ids that open and close a document."""
    scaling: dict[str, Any] | None = None
    if config.rope_scaling:
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if scaling and config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": config.rope_low_freq_factor,
            "high_freq_factor": config.rope_high_freq_factor,
            "original_max_position_embeddings": config.rope_original_context,
        }
    return {
        "architectures": ["LlamaForCausalLM"],
        **FIXED,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.dim // config.num_heads,
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": "float32",
    }


def model_config(raw: Mapping[str, Any], place: str) -> ModelConfig:
    """The shape that a config.json names. Raises ConfigError with the key that this Llama cannot have."""
    for key, only in FIXED.items():
        if raw.get(key, only) != only:
            raise ConfigError(f"{place}: {key} = {raw[key]!r} is not a Llama as decentra trains it, where it is {only!r}")
    try:
        dim, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
        rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            raise ConfigError(f"{place}: rope_type = {kind!r} is not known; decentra has linear and llama3")
        if int(raw.get("head_dim") or dim // heads) * heads != dim:
            raise ConfigError(f"{place}: head_dim = {raw['head_dim']} is not hidden_size / num_attention_heads = {dim / heads:g}")
        scaled = {} if kind == "default" else {"rope_scaling": kind, "rope_factor": float(rope["factor"])}
        if kind == "llama3":
            scaled |= {
                "rope_low_freq_factor": float(rope["low_freq_factor"]),
                "rope_high_freq_factor": float(rope["high_freq_factor"]),
                "rope_original_context": int(rope["original_max_position_embeddings"]),
            }
        return ModelConfig(
            dim=dim,
            num_layers=int(raw["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(raw.get("num_key_value_heads") or heads),
            ffn_dim=int(raw["intermediate_size"]),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", 1e4))),
            tied=bool(raw.get("tie_word_embeddings", False)),
            vocab_size=int(raw["vocab_size"]),
            max_context=int(raw.get("max_position_embeddings", 2048)),
            **scaled,
        )
    except KeyError as missing:
        raise ConfigError(f"{place}: key {missing} is missing") from missing
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place} holds a value of the wrong kind: {error}") from error


def save(model: Llama, folder: Path, bos: int, eos: int) -> None:
    """Write config.json and model.safetensors, fp32; each appears whole or not at all. The model's config has a max_context."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}
    save_file(tensors, folder / f"{WEIGHTS}.tmp", metadata={"format": "pt"})
    (folder / f"{WEIGHTS}.tmp").chmod(0o644)  # safetensors gives it to nobody else
    os.replace(folder / f"{WEIGHTS}.tmp", folder / WEIGHTS)
    (folder / f"{CONFIG}.tmp").write_text(json.dumps(hf_config(model.config, bos, eos), indent=2) + "\n", encoding="utf-8")
    os.replace(folder / f"{CONFIG}.tmp", folder / CONFIG)


def save_tokenizer(model: bytes, folder: Path) -> None:
    """Write a sentencepiece model as the tokenizer of a folder, so that transformers gives the ids that the run trained on."""
    (folder / TOKENIZER).write_bytes(model)
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(TOKENIZER_KIND, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Llama:
    """The model of a folder, on the CPU in fp32. Raises ConfigError, StateError; a pickle, which can run code, is refused."""
    config = read_config(folder)
    with torch.device("meta"):
        model = Llama(config)
    model = model.to_empty(device="cpu")
    missing = dict(model.named_parameters())
    with torch.no_grad(), ExitStack() as opened:
        for path, name, read in _tensors(folder, opened):
            if name == HEAD and config.tied:
                continue  # some writers keep the tied head beside the embedding
            parameter = missing.pop(name, None)
            if parameter is None:
                if name.endswith("rotary_emb.inv_freq"):
                    continue  # of old writers; it follows from the config
                raise StateError(f"{path} holds {name}, which is no parameter of the model in {folder / CONFIG}")
            tensor = read()
            if tensor.shape != parameter.shape:
                raise StateError(f"{path}: {name} is {tuple(tensor.shape)}, {folder / CONFIG} says {tuple(parameter.shape)}")
            parameter.copy_(tensor)
    if missing:
        raise StateError(f"{folder} lacks {next(iter(missing))}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""))
    return model


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder. Raises ConfigError."""
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the folder of a Hugging Face model") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a table of keys, not {type(raw).__name__}")
    return model_config(raw, str(path))


def _tensors(folder: Path, opened: ExitStack) -> Iterator[tuple[Path, str, Callable[[], Tensor]]]:
    """(file, name, what reads it) of every tensor in a folder. Raises StateError."""
    for path in _files(folder):
        try:
            file = opened.enter_context(safe_open(path, framework="pt"))
            names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise StateError(f"{path} is cut off, or no safetensors file: {error}; copy it again") from error
        for name in names:
            yield path, name, partial(file.get_tensor, name)


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{index} cannot be read: {error}") from error
        if outside := [name for name in named if not isinstance(name, str) or Path(name).name != name]:
            raise StateError(f"{index} names {outside[0]!r}, which is not a file of its folder")
        return [folder / name for name in sorted(named)]
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    for pattern in PICKLES:
        if found := next(folder.glob(pattern), None):
            raise StateError(f"{found} is a pickle, which can run code when it is read; convert it to safetensors first")
    raise StateError(f"{folder} holds no {WEIGHTS}")
