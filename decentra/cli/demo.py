"""`decentra demo`: the main job on this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decentra.cli.interrupt import run
from decentra.cli.options import read
from decentra.config import CODECS, parse_link
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """A swarm of real node daemons trains a Llama on this Python's own text; one peer joins late, two are killed in mid-round.

    Example: decentra demo --peers 4 --rounds 20 --link 100mbit,50ms
    """

    peers: int = 4
    """Peers at the start; one more joins after a third of the rounds."""
    rounds: int = 20
    """Outer steps of the whole model."""
    inner_steps: int = 0
    """Inner steps between two outer steps; 0 takes 25, and 100 with --streaming."""
    streaming: bool = False
    """Sync the model in two fragments, each round beside the training that follows; else train, then wait for the round."""
    link: str = "100mbit,50ms"
    """Every node's link: RATE,DELAY; rate a direction, delay one way."""
    kill: str = "leader,reducer"
    """Who is killed in mid-round, one after the other; '' for nobody. A peer is spared where those left would be no quorum."""
    codec: str = "int8"
    """How pseudo-gradients travel: fp32, bf16, int8, int4 or fp4; topk, which is gathered, with error feedback."""
    out: Path = Path("out/demo")
    """Where the report goes; a former demo's is emptied first."""
    cache: Path = Path(".data")
    """Where text and tokenizer are built, once."""
    seed: int = 0
    time_limit_s: float = 900.0
    """Give up after this many seconds."""
    json: bool = False
    """Print summary.json on stdout and nothing else."""


def main(arguments: list[str]) -> int:
    """Play, report, and say what came out."""
    options = read(Options, arguments, "demo")
    if options.peers < 2 or options.rounds < 3 or options.time_limit_s <= 0:
        given = f"--peers {options.peers} --rounds {options.rounds} --time-limit-s {options.time_limit_s:g}"
        raise ConfigError(f"{given}: a demo needs at least 2 peers, 3 rounds and some time")
    if options.inner_steps < 0:
        raise ConfigError(f"--inner-steps {options.inner_steps} must be at least 1, or 0 for the demo's own choice")
    if options.codec not in CODECS:
        raise ConfigError(f"--codec {options.codec!r} is not known; use one of {', '.join(CODECS)}")
    parse_link(options.link)
    from rich.console import Console
    from rich.live import Live

    from decentra.sim.demo import Settings, demo_run, play_demo, report

    console = Console(stderr=options.json)
    settings = Settings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)})
    config = demo_run(settings)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            swarm = run(play_demo(settings, config, lambda *seen: live.update(_view(config.stop_syncs, *seen))))
    else:
        swarm = run(play_demo(settings, config, _Lines(console, config.stop_syncs)))
    summary, lines = report(settings, config, swarm)
    if options.json:
        print(json.dumps(summary))
    else:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if summary["hashes_equal"] and summary["finished"] else 1


def _view(syncs: int, statuses: Sequence[dict[str, Any]], elapsed_s: float, line: str) -> Any:
    from decentra.observe.table import swarm_table

    if statuses:
        return swarm_table(statuses, syncs, elapsed_s, "decentra demo")
    return f"{line or 'peers are starting'} ({elapsed_s:.0f} s)"


class _Lines:
    """Where nobody watches a terminal: a line for each outer step."""

    def __init__(self, console: Any, syncs: int) -> None:
        self._console, self._syncs, self._said = console, syncs, ""

    def __call__(self, statuses: Sequence[dict[str, Any]], elapsed_s: float, line: str) -> None:
        from decentra.observe.table import headline

        now = f"outer step {max(s['sync'] for s in statuses)}" if statuses else line or self._said or "peers are starting"
        if now != self._said:
            self._said = now
            shown = " ".join(headline(statuses, self._syncs, elapsed_s, "demo")) if statuses else f"{now} ({elapsed_s:.0f} s)"
            self._console.print(shown, markup=False, highlight=False, soft_wrap=True)
