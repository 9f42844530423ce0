"""`decentra replay`: any entry's hash, from a state directory, offline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Apply the ledger of a state directory again and print the state hash it leads to.

    Example: decentra replay out/demo/peer-0 --to 12
    """

    state: tyro.conf.Positional[Path]
    """State directory of a node that is not running."""
    to: int = -1
    """Entries to apply; default all. The oldest possible is that of the oldest snapshot kept."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Replay and print."""
    options = read(Options, arguments, "replay")
    if not (options.state / "manifest.bin").is_file():
        raise ConfigError(f"{options.state} holds no run; give the state directory of a node")
    if options.to < -1:
        raise ConfigError(f"--to {options.to} is no entry; give 0 or more, or leave it out for all")
    from decentra.ledger.files import DiskFiles
    from decentra.node.entering import naming_the_state
    from decentra.sim.offline import open_state

    opened = open_state(options.state)
    try:
        kept, log = opened.store.snapshots(), opened.store.entries(opened.store.oldest_entry(), 2**62)
        oldest, newest = min(kept, default=0), max([*kept, *(r + 1 for r, _ in log)], default=0)
        if options.to >= 0 and not oldest <= options.to <= newest:
            raise ConfigError(f"--to {options.to} lies outside what {options.state} holds; give {oldest} to {newest}")
        with naming_the_state(options.state):
            reached = opened.restore(options.to if options.to >= 0 else None)
    finally:
        cast(DiskFiles, opened.store.files).close()
    if options.json:
        state = reached.state
        print(json.dumps({"entry": state.r, "sync": state.sync, "tokens_committed": state.tokens, "state_hash": reached.state_hash.hex()}))
    else:
        print(f"entry {reached.state.r}, outer step {reached.state.sync}: {reached.state_hash.hex()}")
    return 0
