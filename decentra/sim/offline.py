"""A state directory, opened without a network: what replay, evaluation and reports read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decentra import build
from decentra.errors import StateError
from decentra.identity.signing import MemoVerifier
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Store
from decentra.rounds import catchup
from decentra.rounds.founding import empty_tensors
from decentra.rounds.ports import Run, read_manifest


@dataclass(slots=True)
class OpenedState:
    """A store and its run; `tensors` are filled by `restore`."""

    store: Store
    run: Run
    tensors: OuterTensors

    def restore(self, to_r: int | None = None) -> catchup.Reached:
        """S after `to_r` entries (default: all). Raises StateError."""
        return catchup.restore(self.store, self.run, self.tensors, to_r)


def open_state(path: Path) -> OpenedState:
    """Open a state directory. Raises StateError if it holds no run, is damaged or in use."""
    if not (path / "manifest.bin").exists():
        raise StateError(f"{path} holds no run; give the state directory of a node")
    store = Store.open(build.disk(path))
    run = read_manifest(store.files.read("manifest.bin") or b"", MemoVerifier(), build.machine)
    return OpenedState(store, run, empty_tensors(run.layout))
