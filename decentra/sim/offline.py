"""A state directory, opened without a network: what replay, evaluation and reports read. And one that `decentra train` left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from decentra import build
from decentra.config import RunConfig, differing_keys, run_bytes, run_from_bytes
from decentra.errors import ConfigError, StateError
from decentra.identity.signing import MemoVerifier
from decentra.ledger.files import DiskFiles
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Store
from decentra.model.llama import Llama
from decentra.node.entering import naming_the_state
from decentra.rounds import catchup
from decentra.rounds.founding import empty_tensors
from decentra.rounds.ports import Run, read_manifest
from decentra.train import checkpoint
from decentra.train.step import copy_in


@dataclass(slots=True)
class OpenedState:
    """A store and its run; `tensors` are filled by `restore`."""

    store: Store
    run: Run
    tensors: OuterTensors

    def restore(self, to_r: int | None = None) -> catchup.Reached:
        """S after `to_r` entries (default: all). Raises StateError."""
        return catchup.restore(self.store, self.run, self.tensors, to_r)

    def model(self) -> Llama:
        """A model on the CPU with the anchor's weights, once they are restored."""
        model: Llama = build.first_model(self.run.config)
        copy_in(model, self.run.layout.views(self.tensors.anchor))
        return model


def open_state(path: Path) -> OpenedState:
    """Open a state directory. Raises StateError if it holds no run, is damaged or in use."""
    if not (path / "manifest.bin").exists():
        raise StateError(f"{path} holds no run; give the state directory of a node")
    store = Store.open(build.disk(path))
    run = read_manifest(store.files.read("manifest.bin") or b"", MemoVerifier(), build.machine)
    return OpenedState(store, run, empty_tensors(run.layout))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run has come to: a model on the CPU, after so many entries, syncs and tokens, and the folder of the run's files.

    Of a swarm it is the anchor, never one node's own weights; entry and sync are 0 where there was no swarm.
    """

    model: Llama
    run: RunConfig
    entry: int
    sync: int
    tokens: int
    files: Path

    @property
    def tokenizer(self) -> bytes:
        """Of the run. Raises StateError where its file has not come yet."""
        try:
            return (self.files / "tokenizer.model").read_bytes()
        except OSError as error:
            raise StateError(f"{self.files} holds no tokenizer.model; this node has not fetched its files yet") from error


@contextmanager
def trained(path: Path) -> Iterator[Trained]:
    """What stands in the state directory of a node, which no other may use meanwhile, or in the --out of `decentra train`.

    Raises StateError.
    """
    if (path / RUN_FILE).is_file():
        yield _trained_alone(path)
        return
    opened = open_state(path)
    try:
        with naming_the_state(path):
            reached = opened.restore()
        config, state = opened.run.config, reached.state
        yield Trained(opened.model(), config, state.r, state.sync, state.tokens, path / "files")
    finally:
        cast(DiskFiles, opened.store.files).close()


# -- what `decentra train` leaves -----------------------------------------------------------------------------------------

RUN_FILE = "run.json"


def keep_run(out: Path, run: RunConfig, files: Mapping[str, Path]) -> Path:
    """Note a run and its files in `out`, for `trained`. Returns the folder of the files. Raises ConfigError where `out` is of another."""
    folder, mine = out / "files", out / RUN_FILE
    if mine.exists() and (keys := differing_keys(run_from_bytes(mine.read_bytes()), run)):
        raise ConfigError(f"--out {out} is of a run with another {', '.join(keys)}; give another --out, or its settings")
    if out.exists() and not mine.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} holds what decentra train did not make; give an empty or a new directory")
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        if not (folder / name).exists():
            shutil.copyfile(path, folder / f"{name}.tmp")
            os.replace(folder / f"{name}.tmp", folder / name)
    mine.write_bytes(run_bytes(run))
    return folder


def _trained_alone(path: Path) -> Trained:
    run = run_from_bytes((path / RUN_FILE).read_bytes())
    found = checkpoint.complete(path / "checkpoints")
    if not found:
        raise StateError(f"{path} holds no checkpoint yet; let decentra train go on")
    about = checkpoint.about(found[-1])
    model = build.first_model(run)
    checkpoint.load(found[-1], {"model": dict(model.named_parameters())})
    return Trained(model, run, 0, 0, int(about["tokens"]), path / "files")
