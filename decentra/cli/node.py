"""`decentra node`: a node daemon."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from decentra.cli.options import read
from decentra.config import Config, check_node, load
from decentra.errors import ConfigError, StateError
from decentra.identity.invite import decode


@dataclass(frozen=True)
class Options:
    """Found a swarm, join one, or come back to one.

    Example: decentra node --run nodes/configs/tiny.toml      (prints the join string for the others)
    """

    run: Path | None = None
    """Found the run of this TOML file (its [run]); [node] is this machine's own."""
    join: str = ""
    """Join the swarm of this join string."""
    state: Path | None = None
    """State directory; default the first unused ./state/RUN-n. With neither --run nor --join: come back to its run."""
    bootstrap: str = ""
    """DHT address to enter by (decentra bootstrap prints one); without it a founder is the first DHT node."""
    listen: str = ""
    """Address to listen on, e.g. 0.0.0.0; default 127.0.0.1."""
    port: int = -1
    """gRPC port; 0 is any free one."""
    dht_port: int = -1
    """TCP port of this node's DHT; 0 is any free one. To be fixed where --announce is given."""
    announce: str = ""
    """IP or name by which others reach this machine, where --listen is not it; needs --port and --dht-port."""
    reachable: str = ""
    """Whether others can dial this node: auto (members try it, the default), yes, or no (behind a NAT: it only dials out)."""
    link: str = ""
    """Shape this node's link in user space: RATE,DELAY such as 100mbit,50ms."""
    threads: int = 0
    """CPU threads of the trainer."""
    device: str = ""
    """Device of the trainer, as torch names it; default CUDA where torch sees it, else the CPU."""
    cache: Path = Path(".data")
    """Where text and tokenizer are built."""
    json: bool = False
    """Print the summary as JSON at the end, and nothing else on stdout."""


def main(arguments: list[str]) -> int:
    """Run a node until its run ends or Ctrl-C."""
    options = read(Options, arguments, "node")
    if options.run and options.join:
        raise ConfigError("--run founds a swarm and --join joins one; give one of them")
    if not (options.run or options.join or options.state):
        raise ConfigError("give --run RUN.toml to found a swarm, --join STRING to join one, or --state DIR to come back to one")
    config = _config(options)
    if options.run and config.node.reachable == "no":
        raise ConfigError("a founder must be reachable, or nobody could join it; found the run on a machine that others can dial")
    if options.join:
        decode(options.join)
    state = options.state or _free_state(config.run.name if options.run else "joined")

    def note(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    def announce_join(string: str) -> None:
        note(f"state directory: {state}")
        print(f"join string: {string}", file=sys.stderr if options.json else sys.stdout, flush=True)

    import torch

    from decentra.build import DHT_ADDRESS, trainer_device, wiring
    from decentra.node.daemon import run_node
    from decentra.node.node import Start
    from decentra.node.pages import keep_pages

    if options.bootstrap and not DHT_ADDRESS.match(options.bootstrap):
        raise ConfigError(
            f"--bootstrap {options.bootstrap!r} cannot be read; give the address that decentra bootstrap prints, /ip4/HOST/tcp/PORT/p2p/ID"
        )
    keep_pages()
    trainer_device(config.node.device)
    torch.set_num_threads(config.node.daemon_threads)
    bootstrap = (options.bootstrap,) if options.bootstrap else ()
    start = Start(state, config, options.run is not None, options.join, bootstrap, options.cache)
    summary = asyncio.run(run_node(start, wiring(), note, announce_join))
    if options.json:
        print(json.dumps(summary))
    else:
        done = f"{summary['rounds_committed']} outer steps, {summary['tokens_committed']} tokens"
        note(f"ended after {done}; summary in {state}/summary.json")
    return 0


def _config(options: Options) -> Config:
    config = load(options.run) if options.run else Config()
    node = dataclasses.replace(
        config.node,
        listen=options.listen or config.node.listen,
        port=options.port if options.port != -1 else config.node.port,
        dht_port=options.dht_port if options.dht_port != -1 else config.node.dht_port,
        announce=options.announce or config.node.announce,
        reachable=options.reachable or config.node.reachable,
        device=options.device or config.node.device,
        link=options.link or config.node.link,
        trainer_threads=options.threads or config.node.trainer_threads,
    )
    check_node(node, "--")
    return dataclasses.replace(config, node=node)


def _free_state(name: str) -> Path:
    for number in range(1000):
        path = Path("state") / f"{name}-{number}"
        if not path.exists():
            return path
    raise StateError(f"state/{name}-0 to -999 are all in use; give --state DIR")
