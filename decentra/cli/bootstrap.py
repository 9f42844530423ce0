"""`decentra bootstrap`: a rendezvous node for the DHT."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from decentra.cli.interrupt import run
from decentra.cli.options import read
from decentra.config import NodeConfig, check_node
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """A rendezvous node for the DHT only: it holds no model and no data. Prints its address, then serves until Ctrl-C.

    Example: decentra bootstrap --port 7700
    """

    listen: str = "127.0.0.1"
    """Address to listen on, e.g. 0.0.0.0."""
    port: int = 0
    """TCP port; 0 is any free one."""
    announce: str = ""
    """IP or name by which others reach this machine, where --listen is not it; needs --port."""


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    options = read(Options, arguments, "bootstrap")
    check_node(NodeConfig(listen=options.listen, port=options.port), "--")
    if options.announce and not options.port:
        raise ConfigError(f"--announce {options.announce} needs a fixed --port, not 0; choose one and open it in the firewall")
    served: list[str] = []
    try:
        run(_serve(options, served))
    except KeyboardInterrupt:
        if not served:
            raise
    return 0


async def _serve(options: Options, served: list[str]) -> None:
    from decentra.directory.hivemind_dht import BootstrapNode

    node = await BootstrapNode.start(host=options.listen, port=options.port, announce=options.announce)
    try:
        served.extend(node.addresses())
        print(served[0], flush=True)
        await asyncio.Event().wait()
    finally:
        await node.close()
