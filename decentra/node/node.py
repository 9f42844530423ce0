"""What a node is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from decentra.config import Config
from decentra.ledger.store import Store
from decentra.node.interrupts import Interrupts
from decentra.node.wiring import Credentials, Door, NodeTransport, Wiring
from decentra.rounds.ports import Ports, Run

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What the operator asked for: exactly one of founding (`config` has a run), joining, or coming back to `state`."""

    state: Path
    config: Config
    found: bool = False
    join: str = ""
    bootstrap: tuple[str, ...] = ()
    cache: Path = Path(".data")


@dataclass(slots=True)
class Node:
    """The pieces of a running node, opened one after another and closed in reverse.

    dialable: whether others can dial it, as configured or found. proved: members have said so.
    """

    start: Start
    wiring: Wiring
    note: Note
    announce_join: Callable[[str], None]
    interrupts: Interrupts = field(init=False)
    door: Door = field(init=False)
    store: Store = field(init=False)
    credentials: Credentials = field(init=False)
    transport: NodeTransport = field(init=False)
    sockets: Path = field(init=False)
    ports: Ports = field(init=False)
    run: Run = field(init=False)
    sequence: int = 0
    dialable: bool = True
    proved: bool = False
