"""The transport seam: how a node's bytes reach another node.

Two verbs. `call` is control: one small request, one small reply. `pull` is bulk: the receiver asks by name and the
sender streams frames, so a receiver never gets bytes it did not ask for and bounds its own memory. Everything that
is not a question travels as a pull by the one who wants it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from decentra.types import PeerId

MAX_CALL_BYTES = 4 << 20
"""Largest request or reply of `call`; a larger one is refused before it is parsed."""

FRAME_BYTES = 1 << 20
"""Largest frame of a `pull`."""


@dataclass(frozen=True, slots=True)
class Contact:
    """Where and how to dial a peer, as its signed directory record says.

    endpoints: "host:port" strings, tried in order; empty if the peer cannot be dialled.
    certificate: the PEM of its TLS server certificate, pinned by whoever dials it; empty in memory transports.
    """

    peer: PeerId
    endpoints: tuple[str, ...]
    certificate: bytes = b""


class Handler(Protocol):
    """What a node answers. Raises decentra.errors.RefusedError to refuse by name; the caller sees PeerFault."""

    async def on_call(self, sender: PeerId, request: bytes) -> bytes:
        """Answer one control request; `sender` is authenticated by the transport."""
        ...

    def on_pull(self, sender: PeerId, request: bytes) -> AsyncIterator[bytes]:
        """Stream the frames (each at most FRAME_BYTES) of what `request` names."""
        ...


class Transport(Protocol):
    """Envelopes between authenticated peers. Contract: tests/contracts/test_transport.py.

    Every method raises only PeerUnreachable, PeerTimeout or PeerFault for the peer's faults. Bytes handed over
    belong to the transport until the call returns; bytes received belong to the caller.
    """

    async def call(self, peer: PeerId, request: bytes, timeout_s: float) -> bytes:
        """One control request and its reply."""
        ...

    def pull(self, peer: PeerId, request: bytes, idle_timeout_s: float) -> AsyncIterator[bytes]:
        """Frames of what `request` names; PeerTimeout when none came for `idle_timeout_s`."""
        ...

    def connect(self, contact: Contact) -> None:
        """Learn how to dial a peer; a later contact of the same peer replaces the former and its connections."""
        ...

    def counters(self) -> tuple[int, int]:
        """(bytes up, bytes down) so far, headers of the transport not counted, control included."""
        ...

    async def close(self) -> None:
        """Stop serving and drop all connections."""
        ...
