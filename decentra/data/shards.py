"""Packed tokens as files, and the samples cut from them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decentra.config import DataConfig
from decentra.data import corpus
from decentra.data.tokenizer import Tokenizer, train_tokenizer
from decentra.errors import ConfigError, StateError

FILES = ("tokenizer.model", "train.bin", "heldout.bin")
STAMP = "data.json"
RECIPE = 1
"""Raised whenever the same settings would give other bytes."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A stream of tokens cut into samples of context + 1: sample i starts at token i * context."""

    tokens: NDArray[np.unsignedinteger]
    context: int

    @classmethod
    def open(cls, path: Path, context: int, vocab_size: int) -> Shard:
        """Map a file of little-endian tokens. Raises StateError if it cannot hold one sample."""
        try:
            tokens = np.memmap(path, dtype=token_dtype(vocab_size), mode="r")
        except (OSError, ValueError) as error:
            raise StateError(f"cannot read the tokens in {path}: {error}; delete its folder so that it is built again") from error
        if len(tokens) <= context:
            raise StateError(f"{path} holds {len(tokens)} tokens, too few for data.context = {context}; use a shorter context")
        return cls(tokens, context)

    @property
    def num_samples(self) -> int:
        """Samples in one epoch."""
        return (len(self.tokens) - 1) // self.context

    def sample(self, index: int) -> NDArray[np.int64]:
        """Tokens of one sample, (context + 1,) int64."""
        assert 0 <= index < self.num_samples, f"sample {index} of {self.num_samples}"
        start = index * self.context
        return np.asarray(self.tokens[start : start + self.context + 1]).astype(np.int64)

    def batch(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Inputs and targets of samples, each (B, context) int64 on the CPU."""
        windows = torch.from_numpy(np.stack([self.sample(int(index)) for index in indices]))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Little-endian uint16 where every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def unigram_entropy(tokens: NDArray[np.unsignedinteger]) -> float:
    """Entropy of the token frequencies in nats a token: what a model without context can reach."""
    counts = np.unique(np.asarray(tokens), return_counts=True)[1].astype(np.float64)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def build(config: DataConfig, directory: Path) -> dict[str, Path]:
    """Make `tokenizer.model`, `train.bin` and `heldout.bin` in `directory`, or reuse them if complete. Returns paths by name.

    One Python version gives the same bytes each time. Every file appears whole or not at all, the stamp last.
    Raises ConfigError if the text is too small for the vocabulary or the context.
    """
    paths = {name: directory / name for name in FILES}
    if _is_complete(config, directory):
        return paths
    directory.mkdir(parents=True, exist_ok=True)
    train, heldout = corpus.split(corpus.python_documents(config.max_text_bytes), config.heldout_share)
    model = train_tokenizer(train, config.vocab_size)
    tokenizer = Tokenizer(model)
    _write_whole(paths["tokenizer.model"], model)
    for name, documents in (("train.bin", train), ("heldout.bin", heldout)):
        if write_shard(paths[name], documents, tokenizer) <= config.context:
            raise ConfigError(f"data.max_text_bytes = {config.max_text_bytes} leaves too little text for {name}; raise it")
    _write_whole(directory / STAMP, json.dumps(_stamp(config, directory)).encode())
    return paths


def write_shard(path: Path, documents: Iterable[str], tokenizer: Tokenizer) -> int:
    """Write the tokens of documents, each with its separators, as one file. Returns the number of tokens."""
    ids = list(chain.from_iterable(tokenizer.encode_document(text) for text in documents))
    _write_whole(path, np.asarray(ids, dtype=token_dtype(tokenizer.vocab_size)).tobytes())
    return len(ids)


def _stamp(config: DataConfig, directory: Path) -> dict[str, object]:
    """What the files in `directory` were made from and how large they are."""
    return {
        "recipe": RECIPE,
        "python": sys.version,
        "source": config.source,
        "vocab_size": config.vocab_size,
        "heldout_share": config.heldout_share,
        "max_text_bytes": config.max_text_bytes,
        "size_bytes": {name: (directory / name).stat().st_size for name in FILES},
    }


def _is_complete(config: DataConfig, directory: Path) -> bool:
    try:
        found: object = json.loads((directory / STAMP).read_bytes())
        return found == _stamp(config, directory)
    except (OSError, ValueError):
        return False


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a reader finds the old file or the whole new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
