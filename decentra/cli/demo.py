"""`decentra demo`: the main job on this machine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True)
class Options:
    """A swarm of real node daemons trains a Llama on this Python's own text; one peer joins late, one is killed.

    Example: decentra demo --peers 4 --rounds 20 --link 100mbit,50ms
    """

    peers: int = 4
    """Peers at the start; one more joins after a third of the rounds."""
    rounds: int = 20
    """Outer steps."""
    link: str = "100mbit,50ms"
    """Every node's link: RATE,DELAY; rate a direction, delay one way."""
    codec: str = "int8"
    """How pseudo-gradients travel: int8 or fp32."""
    out: Path = Path("out/demo")
    """Where the report goes; emptied first."""
    cache: Path = Path(".data")
    """Where text and tokenizer are built, once."""
    seed: int = 0
    time_limit_s: float = 900.0
    """Give up after this many seconds."""
    json: bool = False
    """Print summary.json on stdout and nothing else."""


def main(arguments: list[str]) -> int:
    """Play, report, and say what came out."""
    options = tyro.cli(Options, args=arguments, prog="decentra demo")
    from rich.console import Console
    from rich.live import Live

    from decentra.errors import ConfigError
    from decentra.observe.table import swarm_table
    from decentra.sim.demo import Settings, run_demo

    if options.peers < 2 or options.rounds < 3:
        raise ConfigError(f"--peers {options.peers} --rounds {options.rounds}: a demo needs at least 2 peers and 3 rounds")
    console = Console(file=sys.stderr if options.json else None)
    settings = Settings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)})
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:

        def show(statuses: Sequence[dict[str, Any]], elapsed_s: float, line: str) -> None:
            view = swarm_table(statuses, options.rounds, elapsed_s, "decentra demo") if statuses else f"{line or 'peers are starting'} ({elapsed_s:.0f} s)"
            live.update(view)

        summary, lines = asyncio.run(run_demo(settings, show))
    if options.json:
        print(json.dumps(summary))
    else:
        for line in lines:
            console.print(line, markup=False, highlight=False)
    return 0 if summary["hashes_equal"] and summary["finished"] else 1
