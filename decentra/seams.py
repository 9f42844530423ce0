"""Seams between rooms that may not import each other: signatures and TLS, given by identity, injected by build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from decentra.types import PeerId


class Signer(Protocol):
    """This node's own key. Signing never fails and never blocks."""

    @property
    def peer(self) -> PeerId:
        """Peer id of the key."""
        ...

    @property
    def public_key(self) -> bytes:
        """Ed25519 public key, 32 bytes."""
        ...

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        """A serialised wire `Signed` over domain || 0x00 || payload."""
        ...


class Verifier(Protocol):
    """Opens what any node signed."""

    def open(self, domain: bytes, data: bytes) -> tuple[PeerId, bytes]:
        """(signer, payload) of a serialised wire `Signed`. Raises ValueError if it does not hold in `domain`."""
        ...


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a transport needs for TLS both ways; all but the callable are PEM.

    server_*: self-signed pair that dialling peers pin. client_*: pair issued by the run's authority.
    authority_certificate: the run's authority, by which a server judges its callers.
    peer_of_certificate: peer id bound into a PEM certificate; raises ValueError if the binding does not hold.
    """

    server_key: bytes
    server_certificate: bytes
    client_key: bytes
    client_certificate: bytes
    authority_certificate: bytes
    peer_of_certificate: Callable[[bytes], PeerId]
