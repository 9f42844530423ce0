"""What a node needs that is concrete: build fills this in, so that the node names no classes of other rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from decentra.config import NodeConfig, RunConfig
from decentra.directory.base import Directory
from decentra.ledger.files import Files
from decentra.outer.layout import Layout
from decentra.rounds.ports import MakeMachine
from decentra.seams import Signer, Verifier
from decentra.transport.base import Handler, Transport
from decentra.types import PeerId


@dataclass(frozen=True, slots=True)
class Door:
    """Where a run can be entered, out of a join string. entrances: (endpoint, peer id) pairs."""

    run_id: bytes
    founder_key: bytes
    token: bytes
    dht: tuple[str, ...] = ()
    entrances: tuple[tuple[str, PeerId], ...] = ()


class LockedFiles(Files, Protocol):
    """Files that this process alone holds, until `close`."""

    def close(self) -> None:
        """Give them back."""
        ...


class NodeTransport(Transport, Protocol):
    """A transport that listens, unless it is told not to. `handler` may be set once the node is ready.

    dialable: whether others can dial this node; while not, it holds connections open to those that can be dialled.
    """

    port: int
    dialable: bool

    @property
    def handler(self) -> Handler | None:
        """What it answers."""
        ...

    @handler.setter
    def handler(self, handler: Handler) -> None: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """This node's identity, ready to use."""

    signer: Signer
    verifier: Verifier
    server_certificate: Callable[[Door], bytes]


@dataclass(frozen=True, slots=True)
class Text:
    """The founder's data: files by name on disk, samples in one epoch, and the first weights laid out."""

    files: dict[str, Path]
    num_samples: int
    layout: Layout
    fill: Callable[[Layout, object], None]


@dataclass(frozen=True, slots=True)
class Wiring:
    """Factories, each from plain values. `ready` raises SetupError for what this machine cannot do, before anything is made.

    text_folder: where the text of a run is built below a cache, and whether it is there already. directory: with a folder for its
    sockets; its last argument says whether this node can be dialled. dial_back: see rounds.reachability.
    """

    ready: Callable[[NodeConfig, Sequence[str]], Awaitable[None]]
    text_folder: Callable[[RunConfig, Path], tuple[Path, bool]]
    make_machine: MakeMachine
    credentials: Callable[[Path], Credentials]
    transport: Callable[[Path, Door, NodeConfig], Awaitable[NodeTransport]]
    directory: Callable[[Door, NodeConfig, NodeTransport, Verifier, Path, Callable[[str], None], bool], Awaitable[Directory]]
    text: Callable[[RunConfig, Path], Text]
    disk: Callable[[Path], LockedFiles]
    encode_door: Callable[[Door], str]
    decode_door: Callable[[str], Door]
    dial: Callable[[NodeTransport, Sequence[tuple[str, PeerId]]], Awaitable[list[PeerId]]]
    dial_back: Callable[[str, bytes], Awaitable[bool]]
