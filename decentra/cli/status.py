"""`decentra status`: what a swarm is doing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import tyro

from decentra.cli.interrupt import run
from decentra.cli.options import read
from decentra.errors import SetupError


@dataclass(frozen=True)
class Options:
    """What a swarm is doing, seen through its join string.

    Example: decentra status decentra1...
    """

    string: tyro.conf.Positional[str]
    """The join string that a node printed."""
    json: bool = False
    """Print every peer's status as JSON."""


def main(arguments: list[str]) -> int:
    """Ask every peer once and print."""
    options = read(Options, arguments, "status")
    from decentra.identity.invite import decode

    decode(options.string)
    from rich.console import Console

    from decentra.build import decode_door, wiring
    from decentra.node.status import Watcher
    from decentra.observe.table import swarm_table

    async def ask() -> list[dict[str, Any]]:
        async with Watcher(decode_door(options.string), wiring()) as watcher:
            await watcher.peers()
            return await watcher.statuses()

    statuses = run(ask())
    if not statuses:
        raise SetupError("the swarm's peers are known, but none tells its status; ask again in a while")
    if options.json:
        print(json.dumps(statuses))
    else:
        lived = max(status["lived_s"] for status in statuses)
        Console().print(swarm_table(statuses, 0, lived))
    return 0
