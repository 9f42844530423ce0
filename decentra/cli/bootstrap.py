"""`decentra bootstrap`: a rendezvous node for the DHT."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass

import tyro


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
    options = tyro.cli(Options, args=arguments, prog="decentra bootstrap")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(options))
    return 0


async def _serve(options: Options) -> None:
    from decentra.directory.hivemind_dht import BootstrapNode

    node = await BootstrapNode.start(host=options.listen, port=options.port, announce=options.announce)
    try:
        print(node.addresses()[0], flush=True)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
    finally:
        await node.close()
