"""`decentra replay`: any entry's hash, from a state directory, offline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro


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
    options = tyro.cli(Options, args=arguments, prog="decentra replay")
    from decentra.sim.offline import open_state

    opened = open_state(options.state)
    reached = opened.restore(options.to if options.to >= 0 else None)
    if options.json:
        state = reached.state
        print(json.dumps({"entry": state.r, "sync": state.sync, "tokens_committed": state.tokens, "state_hash": reached.state_hash.hex()}))
    else:
        print(f"entry {reached.state.r}, outer step {reached.state.sync}: {reached.state_hash.hex()}")
    return 0
