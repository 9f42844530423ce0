"""`decentra trainer` (hidden): the trainer process of a node, started by its daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decentra.build import outfit
from decentra.cli.options import read
from decentra.node.trainer import run_trainer


@dataclass(frozen=True)
class Options:
    """folder: where the daemon's sockets are."""

    folder: Path


def main(arguments: list[str]) -> int:
    """Run until the daemon ends it."""
    run_trainer(read(Options, arguments, "trainer").folder, outfit)
    return 0
