"""Checkpoints of a trainer: torch's distributed checkpoint in a folder that appears whole or not at all.

    FOLDER/step-00000120/    what torch.distributed.checkpoint writes, shards and all
    FOLDER/step-00000120/about.json    what it is of, and the digest of every other file

A folder of this name is complete: it is written under another one, synced to disk, and renamed. The newest one counts.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from decentra.errors import StateError

ABOUT, PREFIX, UNFINISHED = "about.json", "step-", ".tmp"
READ_BYTES = 1 << 20


def save(folder: Path, step: int, state: Mapping[str, Any], about: Mapping[str, Any], keep: int = 2) -> Path:
    """Write what `state` holds (tensors, and plain values, nested) after so many steps; of older ones `keep` - 1 stay. Blocks."""
    final = folder / f"{PREFIX}{step:08d}"
    unfinished = final.with_suffix(UNFINISHED)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    # Here and in `load`: it takes a second and a half to import, which commands that only look for a checkpoint need not wait.
    from torch.distributed.checkpoint import state_dict_saver

    with _alone():
        state_dict_saver.save(dict(state), checkpoint_id=unfinished, no_dist=True)
    files = {path.name: _digest(path) for path in sorted(unfinished.iterdir())}
    _write_synced(unfinished / ABOUT, json.dumps({"step": step, "files": files, **about}, indent=1).encode())
    _sync(unfinished)
    if final.exists():
        shutil.rmtree(final)
    os.replace(unfinished, final)
    _sync(folder)
    for old in [*complete(folder)[:-keep], *folder.glob(f"{PREFIX}*{UNFINISHED}")]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def complete(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.suffix != UNFINISHED)


def about(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint is of; its files are not looked at. Raises StateError."""
    with _naming(checkpoint):
        found: dict[str, Any] = json.loads((checkpoint / ABOUT).read_text())
        return found


def load(checkpoint: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the tensors of `state` in place; the same mapping with plain values replaced.

    Raises StateError where one of its files is not as it was written, or it is of something else.
    """
    from torch.distributed.checkpoint import state_dict_loader
    from torch.distributed.checkpoint.api import CheckpointException

    with _naming(checkpoint):
        for name, digest in about(checkpoint)["files"].items():
            if _digest(checkpoint / name) != digest:
                raise StateError(f"checkpoint {checkpoint}: {name} is damaged; take an older one, by deleting this folder")
    filled = dict(state)
    try:
        with _alone():
            state_dict_loader.load(filled, checkpoint_id=checkpoint, no_dist=True)
    except (CheckpointException, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise StateError(f"checkpoint {checkpoint} is of another model or optimizer: {reason}") from error
    return filled


class Writer:
    """Writes checkpoints beside training: the trainer waits for a copy in memory, and for the write before, if that is not over."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder, self._keep = folder, keep
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: concurrent.futures.Future[Path] | None = None
        self._copies: dict[str, torch.Tensor] = {}

    def save(self, step: int, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Begin to write. Raises what went wrong with the write before."""
        self.wait()
        copy = self._copied(state, "")
        self._writing = self._thread.submit(save, self._folder, step, copy, dict(about), self._keep)

    def wait(self) -> None:
        """Until what was begun is written. Raises OSError."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """As `wait`, for the last time."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _copied(self, value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._copied(each, f"{place}/{key}") for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(each, f"{place}/{index}") for index, each in enumerate(value))
        if not isinstance(value, torch.Tensor):
            return value
        # Fresh pages cost more than the copy: the buffers of the write before are used again.
        kept = self._copies.get(place)
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype:
            kept = self._copies[place] = torch.empty_like(value, device="cpu")
        kept.copy_(value.detach())
        return kept


@contextlib.contextmanager
def _naming(checkpoint: Path) -> Iterator[None]:
    """Whatever cannot be read: say of which checkpoint it is."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"checkpoint {checkpoint} cannot be read ({error}); take an older one, by deleting this folder") from error


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """torch warns that there is one process, though it was told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """What a folder holds, and their names, on disk."""
    for path in (*folder.iterdir(), folder):
        if path.is_dir() and path != folder:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
