"""Into a run: found it, join it, or come back to it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from decentra.config import RunConfig, differing_keys
from decentra.errors import ConfigError, DecentraError, PeerError, RefusedError, SetupError, StateError
from decentra.ledger.state import OuterTensors
from decentra.node.doorway import keep_door, kept_door
from decentra.node.node import Node
from decentra.node.preparing import build_text, to_its_end
from decentra.node.wiring import Door, LockedFiles
from decentra.rounds import catchup
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.ports import Run, meet, read_manifest

Founded = tuple[OuterTensors, catchup.Reached]


@contextlib.contextmanager
def naming_the_state(state: Path) -> Iterator[None]:
    """What is damaged is damaged somewhere: say where."""
    try:
        yield
    except StateError as error:
        raise StateError(str(error) if str(state) in str(error) else f"state directory {state}: {error}") from error


async def found_run(node: Node, files: LockedFiles) -> Founded:
    """Build the text, draw the first weights, sign the manifest."""
    config, cache = node.start.config.run, node.start.cache
    folder, there = node.wiring.text_folder(config, cache)
    if not there:
        node.note(f"preparing text and tokenizer in {folder}")
        await build_text(config.data, folder)
    return await to_its_end(asyncio.to_thread(_founded, node, files))


def _founded(node: Node, files: LockedFiles) -> Founded:
    """Blocks."""
    config, store = node.start.config.run, node.store
    text = node.wiring.text(config, node.start.cache)
    tensors = empty_tensors(text.layout)
    text.fill(text.layout, tensors.anchor)
    sizes = {name: path.stat().st_size for name, path in text.files.items()}
    listed = tuple((name, store.put_file(name, path.read_bytes()), sizes[name]) for name, path in sorted(text.files.items()))
    token = secrets.token_bytes(16)
    material = Material(config, text.layout, listed, text.num_samples, token, secrets.token_bytes(16))
    node.run, reached = found(material, tensors, store, node.credentials.signer, node.credentials.verifier, node.wiring.make_machine)
    node.door = Door(node.run.run_id, node.credentials.signer.public_key, token, node.start.bootstrap)
    keep_door(files, node.door)
    return tensors, reached


def know_door(node: Node, files: LockedFiles) -> None:
    """The way into the run: from the join string, or from what this state directory remembers."""
    start, kept = node.start, kept_door(files)
    if start.join:
        node.door = node.wiring.decode_door(start.join)
        if kept is not None and kept.run_id != node.door.run_id:
            ours, theirs = kept.run_id.hex()[:8], node.door.run_id.hex()[:8]
            raise ConfigError(f"--state {start.state} belongs to run {ours}, the join string to {theirs}; give another --state")
        keep_door(files, node.door)
    elif kept is not None:
        node.door = Door(kept.run_id, kept.founder_key, kept.token, start.bootstrap or kept.dht, kept.entrances)
        if start.found:
            _same_run(node, start.config.run)
    else:
        raise ConfigError(f"--state {start.state} holds no run; found one with --run RUN.toml or join one with --join STRING")


def _same_run(node: Node, config: RunConfig) -> None:
    keys = differing_keys(config, _kept_run(node).config)
    if keys:
        held = f"--state {node.start.state} holds a run with other settings ({', '.join(keys)})"
        raise ConfigError(f"{held}; give another --state, or the run's own file")


def _kept_run(node: Node) -> Run:
    try:
        return read_manifest(node.store.files.read("manifest.bin") or b"", node.credentials.verifier, node.wiring.make_machine)
    except ValueError as error:
        raise StateError(f"{node.start.state}/manifest.bin is damaged; move the state directory away and join again") from error


async def greet(node: Node, record: bytes) -> list[str]:
    """Know the run: from a living member, or, coming back to a sleeping swarm, from this node's own disk."""
    met, dialled = await asyncio.gather(meet(node.ports, node.door.run_id), node.wiring.dial(node.transport, node.door.entrances))
    peers = [peer for peer in dict.fromkeys((*met, *dialled)) if peer != node.ports.signer.peer]
    kept = node.store.files.read("manifest.bin")
    try:
        node.run, donors = await catchup.greet(node.ports, node.door.run_id, node.door.token, record, peers, node.wiring.make_machine)
    except (PeerError, RefusedError) as error:
        if kept is None and isinstance(error, RefusedError):
            raise
        if kept is None:
            raise SetupError(_nobody(node, peers, error)) from error
        node.note(f"no member takes this node in ({error}); going on from its own state")
        node.run, donors = _kept_run(node), []
    if kept is None:
        node.store.files.write("manifest.bin", node.run.manifest)
    return donors


def _nobody(node: Node, peers: list[str], error: DecentraError) -> str:
    run, door = node.door.run_id.hex()[:8], node.door
    places = ", ".join([*(endpoint for endpoint, _ in door.entrances), *door.dht]) or "no address at all"
    why = f"{error}" if peers else f"nobody answers at {places}"
    return f"cannot join run {run}: {why}; is a member of it running, and reachable from here? ask it for a new join string if it moved"


async def reach(node: Node, tensors: OuterTensors, donors: list[str]) -> catchup.Reached:
    if not node.store.snapshots():
        return await catchup.fetch_snapshot(node.ports, node.run, tensors, donors)
    with naming_the_state(node.start.state):
        reached = await asyncio.to_thread(catchup.restore, node.store, node.run, tensors)
    node.note(f"restored entry {reached.state.r} from {node.start.state}")
    return reached
